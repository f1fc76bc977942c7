package service

import (
	"context"
	"time"

	"github.com/iotdm/iotdm/hubrest"
)

// An Assignment carries a task through on one device. "service reboot", "service
// update" and "demo" share it.
type Assignment struct {
	Device hubrest.Target
	Call   hubrest.Method

	client *hubrest.Client
	task   *task
	judge  judge    // nil: the device has not been called
	seen   reported // what the device reported last
}

// NewReboot returns the assignment to reboot a device by a direct method.
func NewReboot(client *hubrest.Client, device hubrest.Target, call hubrest.Method) *Assignment {
	return &Assignment{Device: device, Call: call, client: client, task: rebootTask}
}

// Invoke remembers what was reported and then calls the method.
func (e *Assignment) Invoke(ctx context.Context) (hubrest.MethodAnswer, error) {
	before, err := e.task.reportedBy(ctx, e.client, e.Device)
	if err != nil {
		return hubrest.MethodAnswer{}, err
	}
	e.judge = e.task.judge(before)
	answer, err := e.client.InvokeMethod(ctx, e.Device, e.Call)
	e.judge.answered(answer.Payload)
	return answer, err
}

// Await polls the twin until it has the last word on the task. It returns what
// it found last, also when ctx ends. The function, if not nil, is called with each
// Finding that is another one. Trouble that may pass is waited out until ctx ends.
func (e *Assignment) Await(ctx context.Context, progress func(Finding)) (Finding, error) {
	const longest = 5 * time.Second
	var found Finding
	for pause := 200 * time.Millisecond; ; pause = min(pause*3/2, longest) {
		now, err := e.task.reportedBy(ctx, e.client, e.Device)
		if err == nil {
			e.seen = now
			before := found
			if found = e.judge.find(now); found.final {
				return found, nil
			}
			if progress != nil && found.Verdict != "" && (found.Verdict != before.Verdict || found.Reason != before.Reason) {
				progress(found)
			}
		}
		if err != nil && !mayPass(err) {
			return found, err
		}
		select {
		case <-ctx.Done():
			return found, ctx.Err()
		case <-time.After(pause):
		}
	}
}
