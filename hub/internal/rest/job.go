package rest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/twin"
)

// maxJobBody leaves room around a payload, or a twin patch, of the largest
// size.
const maxJobBody = hub.MaxMethodPayload + 32<<10

// A jobMethodDoc is the direct method of a job in JSON.
type jobMethodDoc struct {
	Name            string          `json:"methodName"`
	Payload         json.RawMessage `json:"payload,omitempty"`
	ResponseTimeout *number         `json:"responseTimeoutInSeconds,omitempty"`
	ConnectTimeout  *number         `json:"connectTimeoutInSeconds,omitempty"`
}

// A jobTwinDoc is the twin patch of a job in JSON.
type jobTwinDoc struct {
	ETag       string             `json:"etag"`
	Tags       json.RawMessage    `json:"tags,omitempty"`
	Properties *jobTwinProperties `json:"properties,omitempty"`
}

type jobTwinProperties struct {
	Desired json.RawMessage `json:"desired,omitempty"`
}

// A jobDoc is the document of a job. The Java SDK wants jobId, type and status
// always.
type jobDoc struct {
	ID         string           `json:"jobId"`
	Created    string           `json:"createdTime"`
	Start      string           `json:"startTime"`
	End        string           `json:"endTime,omitempty"`
	MaxTime    int64            `json:"maxExecutionTimeInSeconds"`
	Type       jobs.Type        `json:"type"`
	Method     *jobMethodDoc    `json:"cloudToDeviceMethod,omitempty"`
	Twin       *jobTwinDoc      `json:"updateTwin,omitempty"`
	Condition  string           `json:"queryCondition"`
	Status     jobs.Status      `json:"status"`
	Failure    string           `json:"failureReason,omitempty"`
	Statistics *jobs.Statistics `json:"deviceJobStatistics,omitempty"`
}

func newJobDoc(job jobs.Job) jobDoc {
	doc := jobDoc{
		ID: job.ID, Created: twin.FormatTime(job.Created), Start: twin.FormatTime(job.Start), MaxTime: int64(job.MaxTime / time.Second),
		Type: job.Type, Condition: job.Condition, Status: job.Status, Failure: job.FailureReason, Statistics: job.Statistics,
	}
	if !job.Ended.IsZero() {
		doc.End = twin.FormatTime(job.Ended)
	}
	if m := job.Method; m != nil {
		response, connect := number(m.ResponseTimeout/time.Second), number(m.ConnectTimeout/time.Second)
		doc.Method = &jobMethodDoc{Name: m.Name, Payload: m.Payload, ResponseTimeout: &response, ConnectTimeout: &connect}
	}
	if t := job.Twin; t != nil {
		doc.Twin = &jobTwinDoc{ETag: "*", Tags: words.Present(t.Tags)}
		switch desired := words.Present(t.Desired); {
		case t.ClearDesired:
			doc.Twin.Properties = &jobTwinProperties{Desired: json.RawMessage("null")}
		case desired != nil:
			doc.Twin.Properties = &jobTwinProperties{Desired: desired}
		}
	}
	return doc
}

func (d *Door) putJob(r *request) (reply, error) {
	var in struct {
		ID        string          `json:"jobId"`
		Type      string          `json:"type"`
		Method    *jobMethodDoc   `json:"cloudToDeviceMethod"`
		Twin      *jobTwinDoc     `json:"updateTwin"`
		Condition string          `json:"queryCondition"`
		Start     json.RawMessage `json:"startTime"`
		MaxTime   *number         `json:"maxExecutionTimeInSeconds"`
	}
	if err := r.decodeUpTo(maxJobBody, &in); err != nil {
		return reply{}, err
	}
	if in.ID != "" && in.ID != r.name {
		return reply{}, hub.ErrArgumentInvalid.With("jobId in the body is not the one of the path")
	}
	start, err := jobStart(in.Start)
	if err != nil {
		return reply{}, err
	}
	spec := jobs.Spec{ID: r.name, Type: jobs.Type(in.Type), Condition: in.Condition, Start: start, MaxTime: seconds(in.MaxTime, 0)}
	if m := in.Method; m != nil {
		spec.Method = &hub.MethodCall{
			Name: m.Name, Payload: m.Payload,
			ResponseTimeout: responseTimeout(m.ResponseTimeout),
			ConnectTimeout:  seconds(m.ConnectTimeout, 0),
		}
	}
	if t := in.Twin; t != nil {
		if spec.Type == jobs.Twin && t.ETag != "*" {
			return reply{}, hub.ErrArgumentInvalid.With("Missing or invalid etag for job type ScheduleUpdateTwin. ScheduleUpdateTwin job type is a force update, which only accepts '*' as the Etag.")
		}
		spec.Twin = &hub.TwinChange{Tags: words.Present(t.Tags)}
		if t.Properties != nil {
			spec.Twin.Desired = words.Present(t.Properties.Desired)
			spec.Twin.ClearDesired = string(t.Properties.Desired) == "null" // as in a patch of one twin: assumed
		}
	}
	job, err := d.jobs.Create(spec)
	return reply{body: newJobDoc(job)}, err
}

// jobStart reads a start time. SDKs send "" and a time without a zone, which is
// in UTC. Null is refused by the service, which takes a job without the member:
// azure-iot-sdk-node#847, where both were tried.
func jobStart(member json.RawMessage) (time.Time, error) {
	var text *string
	if len(member) == 0 {
		return time.Time{}, nil
	}
	if json.Unmarshal(member, &text) != nil || text == nil {
		return time.Time{}, hub.ErrArgumentInvalid.With("startTime must be a time such as 2026-01-04T15:53:00Z")
	}
	if *text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04:05.999999999-0700"} {
		if t, err := time.Parse(layout, *text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, hub.ErrArgumentInvalid.With("startTime '%s' must be a time such as 2026-01-04T15:53:00Z", words.Clip(*text))
}

func (d *Door) getJob(r *request) (reply, error) {
	job, err := d.jobs.Get(r.name)
	return reply{body: newJobDoc(job)}, err
}

func (d *Door) cancelJob(r *request) (reply, error) {
	job, err := d.jobs.Cancel(r.name)
	return reply{body: newJobDoc(job)}, err
}

// maxJobPage is how many jobs a page has at most, which is also the default.
const maxJobPage = 100

// listJobs answers GET /jobs/v2/query. The page size and the continuation
// are in headers, or in the query string as the first documentation had it.
func (d *Door) listJobs(r *request) (reply, error) {
	query := r.URL.Query()
	either := func(header, parameter string) string {
		if v := r.Header.Get(header); v != "" {
			return v
		}
		return query.Get(parameter)
	}
	filter, err := jobFilter(query.Get("jobType"), query.Get("jobStatus"))
	if err != nil {
		return reply{}, err
	}
	size := maxJobPage
	if text := either("x-ms-max-item-count", "pageSize"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return reply{}, hub.ErrArgumentInvalid.With("the page size must be a number from 1")
		}
		size = min(n, size)
	}
	after, err := base64.URLEncoding.DecodeString(either("x-ms-continuation", "continuationToken"))
	if err != nil {
		return reply{}, hub.ErrArgumentInvalid.With("the continuation token is not one of this hub")
	}
	list := make([]jobDoc, 0, size)
	header := http.Header{"X-Ms-Item-Type": {"JobResponse"}}
	for job, err := range d.jobs.List(filter, string(after)) {
		if err != nil {
			return reply{}, err
		}
		if len(list) == size {
			header.Set("x-ms-continuation", base64.URLEncoding.EncodeToString([]byte(list[size-1].ID)))
			break
		}
		list = append(list, newJobDoc(job))
	}
	return reply{body: list, header: header}, nil
}

// jobFilter reads the filter of a list of jobs. SDKs differ in the case: the C#
// one sends the names of its enumerations.
func jobFilter(kind, status string) (f jobs.Filter, err error) {
	if kind != "" {
		if f.Type, err = oneOf("jobType", kind, jobs.Method, jobs.Twin); err != nil {
			return f, err
		}
	}
	if strings.EqualFold(status, "enqueued") {
		status = string(jobs.Queued) // the service has two words for it
	}
	if status != "" {
		f.Status, err = oneOf("jobStatus", status, jobs.Queued, jobs.Scheduled, jobs.Running, jobs.Completed, jobs.Failed, jobs.Cancelled)
	}
	return f, err
}

// oneOf returns the value that text is, whatever its case.
func oneOf[T ~string](name, text string, values ...T) (T, error) {
	for _, v := range values {
		if strings.EqualFold(string(v), text) {
			return v, nil
		}
	}
	return "", hub.ErrArgumentInvalid.With("%s '%s' is unknown", name, words.Clip(text))
}
