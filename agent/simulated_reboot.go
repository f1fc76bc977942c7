package cli

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
)

// An agent is a device that answers the reboot methods the way the device of
// the tutorial "Get started with device management" does.
type agent struct {
	stop     context.Context // ends when the agent is to end
	say      func(text string)
	note     func(format string, args ...any)
	duration time.Duration  // of a simulated reboot
	machine  *machineReboot // nil: reboots are simulated

	client    *mqttdevice.Client
	rebooting atomic.Bool
	lost      bool // only for onState
}

// rebootMethods are the names the tutorial and its other languages use.
var rebootMethods = []string{"rebootDevice", "reboot"}

// rebootTimeFormat is RFC 3339. Two reboots that follow each other at once
// still differ.
const rebootTimeFormat = "2006-01-02T15:04:05.000000Z07:00"

// rebootAnswer is what the tutorial's device answers.
const rebootAnswer = "This is the response from the device"

func response(status int, text string) mqttdevice.Response {
	return mqttdevice.Response{Status: status, Payload: map[string]string{"Response": text}}
}

// serve sets the agent's handlers on client, which is not connected yet.
func (a *agent) serve(client *mqttdevice.Client) {
	a.client = client
	for _, name := range rebootMethods {
		client.HandleMethod(name, a.reboot)
	}
	client.HandleMethod("", func(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
		a.note("Unknown method %q", m.Name)
		return response(404, "Unknown method")
	})
	client.HandleMessage(func(_ context.Context, m mqttdevice.CloudToDeviceMessage) error {
		a.say(messageText(m))
		return nil
	})
}

func (a *agent) reboot(ctx context.Context, m mqttdevice.Method) mqttdevice.Response {
	if !a.rebooting.CompareAndSwap(false, true) {
		return response(409, "The device is already rebooting")
	}
	defer a.rebooting.Store(false)
	a.say("Rebooting device")
	if a.machine != nil {
		if err := a.machine.remember(time.Now()); err != nil {
			a.note("iotdm: %v; not rebooting", err)
			return response(500, "The device could not store that it is to reboot")
		}
		return response(200, rebootAnswer)
	}
	select {
	case <-time.After(a.duration):
	case <-a.stop.Done():
		return response(503, "The device was stopped while it rebooted")
	case <-ctx.Done():
		return response(503, "The device was stopped while it rebooted")
	}
	a.say("Device rebooted")
	if err := a.reportRebootTime(ctx, time.Now()); err != nil {
		a.note("iotdm: %v", err)
		return response(500, "The device rebooted but could not report the time")
	}
	return response(200, rebootAnswer)
}

func (a *agent) reportRebootTime(ctx context.Context, t time.Time) error {
	patch := map[string]string{"rebootTime": t.UTC().Format(rebootTimeFormat)}
	if _, err := a.client.PatchReported(ctx, patch); err != nil {
		return err
	}
	a.say("Device twins updated with latest rebootTime")
	return nil
}
