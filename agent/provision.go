package agent

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// A Provision has an agent find out from a Device Provisioning Service to which hub it belongs. It asks
// when it starts for the first time, and again when that hub refuses it, or ten attempts in a row have
// failed; see [mqttdevice.Options.Provision]. In between it goes by what it was told last, which is kept
// in Options.Folder, without the key.
type Provision struct {
	// Registration says how to ask. Its key, or else the certificate of its TLS, is also the credential
	// for the hub. OnRetry, if set, hears what the service is asked again for.
	Registration mqttdevice.RegistrationOptions

	// Reach tells what to dial for an assignment; nil, and an empty address: the hub that it names.
	Reach func(mqttdevice.Assignment) (addr, webSocketAddr string)
}

// endpoint is where a connects.
func (p *Provision) endpoint(a mqttdevice.Assignment) mqttdevice.Endpoint {
	e := mqttdevice.Endpoint{ConnectionString: a.ConnectionString(p.Registration.Key)}
	if p.Reach != nil {
		e.Addr, e.WebSocketAddr = p.Reach(a)
	}
	return e
}

const assignmentFile = "assignment.json"

// A keptAssignment is what the file holds: an assignment, and whose it is.
type keptAssignment struct {
	Host           string    `json:"provisioningHost"`
	IDScope        string    `json:"idScope"`
	RegistrationID string    `json:"registrationId"`
	Hub            string    `json:"assignedHub"`
	DeviceID       string    `json:"deviceId"`
	At             time.Time `json:"assignedAt"`
}

// KeptAssignment returns what KeepAssignment has kept in folder for the same registration; its zero value
// if that is nothing.
func KeptAssignment(folder string, of mqttdevice.RegistrationOptions) (mqttdevice.Assignment, error) {
	k, err := readJSON[keptAssignment](filepath.Join(folder, assignmentFile))
	if err != nil || k.Host != cmp.Or(of.Host, mqttdevice.GlobalEndpoint) || k.IDScope != of.IDScope || !strings.EqualFold(k.RegistrationID, of.RegistrationID) {
		return mqttdevice.Assignment{}, err
	}
	c := sas.ConnectionString{HostName: k.Hub, DeviceID: k.DeviceID, X509: true}
	if _, err := sas.ParseConnectionString(c.Format()); err != nil || k.DeviceID == "" {
		return mqttdevice.Assignment{}, errors.New(filepath.Join(folder, assignmentFile) + " is damaged: it names no device of a hub")
	}
	return mqttdevice.Assignment{Hub: k.Hub, DeviceID: k.DeviceID}, nil
}

// KeepAssignment keeps an assignment in folder, which is made if it is missing: after a power cut it is
// there, or the one before. Nobody else may read it, and it holds no key.
func KeepAssignment(folder string, of mqttdevice.RegistrationOptions, a mqttdevice.Assignment) error {
	return writeJSON(filepath.Join(folder, assignmentFile),
		keptAssignment{cmp.Or(of.Host, mqttdevice.GlobalEndpoint), of.IDScope, of.RegistrationID, a.Hub, a.DeviceID, time.Now().UTC().Truncate(time.Second)})
}

// provisioned completes the options of the device by what is kept, and has it ask for what is not.
func (a *Agent) provisioned(device mqttdevice.Options) mqttdevice.Options {
	p := a.opt.Provision
	device.ConnectionString = sas.ConnectionString{DeviceID: p.Registration.RegistrationID}
	device.Provision = a.register
	if a.opt.Folder == "" {
		return device
	}
	kept, err := KeptAssignment(a.opt.Folder, p.Registration)
	if err != nil {
		a.log.Warn("the kept assignment is not used", logError, err)
	}
	if kept.Hub != "" {
		e := p.endpoint(kept)
		device.ConnectionString, device.Addr, device.WebSocketAddr = e.ConnectionString, e.Addr, e.WebSocketAddr
	}
	return device
}

// register asks the provisioning service, and keeps what it says.
func (a *Agent) register(ctx context.Context, _ error) (mqttdevice.Endpoint, error) {
	p := a.opt.Provision
	to, err := mqttdevice.Register(ctx, p.Registration)
	if err != nil {
		return mqttdevice.Endpoint{}, err
	}
	a.log.Info("assigned to a hub", logHub, to.Hub, logAs, to.DeviceID)
	if a.opt.Folder != "" {
		if err := KeepAssignment(a.opt.Folder, p.Registration, to); err != nil {
			a.log.Warn("the assignment is not kept", logError, err)
		}
	}
	return p.endpoint(to), nil
}
