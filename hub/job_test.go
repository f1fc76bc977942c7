package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
)

// A responder is a connected device that answers direct methods.
type responder struct {
	*client
	calls atomic.Int64 // how many it has received
}

// respond connects a device that answers every direct method with status and
// body, or never if status is 0. It says on called, if that is not nil, that it
// was called.
func respond(t testing.TB, h *hubtest.Hub, device string, status int, body string, called chan<- string) *responder {
	t.Helper()
	r := &responder{client: dialTLS(t, h)}
	r.connect(h.Device(device), cleanSession)
	r.subscribe(0, "$iothub/methods/POST/#")
	go func() {
		for {
			p, err := packets.ReadPacket(r)
			if err != nil {
				return
			}
			m, ok := p.(*packets.PublishPacket)
			if !ok {
				continue
			}
			r.calls.Add(1)
			if called != nil {
				called <- device
			}
			if status == 0 {
				continue
			}
			if publishPacket(0, 0, fmt.Sprintf("$iothub/methods/res/%d/?$rid=%s", status, ridOf(m)), body).Write(r) != nil {
				return
			}
		}
	}()
	return r
}

func methodJob(id, condition string) hub.JobSpec {
	return hub.JobSpec{ID: id, Type: hub.JobMethod, Condition: condition, Method: &hub.MethodCall{
		Name: "reboot", Payload: json.RawMessage(`{"delay":5}`), ResponseTimeout: 30 * time.Second,
	}}
}

func twinJob(id, condition, desired string) hub.JobSpec {
	return hub.JobSpec{ID: id, Type: hub.JobTwin, Condition: condition, Twin: &hub.TwinChange{Desired: json.RawMessage(desired)}}
}

func createJob(t testing.TB, s *hub.Server, spec hub.JobSpec) hub.Job {
	t.Helper()
	job, err := s.CreateJob(spec)
	if err != nil {
		t.Fatalf("create job %s: %v", spec.ID, err)
	}
	return job
}

func waitJob(t testing.TB, s *hub.Server, id string) hub.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	job, err := s.WaitJob(ctx, id)
	if err != nil {
		t.Fatalf("wait for job %s, which is %+v: %v", id, job, err)
	}
	return job
}

// outcomes returns the status, answer or error of each device of a job.
func outcomes(t testing.TB, s *hub.Server, job string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := s.JobDevices(job, func(row json.RawMessage) error {
		var d struct {
			DeviceID, Status string
			Outcome          struct {
				DeviceMethodResponse *struct {
					Status  int
					Payload json.RawMessage
				}
			}
			Error    *struct{ Code, Description string }
			Repeated bool
		}
		if err := json.Unmarshal(row, &d); err != nil {
			return fmt.Errorf("%s: %w", row, err)
		}
		text := d.Status
		if r := d.Outcome.DeviceMethodResponse; r != nil {
			text += fmt.Sprintf(" %d %s", r.Status, r.Payload)
		}
		if d.Error != nil {
			text += " " + d.Error.Code
		}
		if d.Repeated {
			text += " repeated"
		}
		all[d.DeviceID] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantOutcomes(t testing.TB, s *hub.Server, job string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, outcomes(t, s, job)); diff != "" {
		t.Errorf("devices of %s (-want +got):\n%s", job, diff)
	}
}

func TestMethodJobCallsEveryDevice(t *testing.T) {
	h := hubtest.New(t)
	respond(t, h, "good", 200, `{"ok":true}`, nil)
	respond(t, h, "bad", 500, `"no"`, nil)
	h.Device("offline")
	create(t, h.Server, hub.ID{Device: "disabled"}, hub.IdentitySpec{Status: hub.StatusDisabled})

	created := createJob(t, h.Server, methodJob("job-1", "*"))
	if created.Status != hub.JobQueued {
		t.Errorf("the new job is %s, want queued", created.Status)
	}
	job := waitJob(t, h.Server, "job-1")
	want := created
	want.Status, want.Statistics = hub.JobCompleted, &hub.JobStatistics{Devices: 4, Failed: 2, Succeeded: 2}
	if diff := cmp.Diff(want, job, cmpopts.IgnoreFields(hub.Job{}, "Started", "Ended")); diff != "" {
		t.Errorf("the job at its end (-want +got):\n%s", diff)
	}
	// A device that answers with a status of its own has answered.
	wantOutcomes(t, h.Server, "job-1", map[string]string{
		"good": `completed 200 {"ok":true}`, "bad": `completed 500 "no"`,
		"offline": "failed DeviceNotOnline", "disabled": "failed DeviceNotFound",
	})
}

func TestTwinJobUpdatesDevicesThatAreOffline(t *testing.T) {
	s := newServer(t, hub.Options{})
	for n := range 1200 {
		create(t, s, hub.ID{Device: fmt.Sprintf("dev-%04d", n)}, hub.IdentitySpec{})
	}
	full := `{"a":"` + strings.Repeat("x", 4000) + `"}`
	for k := range 8 {
		if _, err := s.PatchTwin(hub.ID{Device: "dev-0007"}, hub.TwinChange{Desired: json.RawMessage(strings.Replace(full, "a", fmt.Sprint("a", k), 1))}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	createJob(t, s, twinJob("job-1", "*", `{"b":"`+strings.Repeat("y", 2000)+`"}`))
	job := waitJob(t, s, "job-1")
	if diff := cmp.Diff(&hub.JobStatistics{Devices: 1200, Succeeded: 1199, Failed: 1}, job.Statistics); diff != "" {
		t.Errorf("statistics (-want +got):\n%s", diff)
	}
	all := outcomes(t, s, "job-1")
	if got := all["dev-0007"]; got != "failed DeviceModelMaxPropertiesExceeded" {
		t.Errorf("the device whose twin is full: %s", got)
	}
	if got := all["dev-1199"]; got != "completed" {
		t.Errorf("the last device: %s", got)
	}
	v, err := s.Twin(hub.ID{Device: "dev-1199"})
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := v.MarshalJSON(); !strings.Contains(string(text), "yyyy") {
		t.Errorf("the twin is %s", text)
	}
}

func TestJobWaitsForDevicesToConnect(t *testing.T) {
	h := hubtest.New(t)
	h.Device("late")
	spec := methodJob("job-1", "*")
	spec.Method.ConnectTimeout = time.Minute
	createJob(t, h.Server, spec)
	respond(t, h, "late", 200, "1", nil)
	waitJob(t, h.Server, "job-1")
	wantOutcomes(t, h.Server, "job-1", map[string]string{"late": "completed 200 1"})
}

func TestJobStartsAtItsTime(t *testing.T) {
	h := hubtest.New(t)
	d := respond(t, h, "dev", 200, "1", nil)
	spec := methodJob("job-1", "*")
	spec.Start = time.Now().Add(300 * time.Millisecond)
	if job := createJob(t, h.Server, spec); job.Status != hub.JobQueued {
		t.Errorf("the new job is %s, want queued", job.Status)
	}
	job, err := h.Job("job-1")
	if err != nil || job.Status != hub.JobScheduled {
		t.Errorf("before its time the job is %s, want scheduled: %v", job.Status, err)
	}
	job = waitJob(t, h.Server, "job-1")
	if job.Status != hub.JobCompleted || job.Started.Before(spec.Start) || d.calls.Load() != 1 {
		t.Errorf("after its time the job is %+v with %d calls", job, d.calls.Load())
	}
}

func TestJobEndsWithItsExecutionTime(t *testing.T) {
	h := hubtest.New(t)
	respond(t, h, "silent", 0, "", nil)
	h.Device("offline")
	spec := methodJob("job-1", "*")
	spec.MaxTime, spec.Method.ConnectTimeout = time.Second, time.Minute
	createJob(t, h.Server, spec)
	job := waitJob(t, h.Server, "job-1")
	if diff := cmp.Diff(&hub.JobStatistics{Devices: 2, Failed: 2}, job.Statistics); diff != "" || job.Status != hub.JobCompleted {
		t.Errorf("the job is %s, statistics (-want +got):\n%s", job.Status, diff)
	}
	wantOutcomes(t, h.Server, "job-1", map[string]string{"silent": "failed GatewayTimeout", "offline": "failed GatewayTimeout"})
}

func TestCancelledJobReachesNoMoreDevices(t *testing.T) {
	h := hubtest.New(t)
	called := make(chan string, 1)
	d := respond(t, h, "silent", 0, "", called)
	h.Device("offline")
	spec := methodJob("job-1", "*")
	spec.Method.ConnectTimeout = time.Minute
	createJob(t, h.Server, spec)
	<-called
	job, err := h.CancelJob("job-1")
	if err != nil || job.Status != hub.JobCancelled {
		t.Fatalf("cancel: %+v, %v", job, err)
	}
	d.Close() // ends the call that was on its way
	job = waitJob(t, h.Server, "job-1")
	if diff := cmp.Diff(&hub.JobStatistics{Devices: 2, Failed: 2}, job.Statistics); diff != "" || job.Status != hub.JobCancelled {
		t.Errorf("the job is %s, statistics (-want +got):\n%s", job.Status, diff)
	}
	wantOutcomes(t, h.Server, "job-1", map[string]string{"silent": "failed DeviceNotOnline", "offline": "canceled"})
	if _, err := h.CancelJob("job-1"); !errors.Is(err, hub.ErrInvalidOperation) {
		t.Errorf("cancel again: %v, want %v", err, hub.ErrInvalidOperation)
	}

	spec = methodJob("job-2", "*")
	spec.Start = time.Now().Add(time.Hour)
	createJob(t, h.Server, spec)
	if job, err = h.CancelJob("job-2"); err != nil || job.Status != hub.JobCancelled || job.Ended.IsZero() {
		t.Errorf("cancel of a scheduled job: %+v, %v", job, err)
	}
	wantOutcomes(t, h.Server, "job-2", map[string]string{})
}

func TestOnlySoManyJobsRun(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(hub.Options{MaxJobs: 1}))
	called := make(chan string, 1)
	d := respond(t, h, "silent", 0, "", called)
	createJob(t, h.Server, methodJob("job-1", "*"))
	<-called
	if _, err := h.CreateJob(methodJob("job-2", "*")); !errors.Is(err, hub.ErrTooManyJobs) {
		t.Errorf("a second job: %v, want %v", err, hub.ErrTooManyJobs)
	}
	if _, err := h.Job("job-2"); !errors.Is(err, hub.ErrJobNotFound) {
		t.Errorf("the job that was refused: %v, want %v", err, hub.ErrJobNotFound)
	}
	// A job for later is taken, and waits for its place when its time has come.
	later := twinJob("job-3", "*", `{"a":1}`)
	later.Start = time.Now().Add(10 * time.Millisecond)
	createJob(t, h.Server, later)
	d.Close()
	if job := waitJob(t, h.Server, "job-3"); job.Status != hub.JobCompleted {
		t.Errorf("the job for later is %+v", job)
	}
	first, err := h.Job("job-1")
	if err != nil || first.Ended.IsZero() {
		t.Errorf("the first job is %+v: %v", first, err)
	}
}

func TestOnlySoManyJobsAreForLater(t *testing.T) {
	s := newServer(t, hub.Options{})
	create(t, s, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	job := twinJob("more", "*", `{"a":1}`)
	job.Start = time.Now().Add(time.Hour)
	for n := range 1000 {
		one := job
		one.ID = fmt.Sprint("job-", n)
		createJob(t, s, one)
	}
	if _, err := s.CreateJob(job); !errors.Is(err, hub.ErrJobQuota) {
		t.Errorf("one more job for later: %v, want %v", err, hub.ErrJobQuota)
	}
	if _, err := s.Job("more"); !errors.Is(err, hub.ErrJobNotFound) {
		t.Errorf("the job that was refused: %v, want %v", err, hub.ErrJobNotFound)
	}
	createJob(t, s, twinJob("now", "*", `{"a":1}`))
	if now := waitJob(t, s, "now"); now.Status != hub.JobCompleted {
		t.Errorf("a job that starts at once is %+v", now)
	}
	if _, err := s.CancelJob("job-7"); err != nil {
		t.Fatal(err)
	}
	createJob(t, s, job)
}

func TestJobsAreForgottenAfterThirtyDays(t *testing.T) {
	var days atomic.Int64
	s := newServer(t, hub.Options{Now: func() time.Time { return restNow.AddDate(0, 0, int(days.Load())) }})
	create(t, s, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	createJob(t, s, twinJob("old", "*", `{"a":1}`))
	waitJob(t, s, "old")
	later := twinJob("later", "*", `{"a":2}`)
	later.Start = restNow.AddDate(0, 0, 300)
	createJob(t, s, later)
	days.Store(30)
	createJob(t, s, twinJob("new", "*", `{"a":3}`))
	waitJob(t, s, "new")
	purge := func(want ...string) {
		t.Helper()
		if err := s.PurgeJobs(); err != nil {
			t.Fatal(err)
		}
		var got []string
		if err := s.Jobs(hub.JobFilter{}, "", func(job hub.Job) error { got = append(got, job.ID); return nil }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("jobs on day %d (-want +got):\n%s", days.Load(), diff)
		}
	}
	purge("later", "new", "old")
	wantOutcomes(t, s, "old", map[string]string{"dev": "completed"})
	days.Store(31)
	purge("later", "new")
	page, err := s.Query(t.Context(), "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'old'", 0, "")
	if err != nil || page.Rows != 0 {
		t.Errorf("the results of the job that is forgotten: %s, %v", page.Body, err)
	}
	days.Store(61)
	purge("later")
}

func TestJobResumesAfterARestart(t *testing.T) {
	dir := t.TempDir()
	called := make(chan string, 10)
	spec := methodJob("job-1", "*")
	t.Run("before", func(t *testing.T) {
		h := hubtest.New(t, hubtest.WithOptions(hub.Options{Data: dir}))
		respond(t, h, "done", 200, `"first"`, called)
		respond(t, h, "unknown", 0, "", called)
		h.Device("waiting")
		spec.Method.ConnectTimeout = 10 * time.Second
		createJob(t, h.Server, spec)
		for range 2 {
			<-called
		}
		for outcomes(t, h.Server, "job-1")["done"] != `completed 200 "first"` {
			if t.Context().Err() != nil {
				t.Fatal("the first device never gets its outcome")
			}
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	})
	h := hubtest.New(t, hubtest.WithOptions(hub.Options{Data: dir}))
	done := respond(t, h, "done", 200, `"second"`, nil)
	unknown := respond(t, h, "unknown", 200, `"second"`, nil)
	waiting := respond(t, h, "waiting", 200, `"second"`, nil)
	job := waitJob(t, h.Server, "job-1")
	if diff := cmp.Diff(&hub.JobStatistics{Devices: 3, Succeeded: 3}, job.Statistics); diff != "" || job.Status != hub.JobCompleted {
		t.Errorf("the job is %s, statistics (-want +got):\n%s", job.Status, diff)
	}
	wantOutcomes(t, h.Server, "job-1", map[string]string{
		"done": `completed 200 "first"`, "unknown": `completed 200 "second" repeated`, "waiting": `completed 200 "second"`,
	})
	if got := []int64{done.calls.Load(), unknown.calls.Load(), waiting.calls.Load()}; !cmp.Equal(got, []int64{0, 1, 1}) {
		t.Errorf("calls after the restart: %d, want 0, 1 and 1", got)
	}
	if _, err := h.CreateJob(spec); !errors.Is(err, hub.ErrJobAlreadyExists) {
		t.Errorf("the same job again: %v, want %v", err, hub.ErrJobAlreadyExists)
	}
}

func TestShutdownLetsCallsOfJobsFinish(t *testing.T) {
	dir := t.TempDir()
	t.Run("before", func(t *testing.T) {
		called := make(chan string, 1)
		h := hubtest.New(t, hubtest.WithOptions(hub.Options{Data: dir}))
		d := dialTLS(t, h)
		d.connect(h.Device("dev"), cleanSession)
		d.subscribe(0, "$iothub/methods/POST/#")
		createJob(t, h.Server, methodJob("job-1", "*"))
		p := receive[*packets.PublishPacket](d)
		shut := make(chan error, 1)
		go func() { shut <- h.Shutdown(t.Context()) }()
		select {
		case err := <-shut:
			t.Fatalf("Shutdown does not wait for the call: %v", err)
		case called <- "":
		}
		d.send(publishPacket(0, 0, "$iothub/methods/res/200/?$rid="+ridOf(p), "1"))
		if err := <-shut; err != nil {
			t.Error(err)
		}
	})
	s := newServer(t, hub.Options{Data: dir})
	waitJob(t, s, "job-1")
	wantOutcomes(t, s, "job-1", map[string]string{"dev": "completed 200 1"})
}

func TestJobHistoryIsKeptForThirtyDays(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	open := func() *hub.Server {
		return newServer(t, hub.Options{Data: dir, Now: func() time.Time { return now }})
	}
	s := open()
	create(t, s, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	createJob(t, s, twinJob("job-1", "*", `{"a":1}`))
	waitJob(t, s, "job-1")
	for _, tt := range []struct {
		age  time.Duration
		want error
	}{{29 * 24 * time.Hour, nil}, {31 * 24 * time.Hour, hub.ErrJobNotFound}} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		now = time.Now().Add(tt.age)
		s = open()
		// The hub forgets old jobs before it starts new ones.
		createJob(t, s, twinJob(fmt.Sprint("job-", tt.age), "*", `{"a":1}`))
		waitJob(t, s, fmt.Sprint("job-", tt.age))
		if _, err := s.Job("job-1"); !errors.Is(err, tt.want) {
			t.Errorf("after %v: %v, want %v", tt.age, err, tt.want)
		}
	}
}

func TestBadJobsAreRefused(t *testing.T) {
	s := newServer(t, hub.Options{})
	good := func(change func(*hub.JobSpec)) hub.JobSpec {
		spec := methodJob("job-1", "*")
		change(&spec)
		return spec
	}
	for name, tt := range map[string]struct {
		spec hub.JobSpec
		want error
	}{
		"an id with a slash":         {good(func(j *hub.JobSpec) { j.ID = "a/b" }), hub.ErrArgumentInvalid},
		"the id of a route":          {good(func(j *hub.JobSpec) { j.ID = "query" }), hub.ErrArgumentInvalid},
		"no condition":               {good(func(j *hub.JobSpec) { j.Condition = "" }), hub.ErrArgumentInvalid},
		"a condition that is huge":   {good(func(j *hub.JobSpec) { j.Condition = strings.Repeat("x", 8193) }), hub.ErrPreconditionFailed},
		"a type of the preview":      {good(func(j *hub.JobSpec) { j.Type = "scheduleDirectMethod" }), hub.ErrGenericBadRequest},
		"a negative execution time":  {good(func(j *hub.JobSpec) { j.MaxTime = -1 }), hub.ErrArgumentInvalid},
		"no method":                  {good(func(j *hub.JobSpec) { j.Method = nil }), hub.ErrArgumentInvalid},
		"a method without a name":    {good(func(j *hub.JobSpec) { j.Method.Name = "" }), hub.ErrArgumentNull},
		"no twin patch":              {good(func(j *hub.JobSpec) { j.Type = hub.JobTwin }), hub.ErrArgumentInvalid},
		"a twin patch no twin takes": {twinJob("job-1", "*", `{"a.b":1}`), hub.ErrArgumentInvalid},
		"a twin patch that is huge":  {twinJob("job-1", "*", `{"a":"`+strings.Repeat("x", 5000)+`"}`), hub.ErrArgumentInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.CreateJob(tt.spec); !errors.Is(err, tt.want) {
				t.Errorf("CreateJob: %v, want %v", err, tt.want)
			}
		})
	}
	if err := s.Jobs(hub.JobFilter{}, "", func(j hub.Job) error { return fmt.Errorf("job %s is there", j.ID) }); err != nil {
		t.Error(err)
	}
}

func TestJobChoosesItsDevices(t *testing.T) {
	s := newServer(t, hub.Options{})
	for _, device := range []string{"dev-1", "dev-2", "dev-3", "Dev-1"} {
		create(t, s, hub.ID{Device: device}, hub.IdentitySpec{})
	}
	if _, err := s.PatchTwin(hub.ID{Device: "dev-2"}, hub.TwinChange{Tags: json.RawMessage(`{"building":9}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	for condition, want := range map[string][]string{
		"*":                                {"Dev-1", "dev-1", "dev-2", "dev-3"},
		"tags.building = 9":                {"dev-2"},
		"DeviceId IN ['dev-3', 'dev-1']":   {"dev-1", "dev-3"},
		"STARTSWITH(deviceId, 'dev')":      {"dev-1", "dev-2", "dev-3"},
		"deviceId = 'dev-1' AND tags.x=1":  nil,
		"deviceId > 'dev-1'":               {"dev-2", "dev-3"},
		"IS_DEFINED(DeviceId)":             {"Dev-1", "dev-1", "dev-2", "dev-3"},
		"connectionState = 'Disconnected'": {"Dev-1", "dev-1", "dev-2", "dev-3"},
		"false":                            nil,
	} {
		t.Run(condition, func(t *testing.T) {
			id := fmt.Sprintf("job-%x", condition)
			createJob(t, s, twinJob(id, condition, `{"a":1}`))
			if job := waitJob(t, s, id); job.Status != hub.JobCompleted {
				t.Errorf("the job is %+v", job)
			}
			got := slices.Sorted(maps.Keys(outcomes(t, s, id)))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJobWithABadConditionFails(t *testing.T) {
	s := newServer(t, hub.Options{})
	for condition, want := range map[string]string{
		"SELECT * FROM devices":      "SQL query parse failed due to following errors: ",
		"STARTS_WITH(deviceId, 'a')": "STARTS_WITH",
		"tags.a =":                   "SQL query parse failed due to following errors: ",
	} {
		id := fmt.Sprintf("job-%x", condition)
		createJob(t, s, twinJob(id, condition, `{"a":1}`))
		job := waitJob(t, s, id)
		if job.Status != hub.JobFailed || !strings.Contains(job.FailureReason, want) || job.Ended.IsZero() {
			t.Errorf("%s: the job is %+v, want failed with %q", condition, job, want)
		}
	}
}
