package agent

import (
	"context"
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
)

// A simulatedReboot takes its time and changes nothing but the twin.
type simulatedReboot struct {
	duration time.Duration
}

// reboot answers when the reboot is over and reported, as the tutorial's device does.
func (r *simulatedReboot) reboot(ctx context.Context, a *Agent) mqttdevice.Response {
	const stopped = "The device was stopped while it rebooted"
	select {
	case <-time.After(r.duration):
	case <-a.running.Done():
		return response(503, stopped)
	case <-ctx.Done():
		return response(503, stopped)
	}
	a.opt.Say("Device rebooted")
	if err := a.reportRebootTime(ctx, time.Now()); err != nil {
		a.note("iotdm: %v", err)
		return response(500, "The device rebooted but could not report the time")
	}
	return response(200, rebootAnswer)
}
