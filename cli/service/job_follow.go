package service

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
)

// asAnswer returns the hub's answer that err is, if it is one.
func asAnswer(err error) (*hubrest.Error, bool) { return errors.AsType[*hubrest.Error](err) }

// A follower polls a job and tells people how it goes.
type follower struct {
	output.Streams
	client *hubrest.Client
	id     string

	// failure is called once for each device that failed, or answered with another
	// status than 2xx.
	failure func(hubrest.JobDevice) error

	bar     progressBar
	told    map[string]bool // devices that failure was called for
	refused int             // how many of them answered
	newest  time.Time       // when the newest of their outcomes came
	began   time.Time
}

// newFollower returns a follower that notes each device on which the job fails.
func newFollower(s output.Streams, client *hubrest.Client, id string) *follower {
	f := &follower{Streams: s, client: client, id: id, told: make(map[string]bool), began: time.Now()}
	f.bar = newProgressBar(s)
	notes := failureNotes{Streams: s, bar: &f.bar}
	f.failure = func(d hubrest.JobDevice) error {
		notes.tell("%s %s", d.DeviceID, jobFailure(d))
		return nil
	}
	return f
}

// jobFailure says what a device did instead of what a job asked of it.
func jobFailure(d hubrest.JobDevice) string {
	if m := d.Outcome.Method; m != nil {
		return answeredStatus(*m)
	}
	return "failed: " + jobReason(d)
}

// jobReason is why a job failed on a device.
func jobReason(d hubrest.JobDevice) string {
	text := d.Status
	if d.Error != nil {
		text = d.Error.Code
		if text == "DeviceNotOnline" { // the service's words fill three lines, for each device
			text += ": not connected, or without this method"
		} else if d.Error.Description != "" {
			text += ": " + d.Error.Description
		}
	}
	if d.Repeated {
		text += " (the hub stopped during a first call, which the device may have received too)"
	}
	return text
}

// follow returns the job once it has ended. Faults of the network are waited
// out until ctx ends; errors of failure end it.
func (f *follower) follow(ctx context.Context) (hubrest.Job, error) {
	const longest = 2 * time.Second
	defer f.bar.clear()
	for pause := 100 * time.Millisecond; ; pause = min(pause*3/2, longest) {
		job, err := f.client.Job(ctx, f.id)
		if err == nil && job.Statistics != nil && job.Statistics.Devices > 0 {
			// Failures first, so that the counts never know more than the reader.
			if err := f.failures(ctx, job.Status.Ended()); err != nil {
				return job, err
			}
			f.bar.showJob(*job.Statistics, time.Since(f.began))
		}
		switch _, refused := asAnswer(err); {
		case refused || ctx.Err() != nil:
			return job, errors.Join(err, ctx.Err())
		case err == nil && job.Status.Ended() && settled(job):
			return job, nil
		}
		select {
		case <-ctx.Done():
			return job, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// followUpTo is follow, but cancels the job when so many devices have failed.
// A limit of 0 is none.
func (f *follower) followUpTo(ctx context.Context, limit int) (hubrest.Job, error) {
	if limit == 0 {
		return f.follow(ctx)
	}
	tell := f.failure
	f.failure = func(d hubrest.JobDevice) error {
		err := tell(d)
		if err == nil && len(f.told) == limit {
			return errTooManyFailures
		}
		return err
	}
	job, err := f.follow(ctx)
	if !errors.Is(err, errTooManyFailures) {
		return job, err
	}
	if err := f.stop(ctx); err != nil {
		return job, err
	}
	return f.follow(ctx) // until those that were called have answered
}

// stop cancels the job, unless it has ended already.
func (f *follower) stop(ctx context.Context) error {
	f.Note("Cancelling job %s", f.id)
	_, err := f.client.CancelJob(ctx, f.id)
	if refused, ok := asAnswer(err); !ok || refused.Status != http.StatusMethodNotAllowed && refused.Status != http.StatusBadRequest {
		return err
	}
	job, err := f.client.Job(ctx, f.id)
	if err == nil && !job.Status.Ended() { // Azure IoT Hub has it so
		f.sayItGoesOn()
	}
	return err
}

// sayItGoesOn is for a job that could not be stopped.
func (f *follower) sayItGoesOn() {
	f.Note("Job %s could not be stopped and goes on; look with \"iotdm service job watch %s\"", f.id, f.id)
}

// settled reports whether every device of an ended job has its outcome: those
// of a cancelled one may still be answering, and one that was about to start has
// not counted them yet.
func settled(job hubrest.Job) bool {
	if job.Statistics == nil {
		return job.Status != hubrest.JobCancelled || !job.End.IsZero()
	}
	return job.Statistics.Running == 0 && job.Statistics.Pending == 0
}

// outcomeDelay is how much later than others an outcome may show.
const outcomeDelay = time.Minute

// failures tells of devices that have newly failed. It asks for those of late
// only, since there may be many, but once for all at the end.
func (f *follower) failures(ctx context.Context, all bool) error {
	condition := "devices.jobs.status = 'failed' OR devices.jobs.outcome.deviceMethodResponse.status < 200 OR devices.jobs.outcome.deviceMethodResponse.status >= 300"
	if since := f.newest.Add(-outcomeDelay); !all && !f.newest.IsZero() {
		condition = "(" + condition + ") AND devices.jobs.lastUpdatedDateTimeUtc >= '" + since.UTC().Format(time.RFC3339) + "'"
	}
	for d, err := range f.client.JobDevices(ctx, f.id, condition) {
		if _, refused := asAnswer(err); refused {
			return err
		}
		if err != nil {
			return nil // the network; the next poll tells
		}
		if f.told[d.DeviceID] {
			continue
		}
		f.told[d.DeviceID] = true
		if d.Outcome.Method != nil {
			f.refused++
		}
		if d.LastUpdated.After(f.newest) {
			f.newest = d.LastUpdated.Time
		}
		if err := f.failure(d); err != nil {
			return err
		}
	}
	return nil
}

// errTooManyFailures ends a reboot that goes wrong.
var errTooManyFailures = errors.New("too many failures")
