package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// An identity is what the registry says of the device or module.
type identity struct {
	err            error // hubrest.ErrNotFound if there is none
	missing        hubrest.Target
	status         hubrest.Status // of the device, also for a module
	statusReason   string
	authentication hubrest.Authentication
	keys           []sas.Key // that sign for it: its own and, of a module, its device's
	connected      bool
	changed        time.Time // when connected changed last

	// What a hub of iotdm tells: why it refused the identity last, and why its
	// connection ended. Nil: it never did, or does not tell.
	refusal, disconnect *hubrest.Incident
}

// mayAsk reports whether there is an identity and a credential to look it up.
func (x *examination) mayAsk() bool {
	return x.Device.DeviceID != "" && (x.Registry.HostName != "" || x.Credential != nil)
}

// service returns a client with a service's credential. Its tokens are dated
// with now.
func (x *examination) service(c sas.ConnectionString, now func() time.Time) (*hubrest.Client, error) {
	return hubrest.New(hubrest.Options{
		ConnectionString: c,
		Credential:       x.Credential,
		Addr:             x.HTTPSAddr,
		TLS:              &tls.Config{RootCAs: x.Roots, MinVersion: tls.VersionTLS12},
		Logger:           x.Logger,
		Now:              now,
	})
}

// lookUp asks the registry. Its own token is dated with the hub's clock, so
// that a wrong one here does not hide what else is wrong.
func (x *examination) lookUp(ctx context.Context) {
	if !x.mayAsk() || x.https.tcpErr != nil || x.https.tlsErr != nil {
		return
	}
	client, err := x.service(x.Registry, func() time.Time { return x.signing().Add(-x.hubTime.off) })
	if err != nil {
		x.identity = &identity{err: err}
		return
	}
	defer client.Close()
	x.identity = x.read(ctx, client)
}

func (x *examination) read(ctx context.Context, client *hubrest.Client) *identity {
	ctx, cancel := x.step(ctx)
	defer cancel()
	d, err := client.Device(ctx, x.Device.DeviceID)
	if err != nil {
		return &identity{err: err, missing: hubrest.Target{DeviceID: x.Device.DeviceID}}
	}
	i := &identity{status: d.Status, statusReason: d.StatusReason, authentication: d.Authentication,
		keys:      []sas.Key{d.Authentication.SymmetricKey.PrimaryKey, d.Authentication.SymmetricKey.SecondaryKey},
		connected: d.ConnectionState == "Connected", changed: d.ConnectionStateUpdatedTime.Time}
	if client.OwnHub() { // what it does not tell is left out
		c, _ := client.Connection(ctx, x.Device)
		i.refusal, i.disconnect = c.LastRefusal, c.LastDisconnect
	}
	if x.Device.ModuleID == "" {
		return i
	}
	m, err := client.Module(ctx, x.Device)
	if err != nil {
		return &identity{err: err, missing: x.Device}
	}
	i.authentication = m.Authentication
	i.keys = append(i.keys, m.Authentication.SymmetricKey.PrimaryKey, m.Authentication.SymmetricKey.SecondaryKey)
	i.connected, i.changed = m.ConnectionState == "Connected", m.ConnectionStateUpdatedTime.Time
	return i
}

func (x *examination) checkDevice() Check {
	i := x.identity
	switch {
	case x.Device.DeviceID == "":
		return skipped(CheckDevice, "no device is named; name one with --device")
	case !x.mayAsk():
		return skipped(CheckDevice, "a device may not read the registry; set IOTHUB_CONNECTION_STRING to a service's to have it asked")
	case i == nil:
		return skipped(CheckDevice, "the registry is asked over HTTPS, which is not reached")
	case errors.Is(i.err, hubrest.ErrNotFound):
		return failed(CheckDevice, fmt.Sprintf("the registry has no %s", target.Noun(i.missing)), createRemedy(i.missing))
	case i.err != nil:
		return skipped(CheckDevice, "the registry does not answer: "+plainError(i.err))
	case i.status == hubrest.Disabled:
		return failed(CheckDevice, disabledDetail(x.Device.DeviceID, i), enableRemedy(x.Device.DeviceID))
	}
	return ok(CheckDevice, fmt.Sprintf("the registry has %s, enabled, with authentication %q", target.Noun(x.Device), i.authentication.Type))
}

func createRemedy(t hubrest.Target) string {
	if t.ModuleID != "" {
		return fmt.Sprintf("check the id; \"iotdm service module create --device %s --module %s\" creates it", t.DeviceID, t.ModuleID)
	}
	return fmt.Sprintf("check the id, whose case counts; \"iotdm service device create --device %s\" creates it", t.DeviceID)
}

func disabledDetail(device string, i *identity) string {
	detail := fmt.Sprintf("device %q is disabled", device)
	if i.statusReason != "" {
		detail += " (" + quoted(i.statusReason) + ")"
	}
	return detail
}

func enableRemedy(device string) string {
	return fmt.Sprintf("enable it with \"iotdm service device enable --device %s\"", device)
}
