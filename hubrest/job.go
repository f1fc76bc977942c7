package hubrest

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// JobType says what a job does to its devices.
type JobType string

// The types of scheduled jobs.
const (
	JobMethod JobType = "scheduleDeviceMethod" // calls a direct method
	JobTwin   JobType = "scheduleUpdateTwin"   // patches the twins
)

// JobStatus is how far a job has come.
type JobStatus string

// The statuses of a job. Azure IoT Hub has JobEnqueued for JobQueued at times.
const (
	JobQueued    JobStatus = "queued"
	JobEnqueued  JobStatus = "enqueued"
	JobScheduled JobStatus = "scheduled" // its start time is still to come
	JobRunning   JobStatus = "running"
	JobCompleted JobStatus = "completed" // every device has an outcome, which may be a failure
	JobFailed    JobStatus = "failed"    // it could not run at all
	JobCancelled JobStatus = "cancelled"
)

// Ended reports whether nothing more will come of the job.
func (s JobStatus) Ended() bool { return s == JobCompleted || s == JobFailed || s == JobCancelled }

// A JobRequest is a job to be created: a direct method, or a twin patch, for many devices. See the article "Schedule
// jobs on multiple devices".
type JobRequest struct {
	ID string
	// Condition chooses the devices: what stands behind WHERE in a query of devices, or "*" for all.
	Condition string
	Method    *Method     // to be called: either this
	Twin      *TwinChange // or this, to be merged into the twins; a job has no use for its ETag
	Start     time.Time   // zero: now
	// MaxTime is how long the job may run, in whole seconds. 0: an hour.
	MaxTime time.Duration
}

// A Job is a job as the hub shows it.
type Job struct {
	ID            string          `json:"jobId"`
	Type          JobType         `json:"type"`
	Status        JobStatus       `json:"status"`
	Condition     string          `json:"queryCondition,omitempty"`
	Created       Time            `json:"createdTime,omitzero"`
	Start         Time            `json:"startTime,omitzero"`
	End           Time            `json:"endTime,omitzero"`
	MaxTime       int64           `json:"maxExecutionTimeInSeconds,omitempty"`
	Method        json.RawMessage `json:"cloudToDeviceMethod,omitempty"`
	Twin          json.RawMessage `json:"updateTwin,omitempty"`
	FailureReason string          `json:"failureReason,omitempty"`
	StatusMessage string          `json:"statusMessage,omitempty"`
	Statistics    *JobStatistics  `json:"deviceJobStatistics,omitempty"` // nil: not known yet
}

// JobStatistics count the devices of a job. A device that answered a direct method has succeeded, whatever its status.
type JobStatistics struct {
	Devices   int `json:"deviceCount"`
	Failed    int `json:"failedCount"`
	Succeeded int `json:"succeededCount"`
	Running   int `json:"runningCount"`
	Pending   int `json:"pendingCount"`
}

// A JobDevice is what came of a job on one device. See the article "Query IoT Hub jobs".
type JobDevice struct {
	DeviceID    string  `json:"deviceId"`
	JobID       string  `json:"jobId"`
	Type        JobType `json:"jobType"`
	Status      string  `json:"status"` // pending, scheduled, running, completed, failed or canceled
	Start       Time    `json:"startTimeUtc,omitzero"`
	End         Time    `json:"endTimeUtc,omitzero"`
	Created     Time    `json:"createdDateTimeUtc,omitzero"`
	LastUpdated Time    `json:"lastUpdatedDateTimeUtc,omitzero"`
	Outcome     struct {
		Method *MethodAnswer `json:"deviceMethodResponse"` // nil if the device answered none
	} `json:"outcome"`
	Error *JobError `json:"error,omitempty"` // nil unless Status is failed
	// Repeated says that the hub stopped during a first call, so that the device may have received two. Only iotdm's hub
	// tells.
	Repeated bool `json:"repeated,omitempty"`
}

// A JobError says why a job failed on a device.
type JobError struct {
	Code        string `json:"code"` // such as DeviceNotOnline
	Description string `json:"description"`
}

// CreateJob creates a job and returns it as the hub has taken it: not yet started. It fails with ErrAlreadyExists if
// there is one of this id, and with an *Error of status 429 if the hub runs as many as it can, or 403 if as many as it
// takes wait for their start. A condition that makes no sense is found only when the job starts, and fails.
func (c *Client) CreateJob(ctx context.Context, r JobRequest) (Job, error) {
	type method struct {
		Name            string `json:"methodName"`
		Payload         any    `json:"payload"`
		ResponseTimeout int    `json:"responseTimeoutInSeconds"`
		ConnectTimeout  int    `json:"connectTimeoutInSeconds"`
	}
	body := struct {
		ID        string     `json:"jobId"`
		Type      JobType    `json:"type"`
		Condition string     `json:"queryCondition"`
		Start     *time.Time `json:"startTime,omitempty"`
		MaxTime   int        `json:"maxExecutionTimeInSeconds,omitempty"`
		Method    *method    `json:"cloudToDeviceMethod,omitempty"`
		Twin      *twinBody  `json:"updateTwin,omitempty"`
	}{ID: r.ID, Condition: r.Condition, MaxTime: seconds(r.MaxTime)}
	if !r.Start.IsZero() {
		start := r.Start.UTC()
		body.Start = &start
	}
	switch {
	case r.Method != nil && r.Twin != nil, r.Method == nil && r.Twin == nil:
		return Job{}, fmt.Errorf("create job %q: it needs either a direct method or a twin patch", r.ID)
	case r.Method != nil:
		m := *r.Method
		if m.ResponseTimeout == 0 {
			m.ResponseTimeout = 30 * time.Second
		}
		body.Type = JobMethod
		body.Method = &method{m.Name, m.Payload, seconds(m.ResponseTimeout), seconds(m.ConnectTimeout)}
	default:
		patch := newTwinBody(*r.Twin)
		patch.ETag = "*"
		body.Type, body.Twin = JobTwin, &patch
	}
	var job Job
	_, err := c.do(ctx, request{what: jobNoun("create", r.ID), method: http.MethodPut, path: jobPath(r.ID), body: body}, &job)
	return job, err
}

func jobNoun(verb, id string) string { return fmt.Sprintf("%s job %q", verb, id) }

func jobPath(id string) []string { return []string{"jobs", "v2", id} }

// Job returns a job, or ErrNotFound.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	var job Job
	_, err := c.do(ctx, request{what: jobNoun("get", id), method: http.MethodGet, path: jobPath(id), repeat: repeatAlways}, &job)
	return job, err
}

// Jobs yields the jobs of a type and a status, of which either may be empty for all, fetching page after page. After an
// error it ends.
func (c *Client) Jobs(ctx context.Context, t JobType, s JobStatus) iter.Seq2[Job, error] {
	query := make(url.Values)
	if t != "" {
		query.Set("jobType", string(t))
	}
	if s != "" {
		query.Set("jobStatus", string(s))
	}
	r := request{what: "list jobs", method: http.MethodGet, path: jobPath("query"), query: query, repeat: repeatAlways}
	return decoded[Job](c.rows(ctx, r, 0), r.what)
}

// CancelJob ends a job that has not ended: it reaches no more devices. Calls that are on their way may still be
// answered.
func (c *Client) CancelJob(ctx context.Context, id string) (Job, error) {
	var job Job
	path := append(jobPath(id), "cancel")
	_, err := c.do(ctx, request{what: jobNoun("cancel", id), method: http.MethodPost, path: path, repeat: repeatRefused}, &job)
	return job, err
}

// JobDevices yields what came of a job on its devices, fetching page after page. The condition chooses the devices, in the
// query language with names such as devices.jobs.status; empty: all. After an error it ends. Azure IoT Hub shows the
// outcome of a device some seconds late.
func (c *Client) JobDevices(ctx context.Context, id, condition string) iter.Seq2[JobDevice, error] {
	return decoded[JobDevice](c.Query(ctx, jobDevicesQuery(id, condition), 0), jobNoun("list the devices of", id))
}

func jobDevicesQuery(id, condition string) string {
	query := "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = " + queryString(id)
	if condition != "" {
		query += " AND (" + condition + ")"
	}
	return query
}

// queryString returns s as a string of the query language.
func queryString(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// decoded unmarshals rows.
func decoded[T any](rows iter.Seq2[json.RawMessage, error], what string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for row, err := range rows {
			var v T
			if err == nil {
				if err = json.Unmarshal(row, &v); err != nil {
					err = fmt.Errorf("%s: the hub's answer is not as documented: %w", what, err)
				}
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}
