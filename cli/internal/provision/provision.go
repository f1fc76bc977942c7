// Package provision is how a command acts as a device that registers with a
// provisioning service first: the flags that say with which and as whom, the way
// there, and words for what goes wrong.
package provision

import (
	"cmp"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// Environment variables that the samples of the official SDKs read.
var (
	hostVariables  = []string{"PROVISIONING_HOST", "IOTHUB_DEVICE_DPS_ENDPOINT"}
	scopeVariables = []string{"PROVISIONING_IDSCOPE", "IOTHUB_DEVICE_DPS_ID_SCOPE"}
	idVariables    = []string{"PROVISIONING_REGISTRATION_ID", "IOTHUB_DEVICE_DPS_DEVICE_ID"}
	keyVariables   = []string{"PROVISIONING_SYMMETRIC_KEY", "IOTHUB_DEVICE_DPS_DEVICE_KEY"}
)

// Options are the flags.
type Options struct {
	Wanted          bool // --provision
	host, scope, id string
	key, groupKey   string
	payload         string
}

// Flags returns the flags that fill o.
func (o *Options) Flags() []urfave.Flag {
	const category = "Provisioning"
	text := func(name string, to *string, usage string, variables []string) urfave.Flag {
		return &urfave.StringFlag{Name: name, Category: category, Destination: to, Usage: usage, EnvVars: variables}
	}
	return []urfave.Flag{
		&urfave.BoolFlag{Name: "provision", Category: category, Destination: &o.Wanted, DisableDefaultText: true,
			Usage: "find the hub and the device id by the Device Provisioning Service"},
		text("id-scope", &o.scope, "the id `SCOPE` of the service (default: that of the local hub)", scopeVariables),
		text("registration-id", &o.id, "register as `ID` (default: the common name of --cert-file)", idVariables),
		text("enrollment-key", &o.key, "the `KEY` of the device's own enrollment, @FILE or - (or $"+strings.Join(keyVariables, ", $")+")", nil),
		text("enrollment-group-key", &o.groupKey, "the `KEY` of an enrollment group, @FILE or -, of which the device's is derived", nil),
		text("provisioning-host", &o.host, "the `HOST` of the service (default: the local hub if the scope is its own, else "+mqttdevice.GlobalEndpoint+")", hostVariables),
		text("provisioning-payload", &o.payload, "`JSON` for a custom allocation policy, @FILE or -", nil),
	}
}

// A Registration is with which service a device registers, and as whom.
type Registration struct {
	mqttdevice.RegistrationOptions
	GroupKey sas.Key       // of which those of devices are derived; empty if there is none
	Service  target.Target // whose device the caller is to be for registering

	hub  target.Options
	link target.Link

	mu   sync.Mutex               // guards what follows
	hubs map[string]target.Target // that were assigned, by name, to be completed by who
}

// Find finds the service and the credential. With many devices, there is no
// registration id.
func (o *Options) Find(s output.Streams, hub *target.Options, link target.Link, many bool) (*Registration, error) {
	if _, source, err := hub.GivenBy(s, nil); err != nil {
		return nil, err
	} else if source != "" {
		return nil, fail.Usagef("--connection-string names a hub, and --provision finds one; give one of them")
	}
	r := &Registration{hub: *hub, link: link, hubs: make(map[string]target.Target)}
	r.RegistrationID = o.id
	if err := o.readCredential(s, r, many); err != nil {
		return nil, err
	}
	if err := o.findService(r); err != nil {
		return nil, err
	}
	if o.payload != "" {
		payload, err := command.ReadJSON(s, "--provisioning-payload", o.payload)
		if err != nil {
			return nil, err
		}
		r.Payload = json.RawMessage(payload)
	}
	return r, r.reach()
}

// readCredential reads the key or the certificate, and finds the registration id.
func (o *Options) readCredential(s output.Streams, r *Registration, many bool) error {
	certificate := r.link.Certificate != nil
	switch {
	case o.key != "" && o.groupKey != "":
		return fail.Usagef("give one of --enrollment-key and --enrollment-group-key")
	case certificate && (o.key != "" || o.groupKey != ""):
		return fail.Usagef("give either a key or --cert-file to register with")
	}
	name, text := "--enrollment-key", o.key
	if o.groupKey != "" {
		name, text = "--enrollment-group-key", o.groupKey
	}
	for _, variable := range keyVariables { // which are not for who names something else
		if text == "" && !certificate && !many {
			name, text = variable, os.Getenv(variable)
		}
	}
	if text == "" && !certificate {
		if many {
			return fail.Usagef("--enrollment-group-key is missing: the devices of a fleet register by an enrollment group")
		}
		return fail.Usagef("give --enrollment-key, --enrollment-group-key or --cert-file to register with")
	}
	if certificate && r.RegistrationID == "" {
		r.RegistrationID = r.link.CertificateName()
	}
	if !many {
		if r.RegistrationID == "" {
			return fail.Usagef("--registration-id is missing")
		}
		if err := mqttdevice.CheckRegistrationID(r.RegistrationID); err != nil {
			return fail.Usagef("--registration-id: %v", err)
		}
	}
	if text == "" {
		return nil
	}
	text, err := command.ReadValue(s, name, text)
	if err != nil {
		return err
	}
	if err := sas.Key(text).Validate(); err != nil {
		return fail.Usagef("%s is %v; was it cut off?", name, err)
	}
	if name != "--enrollment-group-key" {
		r.Key = sas.Key(text)
		return nil
	}
	if r.GroupKey = sas.Key(text); many {
		return nil
	}
	if r.Key, err = sas.DeriveKey(r.GroupKey, r.RegistrationID); err != nil {
		return fail.Usagef("%s: %v", name, err)
	}
	return nil
}

// findService finds the host and the id scope.
func (o *Options) findService(r *Registration) error {
	info, err := localhub.ReadRunning(r.hub.Data)
	local := err == nil && info.IDScope != ""
	r.Host, r.IDScope = o.host, o.scope
	if local && r.IDScope == "" && (r.Host == "" || localhub.NamesThisMachine(hostOf(r.Host), info)) {
		r.IDScope = info.IDScope
	}
	switch {
	case r.IDScope == "" && r.Host == "" && err != nil && r.hub.Data != "":
		return err
	case r.IDScope == "":
		return fail.Usagef("--id-scope is missing, and there is no local hub to take it from; the overview of the provisioning service in Azure's portal shows it")
	case r.Host == "" && local && strings.EqualFold(r.IDScope, info.IDScope):
		r.Host = info.HostName
	}
	r.Host = cmp.Or(r.Host, mqttdevice.GlobalEndpoint)
	return nil
}

func hostOf(host string) string {
	name, _ := localhub.SplitPort(host)
	return name
}

// reach completes how the service is reached.
func (r *Registration) reach() error {
	c := sas.ConnectionString{HostName: r.Host, DeviceID: cmp.Or(r.RegistrationID, "many"), SharedAccessKey: cmp.Or(r.Key, r.GroupKey), X509: r.link.Certificate != nil}
	if _, err := sas.ParseConnectionString(c.Format()); err != nil {
		return fail.Usagef("--provisioning-host %q is not a host name, such as %s", r.Host, mqttdevice.GlobalEndpoint)
	}
	t, err := r.hub.Target(c)
	if err != nil {
		return err
	}
	t.Link = r.link
	r.Service = t
	d := t.DeviceOptions()
	r.Transport, r.Addr, r.WebSocketAddr, r.TLS, r.Logger, r.Now = d.Transport, d.Addr, d.WebSocketAddr, d.TLS, d.Logger, d.Now
	return nil
}

// Target is the hub that a device was assigned to, for it to connect. It may be
// called from any goroutine.
func (r *Registration) Target(a mqttdevice.Assignment) (target.Target, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, known := r.hubs[a.Hub]
	if !known {
		var err error
		if t, err = r.hub.Target(a.ConnectionString(r.Key)); err != nil {
			return t, err
		}
		t.Link = r.link
		r.hubs[a.Hub] = t
	}
	t.Connection = a.ConnectionString(r.Key)
	return t, nil
}

// Dial tells what to dial for an assignment.
func (r *Registration) Dial(a mqttdevice.Assignment) (addr, webSocketAddr string) {
	t, err := r.Target(a)
	if err != nil {
		return "", "" // what the hub's name says
	}
	d := t.DeviceOptions()
	return d.Addr, d.WebSocketAddr
}

// Folder is where an agent that registers keeps its files, in the folder for those
// of all: where it is assigned may change.
func (r *Registration) Folder(all string) string {
	return filepath.Join(all, url.PathEscape(r.IDScope), url.PathEscape(strings.ToLower(r.RegistrationID)))
}

// Kept is the assignment that is kept in folder, if it is of r.
func (r *Registration) Kept(folder string) (mqttdevice.Assignment, error) {
	a, err := agent.KeptAssignment(folder, r.RegistrationOptions)
	if err != nil {
		return a, fail.Errorf(fail.Failed, "%v; remove it, and the device registers anew", err)
	}
	return a, nil
}
