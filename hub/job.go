package hub

import (
	"cmp"
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
)

// A JobType says what a job does to its devices.
type JobType string

// The types of scheduled jobs; see "Schedule jobs on multiple devices".
const (
	JobMethod JobType = "scheduleDeviceMethod"
	JobTwin   JobType = "scheduleUpdateTwin"
)

// A JobStatus is how far a job has come.
type JobStatus string

// The statuses of a job. A job stays running until every device of it has an
// outcome; devices that fail do not make the job fail.
const (
	JobQueued    JobStatus = "queued"    // waits for a free place among the running jobs
	JobScheduled JobStatus = "scheduled" // waits for its start time
	JobRunning   JobStatus = "running"
	JobCompleted JobStatus = "completed"
	JobFailed    JobStatus = "failed" // it could not run at all: see FailureReason
	JobCancelled JobStatus = "cancelled"
)

// A JobSpec is what a caller says of a job.
type JobSpec struct {
	ID   string
	Type JobType

	// Condition chooses the devices when the job starts: "*" for all, or what
	// stands behind WHERE in a query of devices.
	Condition string

	Start   time.Time     // zero, or any past time, is at once
	MaxTime time.Duration // how long it may run; 0 is an hour

	Method *MethodCall // what a JobMethod calls
	Twin   *TwinChange // what a JobTwin merges into the twins
}

// A Job is a job as the hub keeps it.
type Job struct {
	JobSpec
	Status        JobStatus
	Created       time.Time
	Started       time.Time // zero until it runs
	Ended         time.Time // zero until every device has its outcome
	FailureReason string
	Statistics    *JobStatistics // nil until its devices are known
}

// JobStatistics count the devices of a job.
type JobStatistics struct {
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
	defaultMaxJobs    = 10
	maxJobsForLater   = 1000
	defaultJobMaxTime = time.Hour
	maxJobMaxTime     = 30 * 24 * time.Hour
	jobHistory        = 30 * 24 * time.Hour
)

func (spec *JobSpec) validate(now time.Time) error {
	if !idPattern.MatchString(spec.ID) || spec.ID == "query" {
		return ErrArgumentInvalid.with("job id '%s' must be 1 to 128 of the letters, digits and - : . + %% _ # * ? ! ( ) , = @ ; $ ', and not query", clip(spec.ID))
	}
	if spec.Condition == "" {
		return ErrArgumentInvalid.with("queryCondition is required. '*' is all devices")
	}
	if utf8.RuneCountInString(spec.Condition) > query.MaxLength {
		// The service's own words, whatever they have to do with it.
		return ErrPreconditionFailed.with("The etag in the request does not match the etag of the existing resource, as per RFC7232, or queryCondition is longer than %d characters", query.MaxLength)
	}
	if spec.MaxTime < 0 || spec.MaxTime > maxJobMaxTime {
		return ErrArgumentInvalid.with("maxExecutionTimeInSeconds must be within [0; %d].", maxJobMaxTime/time.Second)
	}
	spec.MaxTime = cmp.Or(spec.MaxTime, defaultJobMaxTime)
	switch spec.Type {
	case JobMethod:
		if spec.Method == nil {
			return ErrArgumentInvalid.with("a %s job needs cloudToDeviceMethod", spec.Type)
		}
		spec.Twin = nil
		return spec.Method.validate()
	case JobTwin:
		if spec.Twin == nil {
			return ErrArgumentInvalid.with("a %s job needs updateTwin", spec.Type)
		}
		spec.Method = nil
		blank := newTwin(ID{}, now)
		if _, err := spec.Twin.patch(&blank, now); err != nil {
			return twinError(err)
		}
		return nil
	default:
		return ErrGenericBadRequest.with("job type '%s' must be %s or %s", clip(string(spec.Type)), JobMethod, JobTwin)
	}
}

// CreateJob stores a job and starts it when its time has come. The job it
// returns is queued, whatever its start time.
//
// Errors: ErrArgumentInvalid, ErrGenericBadRequest (its type),
// ErrPreconditionFailed (a condition that is too long), ErrMessageTooLarge,
// ErrTwinTooLarge, ErrJobAlreadyExists, ErrTooManyJobs (running), ErrJobQuota
// (waiting for their start time). A condition that cannot be parsed is none of
// them: it makes the job fail.
func (s *Server) CreateJob(spec JobSpec) (Job, error) {
	now := s.now().UTC()
	if err := spec.validate(now); err != nil {
		return Job{}, err
	}
	if spec.Start.IsZero() {
		spec.Start = now
	}
	job := Job{JobSpec: spec, Status: JobQueued, Created: now}
	var added *activeJob
	err := s.store.Update(jobLock(job.ID), func(tx *store.Tx) (err error) {
		switch _, err := tx.Get(jobKey(job.ID)); {
		case err == nil:
			return ErrJobAlreadyExists.with("A job with ID '%s' already exists.", job.ID)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		if added, err = s.jobs.add(job, now); err != nil {
			return err
		}
		tx.OnCommit(func() { s.jobs.ready(added) })
		return writeJob(tx, job)
	})
	if err != nil {
		if added != nil {
			s.jobs.drop(added)
		}
		return Job{}, err
	}
	return job, nil
}

// Job returns a job.
//
// Errors: ErrJobNotFound.
func (s *Server) Job(id string) (Job, error) {
	if job, ok := s.jobs.snapshot(id, s.now()); ok {
		return job, nil
	}
	data, err := s.store.Get(jobKey(id))
	return decodeJob(id, data, err)
}

// A JobFilter chooses jobs. Zero members choose all.
type JobFilter struct {
	Type   JobType
	Status JobStatus
}

// Jobs calls fn with the jobs that the filter chooses, in the order of their
// ids, from the first id behind after. An error of fn ends the walk and is
// returned, except store.ErrStop.
func (s *Server) Jobs(filter JobFilter, after string, fn func(Job) error) error {
	start := append(jobKey(after), 0)
	return s.store.Scan(start, prefixEnd([]byte(jobPrefix)), func(k, v []byte) error {
		id := string(k[len(jobPrefix):])
		job, ok := s.jobs.snapshot(id, s.now())
		if !ok {
			var err error
			if job, err = decodeJob(id, v, nil); err != nil {
				return err
			}
		}
		if filter.Type != "" && filter.Type != job.Type || filter.Status != "" && filter.Status != job.Status {
			return nil
		}
		return fn(job)
	})
}

// CancelJob ends a job. Of a running one no more devices are called or
// updated; direct methods that are on their way get their answers, and until
// then its Ended is zero.
//
// Errors: ErrJobNotFound, ErrInvalidOperation (the job has ended).
func (s *Server) CancelJob(id string) (Job, error) {
	waiting, running := s.jobs.claim(id)
	job, err := s.changeJob(id, func(job *Job) error {
		if !job.Ended.IsZero() || job.Status == JobCancelled {
			return ErrInvalidOperation.with("job '%s' is %s already", id, job.Status)
		}
		job.Status = JobCancelled
		if waiting != nil {
			job.Ended = s.now().UTC()
		}
		return nil
	})
	switch {
	case waiting != nil && err != nil:
		s.jobs.unclaim(waiting)
	case waiting != nil:
		s.jobs.remove(waiting)
	case running != nil && err == nil:
		running.cancel(errJobCancelled)
	}
	return job, err
}

// WaitJob returns the job once it has ended, or what it is like when ctx ends,
// with ctx's error.
//
// Errors: ErrJobNotFound.
func (s *Server) WaitJob(ctx context.Context, id string) (Job, error) {
	if done := s.jobs.done(id); done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			job, _ := s.Job(id)
			return job, ctx.Err()
		}
	}
	return s.Job(id)
}
