package fleet

import (
	"context"
	"time"

	"github.com/iotdm/iotdm/agent/tutorial"
	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/mqttdevice"
)

// serve sets the handlers of d on c.
func (d *device) serve(c *mqttdevice.Client) {
	for _, name := range tutorial.Methods() {
		c.HandleMethod(name, d.counted(func(ctx context.Context, _ mqttdevice.Method) mqttdevice.Response {
			return d.reboot(ctx, c)
		}))
	}
	c.HandleMethod("", d.counted(echo))
	if d.fleet.opt.ReportDesired {
		c.HandleDesired(func(ctx context.Context, change mqttdevice.Desired) { d.patch(ctx, c, change.Patch) })
	}
}

// echo answers a method with its own payload.
func echo(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
	return mqttdevice.Response{Status: 200, Payload: m.Payload}
}

// counted lets h answer after the delay and the failure that chance has in store, and counts the answer.
func (d *device) counted(h mqttdevice.MethodHandler) mqttdevice.MethodHandler {
	return func(ctx context.Context, m mqttdevice.Method) mqttdevice.Response {
		d.fleet.counts.call()
		fails, delay := d.fate()
		r := tutorial.Response(500, "The device failed, as its fail rate has it")
		switch err := d.wait(ctx, delay); {
		case err != nil:
			r = stopped
		case !fails:
			r = h(ctx, m)
		}
		d.fleet.counts.answer(r.Status)
		return r
	}
}

// fate says whether the next method fails, and how long its answer is delayed.
func (d *device) fate() (fails bool, delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// Always the same number of draws, so that one rate does not change what comes of the other.
	fail, slow, by := d.calls.Float64(), d.calls.Float64(), vary(d.calls, d.fleet.opt.AnswerDelay, d.fleet.opt.Jitter)
	if slow < d.fleet.opt.SlowRate {
		delay = by
	}
	return fail < d.fleet.opt.FailRate, delay
}

// reboot plays a reboot.
func (d *device) reboot(ctx context.Context, c *mqttdevice.Client) mqttdevice.Response {
	if !d.rebooting.CompareAndSwap(false, true) {
		return tutorial.Response(409, tutorial.Busy)
	}
	d.mu.Lock()
	duration := vary(d.calls, d.fleet.opt.RebootDuration, d.fleet.opt.Jitter)
	d.mu.Unlock()
	d.fleet.counts.reboot()
	answer := tutorial.Response(200, tutorial.Answer)
	if d.fleet.opt.RebootOffline {
		answer.Sent = func(error) { d.reboots <- duration } // there is room: only one reboots
		return answer
	}
	defer d.rebooting.Store(false)
	if d.wait(ctx, duration) != nil {
		return stopped
	}
	if d.patch(ctx, c, tutorial.Report(time.Now())) != nil {
		return tutorial.Response(500, tutorial.Unreported)
	}
	return answer
}

// wait waits for duration, or less if the device has to stop.
func (d *device) wait(ctx context.Context, duration time.Duration) error {
	if duration == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.fleet.stop, cancel)()
	return wait.For(ctx, duration)
}

var stopped = tutorial.Response(503, "The device was stopped before it could answer")
