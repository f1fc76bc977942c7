package service

import (
	"context"
	"errors"
	"time"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/hubrest"
)

// callAll calls the method on the devices that the condition chooses, by a job.
func (r *rollout) callAll(ctx context.Context, where string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// Ctrl-C does not end this request: whether there is a job has to be known, to cancel it.
	creating, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	job, err := beginJob(creating, r.Streams, r.client, hubrest.JobRequest{ID: newJobID(r.task.name), Condition: where, Method: &r.call})
	if err != nil {
		return err
	}
	timeout := command.Seconds(r.call.ResponseTimeout)
	r.Note("Job %s calls %s, with %v to answer", job.ID, r.call.Name, &timeout)
	f := newFollower(r.Streams, r.client, job.ID)
	f.failure = func(d hubrest.JobDevice) error {
		r.failures++
		r.told.tell("%s %s", d.DeviceID, jobFailure(d))
		if r.tooManyFailures() {
			return errTooManyFailures
		}
		return nil
	}
	r.told.bar = &f.bar
	defer func() { r.told.bar = &r.bar }()
	ended, err := f.follow(ctx)
	if errors.Is(err, errTooManyFailures) || ctx.Err() != nil {
		ended, err = r.stop(ctx, f, err)
	}
	if ended.Status == hubrest.JobFailed {
		return fail.Errorf(fail.Failed, "the job failed: %s", ended.FailureReason)
	}
	return errors.Join(err, r.answers(context.WithoutCancel(ctx), job.ID))
}

// stop cancels a job and waits for the devices that have been called already.
func (r *rollout) stop(ctx context.Context, f *follower, why error) (hubrest.Job, error) {
	limit := r.call.ConnectTimeout + r.call.ResponseTimeout
	if ctx.Err() != nil {
		f.bar.clear()
		r.Note("Interrupted; devices that were called have %v to answer (Ctrl-C ends at once)", limit)
	}
	// After Ctrl-C too: the job would go on without us.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit+10*time.Second)
	defer cancel()
	if err := f.stop(ctx); err != nil {
		return hubrest.Job{}, errors.Join(why, err)
	}
	f.failure = func(hubrest.JobDevice) error { return nil }
	job, err := f.follow(ctx)
	if err != nil { // such as a hub that does not cancel what is running
		f.sayItGoesOn()
	}
	return job, errors.Join(why, err)
}

// answers takes what came of a job on each device.
func (r *rollout) answers(ctx context.Context, job string) error {
	for row, err := range r.client.JobDevices(ctx, job, "") {
		if err != nil {
			return err
		}
		d := r.devices[row.DeviceID]
		if d == nil {
			// It has come to match since the devices were looked for.
			d = &rolloutDevice{taskReport: taskReport{Device: row.DeviceID}, judge: r.task.judge(reported{})}
			r.devices[row.DeviceID] = d
		}
		switch m := row.Outcome.Method; {
		case row.Status == "canceled", row.Status == "pending", row.Status == "scheduled":
			d.Finding = Finding{Verdict: verdictNotCalled}
		case row.Status == "running": // when the hub was asked last
			d.Finding = Finding{Verdict: verdictFailed, Reason: "was called, and has not answered yet", final: true}
		case m == nil:
			d.Finding = Finding{Verdict: verdictFailed, Reason: jobReason(row), final: true}
		default:
			d.answered(*m, d.judge)
		}
	}
	return nil
}
