package agent

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
)

// A simulatedReboot takes its time and changes nothing but the twin.
type simulatedReboot struct {
	a        *Agent
	duration time.Duration
	busy     atomic.Bool
}

// reboot answers when the reboot is over and reported, as the tutorial's device does.
func (r *simulatedReboot) reboot(ctx context.Context, _ mqttdevice.Method) mqttdevice.Response {
	if !r.busy.CompareAndSwap(false, true) {
		return response(409, alreadyRebooting)
	}
	defer r.busy.Store(false)
	a := r.a
	a.opt.Say("Rebooting device")
	if wait(a.running, r.duration) != nil || ctx.Err() != nil {
		return response(503, "The device was stopped while it rebooted")
	}
	a.opt.Say("Device rebooted")
	if _, err := a.client.PatchReported(ctx, RebootReport(time.Now())); err != nil {
		a.note("iotdm: %v", err)
		return response(500, "The device rebooted but could not report the time")
	}
	a.opt.Say(rebootReported)
	return response(200, rebootAnswer)
}
