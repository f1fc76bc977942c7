package cli

import (
	"context"
	"sync"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/mqttdevice"
)

func deviceCommands(s streams) *urfave.Command {
	return group("device", "be a device: answer methods, report properties, send telemetry",
		deviceRunCommand(s),
		group("twin", "the device's own view of its twin", deviceTwinGetCommand(s), deviceTwinReportCommand(s), deviceTwinWatchCommand(s)),
		deviceSendCommand(s),
	)
}

// actAsOptions are what every device command has: which hub, and which device
// of it to be.
type actAsOptions struct {
	hub    hubOptions
	device string
	module string
	link   linkOptions
}

func (o *actAsOptions) flags() []urfave.Flag {
	return concat([]urfave.Flag{
		deviceFlag(&o.device, "be the device `ID`"),
		moduleFlag(&o.module, "be the module `ID` of the device"),
	}, o.link.flags(), o.hub.flags())
}

// find finds the hub and the credential of the device, which may connect. The
// choice is completed by the flags.
func (o *actAsOptions) find(ctx context.Context, s streams, choice deviceChoice) (target, error) {
	link, err := o.link.link()
	if err != nil {
		return target{}, err
	}
	choice.device, choice.module, choice.link = o.device, o.module, link
	t, err := o.hub.device(ctx, s, choice)
	if err == nil && t.disabled {
		err = failf(statusUnauthorized, "device %q is disabled on %s; enable it with \"iotdm service device enable --device %s\"",
			t.connection.DeviceID, t.host(), t.connection.DeviceID)
	}
	return t, err
}

// onceTimeout bounds what a command that connects, does one thing and ends
// waits for.
const onceTimeout = 30 * time.Second

// onceHelp is for the help of those commands.
const onceHelp = "A device has one connection: this ends that of an agent, which then connects again. For example:\n"

// connectOnce finds the hub and connects, for a command that does one thing.
// Unlike the agent it does not try again: the user is waiting.
func (o *actAsOptions) connectOnce(ctx context.Context, s streams) (target, *mqttdevice.Client, error) {
	t, err := o.find(ctx, s, deviceChoice{})
	if err != nil {
		return t, nil, err
	}
	client, err := connectOnce(ctx, t, s)
	return t, client, err
}

func connectOnce(parent context.Context, t target, s streams) (*mqttdevice.Client, error) {
	ctx, cancel := context.WithTimeout(parent, onceTimeout)
	defer cancel()
	var mu sync.Mutex
	var reason error
	opt := t.deviceOptions()
	opt.OnState = func(state mqttdevice.State) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case state.Status == mqttdevice.Disconnected && reason == nil:
			reason = state.Reason
			cancel()
		case state.Status == mqttdevice.Connected && state.Reason != nil:
			s.note("TCP is blocked (%v); connected over WebSocket", state.Reason)
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
	return nil, t.explainDevice(parent, err)
}

// offline names the device and its hub without asking that: all that a command
// needs which does not connect.
func (o *actAsOptions) offline(s streams) (target, error) {
	c, found, err := o.hub.given(s, deviceVariables)
	switch {
	case err != nil:
		return target{}, err
	case !found:
		info, err := readLocalHub(o.hub.data)
		if err != nil {
			return target{}, err
		}
		c.HostName = info.HostName
	case c.DeviceID != "" && (o.device != "" && o.device != c.DeviceID || o.module != "" && o.module != c.ModuleID):
		return target{}, notTheSameDevice(c)
	}
	if c.DeviceID == "" {
		c.DeviceID, c.ModuleID = o.device, o.module
	}
	if c.DeviceID == "" {
		return target{}, missingDevice
	}
	return target{connection: c}, nil
}
