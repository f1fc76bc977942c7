package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/phrase"
)

// maxJobs is how many jobs are read to find the newest: hubs list them in no order of time.
const maxJobs = 1000

// jobPath is the address of a job's page.
func jobPath(id string) string { return "/job/" + idPath(id) }

// How soon a list of jobs is asked for again, in seconds: while one runs, and while one waits for its time.
const (
	busyRefresh = 2
	idleRefresh = 15
)

// jobsPage is the data of the list of jobs.
type jobsPage struct {
	Type, Status string
	Types        []jobType
	Statuses     []hubrest.JobStatus
	Jobs         []jobRow
	More         bool // there are more than were read
	Refresh      int  // in how many seconds they will have changed; 0: none is under way
	Runs         []runPage
	Pager        pager
}

// A jobType is a type of jobs with its name for people.
type jobType struct{ Type, Name string }

var jobTypes = []jobType{{string(hubrest.JobMethod), "direct method"}, {string(hubrest.JobTwin), "twin patch"}}

var jobStatuses = []hubrest.JobStatus{hubrest.JobQueued, hubrest.JobScheduled, hubrest.JobRunning, hubrest.JobCompleted, hubrest.JobFailed, hubrest.JobCancelled}

// A jobRow is a job as pages show it.
type jobRow struct {
	hubrest.Job
	What string // what it does, in a few words
	Done int    // devices with an outcome
	All  int
	Live bool // more will come of it
}

func newJobRow(j hubrest.Job) jobRow {
	row := jobRow{Job: j, Live: !j.Status.Ended(), What: "twin patch"}
	if j.Type == hubrest.JobMethod {
		row.What = cellOf(valueAt(j.Method, "methodName"))
	}
	if n := j.Statistics; n != nil {
		row.All, row.Done = n.Devices, n.Succeeded+n.Failed
		row.Live = row.Live || n.Running+n.Pending > 0 && j.Status != hubrest.JobFailed
	}
	return row
}

// Look is how the state of the job looks: see the stylesheet.
func (j jobRow) Look() string {
	switch {
	case j.Status == hubrest.JobCompleted && (j.Statistics == nil || j.Statistics.Failed == 0):
		return "ok"
	case j.Status == hubrest.JobCompleted || j.Status == hubrest.JobFailed:
		return "stop"
	case j.Status == hubrest.JobCancelled || j.Status == hubrest.JobScheduled:
		return "off"
	}
	return "busy"
}

func (c *Console) jobs(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	p := jobsPage{Type: v.Get("type"), Status: v.Get("status"), Types: jobTypes, Statuses: jobStatuses}
	all, more, err := c.newestJobs(r.Context(), hubrest.JobType(p.Type), hubrest.JobStatus(p.Status))
	if err != nil {
		return err
	}
	size := pageSize(v)
	from, _ := strconv.Atoi(v.Get("from"))
	from = min(max(from, 0), len(all))
	next := ""
	if from+size < len(all) {
		next = strconv.Itoa(from + size)
	}
	p.Pager, p.More = newPager("/jobs", v, next), more
	for _, j := range all[from:min(from+size, len(all))] {
		row := newJobRow(j)
		p.Jobs = append(p.Jobs, row)
		switch {
		case row.Live && row.Status != hubrest.JobScheduled:
			p.Refresh = busyRefresh
		case row.Live && p.Refresh == 0:
			p.Refresh = idleRefresh
		}
	}
	for _, run := range c.runs.all() {
		row := c.runPage(r, run)
		if p.Runs = append(p.Runs, row); row.Running {
			p.Refresh = busyRefresh
		}
	}
	c.render(w, r, page{Template: "jobs", Title: "Jobs", Section: "Jobs", Data: p})
	return nil
}

// newestJobs returns jobs, the newest first, and whether there may be more.
func (c *Console) newestJobs(ctx context.Context, t hubrest.JobType, s hubrest.JobStatus) (all []hubrest.Job, more bool, err error) {
	for j, err := range c.opt.Client.Jobs(ctx, t, s) {
		if err != nil {
			return nil, false, err
		}
		if len(all) == maxJobs {
			more = true
			break
		}
		all = append(all, j)
	}
	slices.SortStableFunc(all, func(a, b hubrest.Job) int {
		return cmp.Or(b.Created.Compare(a.Created.Time), cmp.Compare(b.ID, a.ID))
	})
	return all, more, nil
}

// Which rows of a job are shown.
const (
	rowsAll     = ""
	rowsFailed  = "failed"  // the job did not get through to the device, or its twin
	rowsRefused = "refused" // the device has answered another status than 2xx
	rowsWaiting = "waiting"
)

var rowConditions = map[string]string{
	rowsAll:     "",
	rowsFailed:  "devices.jobs.status = 'failed'",
	rowsRefused: "devices.jobs.outcome.deviceMethodResponse.status < 200 OR devices.jobs.outcome.deviceMethodResponse.status >= 300",
	rowsWaiting: "devices.jobs.status = 'pending' OR devices.jobs.status = 'scheduled' OR devices.jobs.status = 'running'",
}

// jobPage is the data of the page of a job.
type jobPage struct {
	Job     jobRow
	Link    string // to the devices of its condition
	Payload string // of the direct method
	Patch   string // of twins
	Timeout string
	Show    string // which rows
	Shows   []jobShow
	Rows    []jobDevice
	Problem string // why there are no rows
	Pager   pager
}

type jobShow struct{ Show, Name, Path string }

// A jobDevice is what came of a job on a device, as the page shows it.
type jobDevice struct {
	hubrest.JobDevice
	Answer string // the status of a direct method; empty: there is none
	Text   cell   // the payload of the answer, or why it failed
	Look   string // as jobRow.Look
}

func newJobDevice(d hubrest.JobDevice) jobDevice {
	row := jobDevice{JobDevice: d, Look: "busy"}
	switch d.Status {
	case "completed":
		row.Look = "ok"
	case "failed":
		row.Look = "stop"
	case "canceled", "pending", "scheduled":
		row.Look = "off"
	}
	if m := d.Outcome.Method; m != nil {
		row.Answer, row.Text = strconv.Itoa(m.Status), newCell(m.Payload)
		if m.Status/100 != 2 {
			row.Look = "stop"
		}
	}
	if e := d.Error; e != nil {
		text := e.Code + ": " + e.Description
		if e.Code == "DeviceNotOnline" { // the service's words fill three lines
			text = "not connected, or without this method"
		}
		row.Text = cell{Text: clipped(text), Full: text}
	}
	if d.Repeated {
		row.Text.Text += " (the hub stopped during a first call, which the device may have received too)"
	}
	return row
}

func (c *Console) job(w http.ResponseWriter, r *http.Request) error {
	id, v := pathID(r, "id"), r.URL.Query()
	j, err := c.opt.Client.Job(r.Context(), id)
	if err != nil {
		return jobError(id, err)
	}
	show := v.Get("rows")
	where, known := rowConditions[show]
	if !known {
		return invalid(fmt.Sprintf("%q is no kind of row", phrase.Clip(show)))
	}
	p := jobPage{Job: newJobRow(j), Show: show, Link: "/devices?where=" + url.QueryEscape(j.Condition)}
	if len(j.Method) > 0 {
		p.Payload, p.Timeout = indented(valueAt(j.Method, "payload")), cellOf(valueAt(j.Method, "responseTimeoutInSeconds"))
	}
	if len(j.Twin) > 0 {
		p.Patch = indented(j.Twin)
	}
	for _, s := range []jobShow{{rowsAll, "all", ""}, {rowsFailed, "failed", ""}, {rowsRefused, "answered another status than 2xx", ""}, {rowsWaiting, "to come", ""}} {
		if s.Show == rowsRefused && j.Type != hubrest.JobMethod {
			continue
		}
		s.Path = address(jobPath(id), withValue(nil, "rows", s.Show))
		p.Shows = append(p.Shows, s)
	}
	got, err := c.opt.Client.JobDevicePage(r.Context(), id, where, hubrest.PageRequest{Size: pageSize(v), From: v.Get("from")})
	if err != nil {
		p.Problem = c.explain(r.Context(), err) // the job itself is worth showing
	}
	for _, d := range got.Rows {
		p.Rows = append(p.Rows, newJobDevice(d))
	}
	p.Pager = newPager(jobPath(id), v, got.Next)
	c.render(w, r, page{Template: "job", Title: "Job " + id, Section: "Jobs", Data: p})
	return nil
}

func (c *Console) cancelJob(w http.ResponseWriter, r *http.Request) error {
	id := pathID(r, "id")
	if _, err := c.opt.Client.CancelJob(r.Context(), id); err != nil {
		return c.failed(w, r, jobPath(id), jobError(id, err))
	}
	return c.done(w, r, jobPath(id), "The job is cancelled: it reaches no more devices. Those that were called may still answer.")
}

// jobError words what a hub says of a job.
func jobError(id string, err error) error {
	switch status := statusOf(err); status {
	case http.StatusNotFound:
		return &problem{status: status, text: "there is no job " + id + " on the hub"}
	}
	return err
}
