package cli

import (
	"context"
	"errors"
	"time"

	"github.com/iotdm/iotdm/hubrest"
)

// asAnswer returns the hub's answer that err is, if it is one.
func asAnswer(err error) (*hubrest.Error, bool) { return errors.AsType[*hubrest.Error](err) }

// A follower polls a job and tells people how it goes.
type follower struct {
	streams
	client *hubrest.Client
	id     string

	// interesting is the condition of the devices that failure is called for,
	// once each.
	interesting string
	failure     func(hubrest.JobDevice) error

	bar   progressBar
	told  map[string]bool // devices that failure was called for
	began time.Time
}

// newFollower returns a follower that notes each device on which the job fails.
func newFollower(s streams, client *hubrest.Client, id string) *follower {
	f := &follower{streams: s, client: client, id: id, interesting: "devices.jobs.status = 'failed'", told: make(map[string]bool), began: time.Now()}
	f.bar = progressBar{streams: s, terminal: isTerminal(s.errOut)}
	f.failure = func(d hubrest.JobDevice) error {
		f.bar.clear()
		s.note("%s failed: %s", d.DeviceID, jobFailure(d))
		return nil
	}
	return f
}

func jobFailure(d hubrest.JobDevice) string {
	text := d.Status
	if d.Error != nil {
		text = d.Error.Code
		if d.Error.Description != "" {
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
			if err := f.failures(ctx); err != nil {
				return job, err
			}
			f.bar.show(*job.Statistics, time.Since(f.began))
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

// settled reports whether every device of an ended job has its outcome: those
// of a cancelled one may still be answering.
func settled(job hubrest.Job) bool {
	return job.Statistics == nil || job.Statistics.Running == 0 && job.Statistics.Pending == 0
}

// failures tells of devices that have newly failed.
func (f *follower) failures(ctx context.Context) error {
	for d, err := range f.client.JobDevices(ctx, f.id, f.interesting) {
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
		if err := f.failure(d); err != nil {
			return err
		}
	}
	return nil
}
