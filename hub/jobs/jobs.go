// Package jobs runs a hub's scheduled jobs: a direct method, or a change of the
// twin, on every device that a condition chooses; see "Schedule jobs on multiple
// devices". It stands on the rules of package hub and uses no more of them than
// any caller could.
package jobs

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
)

// A Type says what a job does to its devices.
type Type string

// The types of scheduled jobs; see "Schedule jobs on multiple devices".
const (
	Method Type = "scheduleDeviceMethod"
	Twin   Type = "scheduleUpdateTwin"
)

// A Status is how far a job has come.
type Status string

// The statuses of a job. A job stays running until every device of it has an
// outcome; devices that fail do not make the job fail.
const (
	Queued    Status = "queued"    // waits for a free place among the running jobs
	Scheduled Status = "scheduled" // waits for its start time
	Running   Status = "running"
	Completed Status = "completed"
	Failed    Status = "failed" // it could not run at all: see FailureReason
	Cancelled Status = "cancelled"
)

// A Spec is what a caller says of a job.
type Spec struct {
	ID   string
	Type Type

	// Condition chooses the devices when the job starts: "*" for all, or what
	// stands behind WHERE in a query of devices.
	Condition string

	Start   time.Time     // zero, or any past time, is at once
	MaxTime time.Duration // how long it may run; 0 is an hour

	Method *hub.MethodCall // what a Method job calls
	Twin   *hub.TwinChange // what a Twin job merges into the twins
}

// A Job is a job as the hub keeps it.
type Job struct {
	Spec
	Status        Status
	Created       time.Time
	Started       time.Time // zero until it runs
	Ended         time.Time // zero until every device has its outcome
	FailureReason string
	Statistics    *Statistics // nil until its devices are known
}

// Statistics count the devices of a job.
type Statistics struct {
	Devices   int `json:"deviceCount"`
	Failed    int `json:"failedCount"`
	Succeeded int `json:"succeededCount"`
	Running   int `json:"runningCount"`
	Pending   int `json:"pendingCount"`
}

// Limits of jobs. The length of a condition is that of a query. How many jobs
// may wait for their start time is not documented; each is kept in memory, with
// a payload of up to 128 KiB.
const (
	defaultLimit   = 10
	maxForLater    = 1000
	defaultMaxTime = time.Hour
	maxMaxTime     = 30 * 24 * time.Hour
	history        = 30 * 24 * time.Hour
)

func (spec *Spec) validate(now time.Time) error {
	if !hub.ValidName(spec.ID) || spec.ID == "query" {
		return hub.ErrArgumentInvalid.With("job id '%s' must be 1 to 128 of the letters, digits and - : . + %% _ # * ? ! ( ) , = @ ; $ ', and not query", words.Clip(spec.ID))
	}
	if spec.Condition == "" {
		return hub.ErrArgumentInvalid.With("queryCondition is required. '*' is all devices")
	}
	if utf8.RuneCountInString(spec.Condition) > query.MaxLength {
		// The service's own words, whatever they have to do with it.
		return hub.ErrPreconditionFailed.With("The etag in the request does not match the etag of the existing resource, as per RFC7232, or queryCondition is longer than %d characters", query.MaxLength)
	}
	if spec.MaxTime < 0 || spec.MaxTime > maxMaxTime {
		return hub.ErrArgumentInvalid.With("maxExecutionTimeInSeconds must be within [0; %d].", maxMaxTime/time.Second)
	}
	spec.MaxTime = cmp.Or(spec.MaxTime, defaultMaxTime)
	switch spec.Type {
	case Method:
		if spec.Method == nil {
			return hub.ErrArgumentInvalid.With("a %s job needs cloudToDeviceMethod", spec.Type)
		}
		spec.Twin = nil
		spec.Method.ResponseTimeout = cmp.Or(spec.Method.ResponseTimeout, hub.DefaultResponseTimeout)
		return spec.Method.Validate()
	case Twin:
		if spec.Twin == nil {
			return hub.ErrArgumentInvalid.With("a %s job needs updateTwin", spec.Type)
		}
		// The service refuses a patch whose members are elsewhere than it looks
		// for them, such as "desired" beside the etag: azure-iot-sdk-node#44.
		if spec.Twin.Empty() {
			return hub.ErrArgumentInvalid.With("updateTwin needs tags or properties.desired")
		}
		spec.Method = nil
		return spec.Twin.Validate(now)
	default:
		return hub.ErrGenericBadRequest.With("job type '%s' must be %s or %s", words.Clip(string(spec.Type)), Method, Twin)
	}
}

// Create stores a job and starts it when its time has come. The job it
// returns is queued, whatever its start time.
//
// Errors: ErrArgumentInvalid, ErrGenericBadRequest (its type),
// ErrPreconditionFailed (a condition that is too long), ErrMessageTooLarge,
// ErrTwinTooLarge, ErrJobAlreadyExists, ErrTooManyJobs (running), ErrJobQuota
// (waiting for their start time). A condition that cannot be parsed is none of
// them: it makes the job fail.
func (s *Scheduler) Create(spec Spec) (Job, error) {
	job, err := atLeader(s, verbCreate, spec, s.create)
	job.tidy()
	return job, err
}

func (s *Scheduler) create(spec Spec) (Job, error) {
	now := s.hub.Now().UTC()
	spec.tidy()
	if err := spec.validate(now); err != nil {
		return Job{}, err
	}
	if spec.Start.IsZero() {
		spec.Start = now
	}
	job := Job{Spec: spec, Status: Queued, Created: now}
	var added *activeJob
	drop := func() {
		if added != nil {
			s.jobs.drop(added)
		}
	}
	err := s.store.Update(lock(job.ID), func(tx *store.Tx) (err error) {
		drop() // it may run again
		switch _, err := tx.Get(key(job.ID)); {
		case err == nil:
			return hub.ErrJobAlreadyExists.With("A job with ID '%s' already exists.", job.ID)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		if added, err = s.jobs.add(job, now); err != nil {
			return err
		}
		return write(tx, job)
	})
	if err != nil {
		drop()
		return Job{}, err
	}
	return job, nil
}

// Get returns a job.
//
// Errors: ErrJobNotFound.
func (s *Scheduler) Get(id string) (Job, error) {
	if job, ok := s.jobs.snapshot(id, s.hub.Now()); ok {
		job.count(s.counted)
		return job, nil
	}
	data, err := s.store.Get(key(id))
	return decode(id, data, err)
}

// A Filter chooses jobs. Zero members choose all.
type Filter struct {
	Type   Type
	Status Status
}

// List returns the jobs that the filter chooses, in the order of their ids,
// from the first id behind after.
func (s *Scheduler) List(filter Filter, after string) iter.Seq2[Job, error] {
	start := append(key(after), 0)
	counted := sync.OnceValue(s.counted)
	return store.Seq(func(yield func(Job) error) error {
		return s.store.Scan(start, store.PrefixEnd([]byte(disk.Job)), func(k, v []byte) error {
			id := string(k[len(disk.Job):])
			job, ok := s.jobs.snapshot(id, s.hub.Now())
			if ok {
				job.count(counted)
			} else {
				var err error
				if job, err = decode(id, v, nil); err != nil {
					return err
				}
			}
			if filter.Type != "" && filter.Type != job.Type || filter.Status != "" && filter.Status != job.Status {
				return nil
			}
			return yield(job)
		})
	})
}

// Cancel ends a job. Of a running one no more devices are called or
// updated; direct methods that are on their way get their answers, and until
// then its Ended is zero. The service refuses to cancel a running job; who
// operates devices has to be able to stop one.
//
// Errors: ErrJobNotFound, ErrNotInCurrentState (the job has ended).
func (s *Scheduler) Cancel(id string) (Job, error) {
	job, err := atLeader(s, verbCancel, id, s.cancel)
	job.tidy()
	return job, err
}

func (s *Scheduler) cancel(id string) (Job, error) {
	waiting, running := s.jobs.claim(id)
	job, err := s.change(id, func(job *Job) error {
		if !job.Ended.IsZero() || job.Status == Cancelled {
			status := string(job.Status)
			return hub.ErrNotInCurrentState.With("Job cannot be cancelled in '%s' status.", strings.ToUpper(status[:1])+status[1:])
		}
		job.Status = Cancelled
		if waiting != nil {
			job.Ended = s.hub.Now().UTC()
		}
		return nil
	})
	switch {
	case waiting != nil && err != nil:
		s.jobs.unclaim(waiting)
	case running != nil && err == nil:
		running.cancel(errCancelled)
	}
	return job, err
}

// Wait returns the job once it has ended, or what it is like when ctx ends,
// with ctx's error.
//
// Errors: ErrJobNotFound.
func (s *Scheduler) Wait(ctx context.Context, id string) (Job, error) {
	if done := s.jobs.done(id); done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			job, _ := s.Get(id)
			return job, ctx.Err()
		}
	}
	return s.Get(id)
}
