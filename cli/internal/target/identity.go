package target

import (
	"cmp"
	"context"
	"errors"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// A Choice says which device a device command acts as.
type Choice struct {
	Device, Module string
	Link           Link
	Create         bool   // register a device that is missing; done on a local hub only
	Usual          string // the device to be on a local hub when none is named; empty: none
}

// Device finds the hub for a device command and the device's own credential:
// in its connection string, or in the hub's registry when a policy's connection
// string or the local hub gives the right to look there.
func (o *Options) Device(ctx context.Context, s output.Streams, choice Choice) (Target, error) {
	c, found, err := o.Given(s, DeviceVariables)
	if err != nil {
		return Target{}, err
	}
	if found && c.DeviceID != "" {
		if choice.Device != "" && choice.Device != c.DeviceID || choice.Module != "" && choice.Module != c.ModuleID {
			return Target{}, NotTheSameDevice(c)
		}
		if err := choice.Link.checkConnection(c); err != nil {
			return Target{}, err
		}
		t, err := o.Target(c)
		t.Link = choice.Link
		return t, err
	}
	var t Target
	if found {
		t, err = o.Target(c)
	} else {
		t, err = o.LocalHub("")
		choice.Device = cmp.Or(choice.Device, choice.Usual)
	}
	if err != nil {
		return t, err
	}
	if choice.Device == "" {
		return t, command.MissingDevice
	}
	t.Link = choice.Link
	return t, t.Become(ctx, s, choice)
}

// NotTheSameDevice is the error when --device names another device than the
// connection string c.
func NotTheSameDevice(c sas.ConnectionString) error {
	return fail.Usagef("the connection string is that of device %q; leave out --device, or name the same", c.DeviceID)
}

// Become replaces the policy's key in t by that of the device or module.
func (t *Target) Become(ctx context.Context, s output.Streams, choice Choice) error {
	client, err := t.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	on := hubrest.Target{DeviceID: choice.Device, ModuleID: choice.Module}
	i, err := lookUp(ctx, client, on)
	if errors.Is(err, hubrest.ErrNotFound) && t.Local && choice.Create {
		if i, err = register(ctx, client, on, t.Link.authentication()); err == nil {
			s.Note("Created %s on the local hub", Noun(on))
		}
	}
	if err != nil {
		return t.Explain(ctx, err, on)
	}
	key := i.Authentication.SymmetricKey.PrimaryKey
	switch {
	case key == "" && t.Link.Certificate == nil:
		return fail.Errorf(fail.Unauthorized, "%s has no shared access key (it authenticates by %s); name its certificate with --cert-file and --key-file",
			Noun(on), i.Authentication.Type)
	case key != "" && t.Link.Certificate != nil:
		return fail.Errorf(fail.Unauthorized, "%s authenticates by shared access key; leave out --cert-file", Noun(on))
	}
	host := t.Connection.HostName
	if t.Link.Transport != mqttdevice.WebSocket {
		// The port is that of REST, and of WebSocket.
		bare, port := localhub.SplitPort(host)
		if port != "" && t.HTTPSAddr == "" {
			t.HTTPSAddr = host
		}
		host = bare
	}
	t.Connection = sas.ConnectionString{
		HostName:        host,
		GatewayHostName: t.Connection.GatewayHostName,
		DeviceID:        choice.Device,
		ModuleID:        choice.Module,
		SharedAccessKey: key,
		X509:            t.Link.Certificate != nil,
	}
	t.Disabled = i.Status == hubrest.Disabled
	t.MoreKeys = append(i.deviceKeys, i.Authentication.SymmetricKey.SecondaryKey)
	return nil
}

// A registered is a device identity, or that of a module with the status of its
// device.
type registered struct {
	hubrest.Device
	deviceKeys []sas.Key // of a module's device: they sign for the module, too
}

func lookUp(ctx context.Context, client *hubrest.Client, on hubrest.Target) (registered, error) {
	d, err := client.Device(ctx, on.DeviceID)
	if err != nil || on.ModuleID == "" {
		return registered{Device: d}, err
	}
	keys := d.Authentication.SymmetricKey
	m, err := client.Module(ctx, on)
	d.Authentication = m.Authentication
	return registered{d, []sas.Key{keys.PrimaryKey, keys.SecondaryKey}}, err
}

// register creates a device, or a module and its device if that is missing too.
func register(ctx context.Context, client *hubrest.Client, on hubrest.Target, auth hubrest.Authentication) (registered, error) {
	device := hubrest.Device{DeviceID: on.DeviceID}
	if on.ModuleID == "" {
		device.Authentication = auth
	}
	_, err := client.CreateDevice(ctx, device)
	if on.ModuleID != "" && (err == nil || errors.Is(err, hubrest.ErrAlreadyExists)) {
		_, err = client.CreateModule(ctx, hubrest.Module{DeviceID: on.DeviceID, ModuleID: on.ModuleID, Authentication: auth})
	}
	if err != nil && !errors.Is(err, hubrest.ErrAlreadyExists) { // somebody else may have been faster
		return registered{}, err
	}
	return lookUp(ctx, client, on)
}

// LocalDevice is the device "device run" is on a local hub unless told otherwise.
const LocalDevice = "device-1"
