package cli

import (
	"cmp"
	"context"
	"errors"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// A deviceChoice says which device a device command acts as.
type deviceChoice struct {
	device, module string
	link           deviceLink
	create         bool   // register a device that is missing; done on a local hub only
	usual          string // the device to be on a local hub when none is named; empty: none
}

// device finds the hub for a device command and the device's own credential:
// in its connection string, or in the hub's registry when a policy's connection
// string or the local hub gives the right to look there.
func (o *hubOptions) device(ctx context.Context, s streams, choice deviceChoice) (target, error) {
	c, found, err := o.given(s, deviceVariables)
	if err != nil {
		return target{}, err
	}
	if found && c.DeviceID != "" {
		if choice.device != "" && choice.device != c.DeviceID || choice.module != "" && choice.module != c.ModuleID {
			return target{}, notTheSameDevice(c)
		}
		if err := choice.link.checkConnection(c); err != nil {
			return target{}, err
		}
		t, err := o.target(c)
		t.link = choice.link
		return t, err
	}
	var t target
	if found {
		t, err = o.target(c)
	} else {
		t, err = o.localHub("")
		choice.device = cmp.Or(choice.device, choice.usual)
	}
	if err != nil {
		return t, err
	}
	if choice.device == "" {
		return t, missingDevice
	}
	t.link = choice.link
	return t, t.become(ctx, s, choice)
}

func notTheSameDevice(c sas.ConnectionString) error {
	return usagef("the connection string is that of device %q; leave out --device, or name the same", c.DeviceID)
}

// become replaces the policy's key in t by that of the device or module.
func (t *target) become(ctx context.Context, s streams, choice deviceChoice) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	defer client.Close()
	on := hubrest.Target{DeviceID: choice.device, ModuleID: choice.module}
	i, err := lookUp(ctx, client, on)
	if errors.Is(err, hubrest.ErrNotFound) && t.local && choice.create {
		if i, err = register(ctx, client, on, t.link.authentication()); err == nil {
			s.note("Created %s on the local hub", noun(on))
		}
	}
	if err != nil {
		return t.explain(ctx, err, on)
	}
	key := i.Authentication.SymmetricKey.PrimaryKey
	switch {
	case key == "" && t.link.certificate == nil:
		return failf(statusUnauthorized, "%s has no shared access key (it authenticates by %s); name its certificate with --cert-file and --key-file",
			noun(on), i.Authentication.Type)
	case key != "" && t.link.certificate != nil:
		return failf(statusUnauthorized, "%s authenticates by shared access key; leave out --cert-file", noun(on))
	}
	host := t.connection.HostName
	if t.link.transport != mqttdevice.WebSocket {
		// The port is that of REST, and of WebSocket.
		bare, port := splitPort(host)
		if port != "" && t.httpsAddr == "" {
			t.httpsAddr = host
		}
		host = bare
	}
	t.connection = sas.ConnectionString{
		HostName:        host,
		GatewayHostName: t.connection.GatewayHostName,
		DeviceID:        choice.device,
		ModuleID:        choice.module,
		SharedAccessKey: key,
		X509:            t.link.certificate != nil,
	}
	t.disabled = i.Status == hubrest.Disabled
	t.secondKey = i.Authentication.SymmetricKey.SecondaryKey
	return nil
}

// lookUp returns the device identity, or that of the module with the status of
// its device.
func lookUp(ctx context.Context, client *hubrest.Client, on hubrest.Target) (hubrest.Device, error) {
	d, err := client.Device(ctx, on.DeviceID)
	if err == nil && on.ModuleID != "" {
		var m hubrest.Module
		m, err = client.Module(ctx, on)
		d.Authentication = m.Authentication
	}
	return d, err
}

// register creates a device, or a module and its device if that is missing too.
func register(ctx context.Context, client *hubrest.Client, on hubrest.Target, auth hubrest.Authentication) (hubrest.Device, error) {
	device := hubrest.Device{DeviceID: on.DeviceID}
	if on.ModuleID == "" {
		device.Authentication = auth
	}
	_, err := client.CreateDevice(ctx, device)
	if on.ModuleID != "" && (err == nil || errors.Is(err, hubrest.ErrAlreadyExists)) {
		_, err = client.CreateModule(ctx, hubrest.Module{DeviceID: on.DeviceID, ModuleID: on.ModuleID, Authentication: auth})
	}
	if err != nil && !errors.Is(err, hubrest.ErrAlreadyExists) { // somebody else may have been faster
		return hubrest.Device{}, err
	}
	return lookUp(ctx, client, on)
}

// localDevice is the device "device run" is on a local hub unless told otherwise.
const localDevice = "device-1"
