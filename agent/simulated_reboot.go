package agent

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/agent/tutorial"
	"github.com/iotdm/iotdm/internal/wait"
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
		return tutorial.Response(409, tutorial.Busy)
	}
	defer r.busy.Store(false)
	a := r.a
	a.opt.OnEvent(RebootBegins)
	if wait.For(a.running, r.duration) != nil || ctx.Err() != nil {
		return tutorial.Response(503, "The device was stopped while it rebooted")
	}
	a.opt.OnEvent(RebootEnds)
	if _, err := a.client.PatchReported(ctx, tutorial.Report(time.Now())); err != nil {
		a.log.Warn("the time of the simulated reboot is not reported", logError, err)
		return tutorial.Response(500, tutorial.Unreported)
	}
	a.opt.OnEvent(RebootReported)
	return tutorial.Response(200, tutorial.Answer)
}
