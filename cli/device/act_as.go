package device

import (
	"context"
	"sync"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/provision"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/mqttdevice"
)

// actAsOptions are what every device command has: which hub, and which device
// of it to be.
type actAsOptions struct {
	hub       target.Options
	device    string
	module    string
	link      target.LinkOptions
	provision provision.Options
	state     string

	registration *provision.Registration // once it has been found
}

// flags are those that fill o; keeps says what the folder of --state is for.
func (o *actAsOptions) flags(keeps string) []urfave.Flag {
	return command.Concat([]urfave.Flag{
		command.DeviceFlag(&o.device, "be the device `ID`"),
		command.ModuleFlag(&o.module, "be the module `ID` of the device"),
		&urfave.StringFlag{Name: "state", Destination: &o.state, EnvVars: []string{"IOTDM_DEVICE_STATE"}, Usage: keeps},
	}, o.link.Flags(), o.provision.Flags(), o.hub.Flags())
}

// find finds the hub and the credential of the device, which may connect. The
// choice is completed by the flags.
func (o *actAsOptions) find(ctx context.Context, s output.Streams, choice target.Choice) (target.Target, error) {
	link, err := o.link.Link()
	if err != nil {
		return target.Target{}, err
	}
	choice.Device, choice.Module, choice.Link = o.device, o.module, link
	t, err := o.hub.Device(ctx, s, choice)
	if err == nil && t.Disabled {
		err = fail.Errorf(fail.Unauthorized, "device %q is disabled on %s; enable it with \"iotdm service device enable --device %s\"",
			t.Connection.DeviceID, t.Host(), t.Connection.DeviceID)
	}
	return t, err
}

// connectOnce finds the hub and connects, for a command that does one thing.
// Unlike the agent it does not try again: the user is waiting.
func (o *actAsOptions) connectOnce(ctx context.Context, s output.Streams) (target.Target, *mqttdevice.Client, error) {
	if o.provision.Wanted {
		return o.connectAssigned(ctx, s)
	}
	t, err := o.find(ctx, s, target.Choice{})
	if err != nil {
		return t, nil, err
	}
	client, err := connectOnce(ctx, t, s)
	return t, client, err
}

// offline names the device and its hub without asking that: all that a command
// needs which does not connect.
func (o *actAsOptions) offline(s output.Streams) (target.Target, error) {
	if o.provision.Wanted {
		if err := o.register(s); err != nil {
			return target.Target{}, err
		}
		return o.registration.Service, nil
	}
	c, found, err := o.hub.Given(s, target.DeviceVariables)
	switch {
	case err != nil:
		return target.Target{}, err
	case !found:
		info, err := localhub.Read(o.hub.Data)
		if err != nil {
			return target.Target{}, err
		}
		c.HostName = info.HostName
	case c.DeviceID != "" && (o.device != "" && o.device != c.DeviceID || o.module != "" && o.module != c.ModuleID):
		return target.Target{}, target.NotTheSameDevice(c)
	}
	if c.DeviceID == "" {
		c.DeviceID, c.ModuleID = o.device, o.module
	}
	if c.DeviceID == "" {
		return target.Target{}, command.MissingDevice
	}
	return target.Target{Connection: c}, nil
}

// onceTimeout bounds what a command that connects, does one thing and ends
// waits for.
const onceTimeout = 30 * time.Second

// onceHelp is for the help of those commands.
const onceHelp = "A device has one connection: this ends that of an agent, which then connects again. For example:\n"

func connectOnce(ctx context.Context, t target.Target, s output.Streams) (*mqttdevice.Client, error) {
	client, err := tryOnce(ctx, t, s)
	if err != nil && ctx.Err() == nil {
		err = t.ExplainDevice(ctx, err)
	}
	return client, err
}

// tryOnce is connectOnce with an error that is not worded for the user.
func tryOnce(parent context.Context, t target.Target, s output.Streams) (*mqttdevice.Client, error) {
	ctx, cancel := context.WithTimeout(parent, onceTimeout)
	defer cancel()
	var mu sync.Mutex
	var reason error
	opt := t.DeviceOptions()
	opt.OnState = func(state mqttdevice.State) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case state.Status == mqttdevice.Disconnected && reason == nil:
			reason = state.Reason
			cancel()
		case state.Status == mqttdevice.Connected && state.Reason != nil:
			s.Note("TCP is blocked (%v); connected over WebSocket", state.Reason)
		}
	}
	client, err := mqttdevice.New(opt)
	if err != nil {
		return nil, err
	}
	if err = client.Connect(ctx); err == nil {
		return client, nil
	}
	client.Close()
	if parent.Err() != nil {
		return nil, parent.Err()
	}
	mu.Lock()
	defer mu.Unlock()
	if reason != nil {
		err = reason
	}
	return nil, err
}
