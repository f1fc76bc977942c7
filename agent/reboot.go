package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
)

// rebootMethods are the names the tutorial and its other languages use.
var rebootMethods = []string{"rebootDevice", "reboot"}

// rebootTimeFormat is RFC 3339. Two reboots that follow each other at once
// still differ.
const rebootTimeFormat = "2006-01-02T15:04:05.000000Z07:00"

// rebootAnswer is what the tutorial's device answers.
const rebootAnswer = "This is the response from the device"

// handleReboots sets the handlers of the methods that reboot, for real or not.
func (a *Agent) handleReboots() error {
	if a.opt.RebootCommand != "" {
		if a.opt.Folder == "" {
			return errors.New("a real reboot needs a folder, where it is remembered")
		}
		a.machine = newMachineReboot(a.opt)
		a.onConnected(a.reportRealReboot)
		a.background(a.rebootMachine)
	}
	a.simulated = &simulatedReboot{a.opt.RebootDuration}
	var busy atomic.Bool
	for _, name := range rebootMethods {
		a.handleMethod(name, func(ctx context.Context, m mqttdevice.Method) mqttdevice.Response {
			if !busy.CompareAndSwap(false, true) {
				return response(409, "The device is already rebooting")
			}
			defer busy.Store(false)
			a.opt.Say("Rebooting device")
			if a.machine != nil {
				return a.machine.reboot(a)
			}
			return a.simulated.reboot(ctx, a)
		})
	}
	return nil
}

func (a *Agent) reportRebootTime(ctx context.Context, t time.Time) error {
	patch := map[string]string{"rebootTime": t.UTC().Format(rebootTimeFormat)}
	if _, err := a.client.PatchReported(ctx, patch); err != nil {
		return err
	}
	a.opt.Say("Device twins updated with latest rebootTime")
	return nil
}
