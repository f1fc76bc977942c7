package jobs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/node"
)

func methodJob(id, condition string) jobs.Spec {
	return jobs.Spec{ID: id, Type: jobs.Method, Condition: condition, Method: &hub.MethodCall{
		Name: "reboot", Payload: json.RawMessage(`{"delay":5}`), ResponseTimeout: 30 * time.Second,
	}}
}

func TestMethodJobCallsEveryDevice(t *testing.T) {
	h := hubtest.New(t)
	wiretest.Respond(t, h, "good", 200, `{"ok":true}`, nil)
	wiretest.Respond(t, h, "bad", 500, `"no"`, nil)
	wiretest.Respond(t, h, "odd", 200, "{'a':\"\xff", nil)
	h.Device("offline")
	wiretest.Create(t, h.Node, hub.ID{Device: "disabled"}, hub.IdentitySpec{Status: hub.StatusDisabled})

	created := wiretest.CreateJob(t, h.Node, methodJob("job-1", "*"))
	if created.Status != jobs.Queued {
		t.Errorf("the new job is %s, want queued", created.Status)
	}
	job := wiretest.WaitJob(t, h.Node, "job-1")
	want := created
	want.Status, want.Statistics = jobs.Completed, &jobs.Statistics{Devices: 5, Failed: 2, Succeeded: 3}
	if diff := cmp.Diff(want, job, cmpopts.IgnoreFields(jobs.Job{}, "Started", "Ended")); diff != "" {
		t.Errorf("the job at its end (-want +got):\n%s", diff)
	}
	// A device that answers with a status of its own has answered, and so has one
	// whose answer is not JSON: the row has it as a text.
	wiretest.WantOutcomes(t, h.Node, "job-1", map[string]string{
		"good": `completed 200 {"ok":true}`, "bad": `completed 500 "no"`, "odd": `completed 200 "{'a':\"\ufffd"`,
		"offline": "failed DeviceNotOnline", "disabled": "failed DeviceNotFound",
	})
}

func TestTwinJobUpdatesDevicesThatAreOffline(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	for n := range 1200 {
		wiretest.Create(t, s, hub.ID{Device: fmt.Sprintf("dev-%04d", n)}, hub.IdentitySpec{})
	}
	full := `{"a":"` + strings.Repeat("x", 4000) + `"}`
	for k := range 8 {
		if _, err := s.PatchTwin(hub.ID{Device: "dev-0007"}, hub.TwinChange{Desired: json.RawMessage(strings.Replace(full, "a", fmt.Sprint("a", k), 1))}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	wiretest.CreateJob(t, s, wiretest.TwinJob("job-1", "*", `{"b":"`+strings.Repeat("y", 2000)+`"}`))
	job := wiretest.WaitJob(t, s, "job-1")
	if diff := cmp.Diff(&jobs.Statistics{Devices: 1200, Succeeded: 1199, Failed: 1}, job.Statistics); diff != "" {
		t.Errorf("statistics (-want +got):\n%s", diff)
	}
	all := wiretest.Outcomes(t, s, "job-1")
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
	wiretest.CreateJob(t, h.Node, spec)
	wiretest.Respond(t, h, "late", 200, "1", nil)
	wiretest.WaitJob(t, h.Node, "job-1")
	wiretest.WantOutcomes(t, h.Node, "job-1", map[string]string{"late": "completed 200 1"})
}

func TestJobStartsAtItsTime(t *testing.T) {
	h := hubtest.New(t)
	d := wiretest.Respond(t, h, "dev", 200, "1", nil)
	spec := methodJob("job-1", "*")
	spec.Start = time.Now().Add(300 * time.Millisecond)
	if job := wiretest.CreateJob(t, h.Node, spec); job.Status != jobs.Queued {
		t.Errorf("the new job is %s, want queued", job.Status)
	}
	job, err := h.Jobs.Get("job-1")
	if err != nil || job.Status != jobs.Scheduled {
		t.Errorf("before its time the job is %s, want scheduled: %v", job.Status, err)
	}
	job = wiretest.WaitJob(t, h.Node, "job-1")
	if job.Status != jobs.Completed || job.Started.Before(spec.Start) || d.Calls.Load() != 1 {
		t.Errorf("after its time the job is %+v with %d calls", job, d.Calls.Load())
	}
}

func TestJobEndsWithItsExecutionTime(t *testing.T) {
	h := hubtest.New(t)
	wiretest.Respond(t, h, "silent", 0, "", nil)
	h.Device("offline")
	spec := methodJob("job-1", "*")
	spec.MaxTime, spec.Method.ConnectTimeout = time.Second, time.Minute
	wiretest.CreateJob(t, h.Node, spec)
	job := wiretest.WaitJob(t, h.Node, "job-1")
	if diff := cmp.Diff(&jobs.Statistics{Devices: 2, Failed: 2}, job.Statistics); diff != "" || job.Status != jobs.Completed {
		t.Errorf("the job is %s, statistics (-want +got):\n%s", job.Status, diff)
	}
	wiretest.WantOutcomes(t, h.Node, "job-1", map[string]string{"silent": "failed GatewayTimeout", "offline": "failed GatewayTimeout"})
}

func TestCancelledJobReachesNoMoreDevices(t *testing.T) {
	h := hubtest.New(t)
	called := make(chan string, 1)
	d := wiretest.Respond(t, h, "silent", 0, "", called)
	h.Device("offline")
	spec := methodJob("job-1", "*")
	spec.Method.ConnectTimeout = time.Minute
	wiretest.CreateJob(t, h.Node, spec)
	<-called
	job, err := h.Jobs.Cancel("job-1")
	if err != nil || job.Status != jobs.Cancelled {
		t.Fatalf("cancel: %+v, %v", job, err)
	}
	d.Close() // ends the call that was on its way
	job = wiretest.WaitJob(t, h.Node, "job-1")
	if diff := cmp.Diff(&jobs.Statistics{Devices: 2, Failed: 2}, job.Statistics); diff != "" || job.Status != jobs.Cancelled {
		t.Errorf("the job is %s, statistics (-want +got):\n%s", job.Status, diff)
	}
	wiretest.WantOutcomes(t, h.Node, "job-1", map[string]string{"silent": "failed DeviceNotOnline", "offline": "canceled"})
	if _, err := h.Jobs.Cancel("job-1"); !errors.Is(err, hub.ErrNotInCurrentState) {
		t.Errorf("cancel again: %v, want %v", err, hub.ErrNotInCurrentState)
	}

	spec = methodJob("job-2", "*")
	spec.Start = time.Now().Add(time.Hour)
	wiretest.CreateJob(t, h.Node, spec)
	if job, err = h.Jobs.Cancel("job-2"); err != nil || job.Status != jobs.Cancelled || job.Ended.IsZero() {
		t.Errorf("cancel of a scheduled job: %+v, %v", job, err)
	}
	wiretest.WantOutcomes(t, h.Node, "job-2", map[string]string{})
}

func TestOnlySoManyJobsRun(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{MaxJobs: 1}))
	called := make(chan string, 1)
	d := wiretest.Respond(t, h, "silent", 0, "", called)
	wiretest.CreateJob(t, h.Node, methodJob("job-1", "*"))
	<-called
	if _, err := h.Jobs.Create(methodJob("job-2", "*")); !errors.Is(err, hub.ErrTooManyJobs) {
		t.Errorf("a second job: %v, want %v", err, hub.ErrTooManyJobs)
	}
	if _, err := h.Jobs.Get("job-2"); !errors.Is(err, hub.ErrJobNotFound) {
		t.Errorf("the job that was refused: %v, want %v", err, hub.ErrJobNotFound)
	}
	// A job for later is taken, and waits for its place when its time has come.
	later := wiretest.TwinJob("job-3", "*", `{"a":1}`)
	later.Start = time.Now().Add(10 * time.Millisecond)
	wiretest.CreateJob(t, h.Node, later)
	d.Close()
	if job := wiretest.WaitJob(t, h.Node, "job-3"); job.Status != jobs.Completed {
		t.Errorf("the job for later is %+v", job)
	}
	first, err := h.Jobs.Get("job-1")
	if err != nil || first.Ended.IsZero() {
		t.Errorf("the first job is %+v: %v", first, err)
	}
}

func TestOnlySoManyJobsAreForLater(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	wiretest.Create(t, s, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	job := wiretest.TwinJob("more", "*", `{"a":1}`)
	job.Start = time.Now().Add(time.Hour)
	for n := range 1000 {
		one := job
		one.ID = fmt.Sprint("job-", n)
		wiretest.CreateJob(t, s, one)
	}
	if _, err := s.Jobs.Create(job); !errors.Is(err, hub.ErrJobQuota) {
		t.Errorf("one more job for later: %v, want %v", err, hub.ErrJobQuota)
	}
	if _, err := s.Jobs.Get("more"); !errors.Is(err, hub.ErrJobNotFound) {
		t.Errorf("the job that was refused: %v, want %v", err, hub.ErrJobNotFound)
	}
	wiretest.CreateJob(t, s, wiretest.TwinJob("now", "*", `{"a":1}`))
	if now := wiretest.WaitJob(t, s, "now"); now.Status != jobs.Completed {
		t.Errorf("a job that starts at once is %+v", now)
	}
	if _, err := s.Jobs.Cancel("job-7"); err != nil {
		t.Fatal(err)
	}
	wiretest.CreateJob(t, s, job)
}

func TestJobsAreForgottenAfterThirtyDays(t *testing.T) {
	now := clock.Stopped(wiretest.Now)
	s := wiretest.NewNode(t, node.Options{Clock: now})
	wiretest.Create(t, s, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	wiretest.CreateJob(t, s, wiretest.TwinJob("old", "*", `{"a":1}`))
	wiretest.WaitJob(t, s, "old")
	later := wiretest.TwinJob("later", "*", `{"a":2}`)
	later.Start = wiretest.Now.AddDate(0, 0, 300)
	wiretest.CreateJob(t, s, later)
	now.Advance(30 * 24 * time.Hour)
	wiretest.CreateJob(t, s, wiretest.TwinJob("new", "*", `{"a":3}`))
	wiretest.WaitJob(t, s, "new")
	purge := func(want ...string) {
		t.Helper()
		if err := s.Jobs.Purge(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for job, err := range s.Jobs.List(jobs.Filter{}, "") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, job.ID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("jobs on day %d (-want +got):\n%s", s.Now().Sub(wiretest.Now)/(24*time.Hour), diff)
		}
	}
	purge("later", "new", "old")
	wiretest.WantOutcomes(t, s, "old", map[string]string{"dev": "completed"})
	now.Advance(24 * time.Hour)
	purge("later", "new")
	page, err := s.Query(t.Context(), "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'old'", 0, "")
	if err != nil || page.Rows != 0 {
		t.Errorf("the results of the job that is forgotten: %s, %v", page.Body, err)
	}
	now.Advance(30 * 24 * time.Hour)
	purge("later")
}

func TestJobResumesAfterARestart(t *testing.T) {
	dir := t.TempDir()
	called := make(chan string, 10)
	spec := methodJob("job-1", "*")
	t.Run("before", func(t *testing.T) {
		h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}))
		wiretest.Respond(t, h, "done", 200, `"first"`, called)
		wiretest.Respond(t, h, "unknown", 0, "", called)
		h.Device("waiting")
		spec.Method.ConnectTimeout = 10 * time.Second
		wiretest.CreateJob(t, h.Node, spec)
		for range 2 {
			<-called
		}
		for wiretest.Outcomes(t, h.Node, "job-1")["done"] != `completed 200 "first"` {
			if t.Context().Err() != nil {
				t.Fatal("the first device never gets its outcome")
			}
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	})
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}))
	done := wiretest.Respond(t, h, "done", 200, `"second"`, nil)
	unknown := wiretest.Respond(t, h, "unknown", 200, `"second"`, nil)
	waiting := wiretest.Respond(t, h, "waiting", 200, `"second"`, nil)
	job := wiretest.WaitJob(t, h.Node, "job-1")
	if diff := cmp.Diff(&jobs.Statistics{Devices: 3, Succeeded: 3}, job.Statistics); diff != "" || job.Status != jobs.Completed {
		t.Errorf("the job is %s, statistics (-want +got):\n%s", job.Status, diff)
	}
	wiretest.WantOutcomes(t, h.Node, "job-1", map[string]string{
		"done": `completed 200 "first"`, "unknown": `completed 200 "second" repeated`, "waiting": `completed 200 "second"`,
	})
	if got := []int64{done.Calls.Load(), unknown.Calls.Load(), waiting.Calls.Load()}; !cmp.Equal(got, []int64{0, 1, 1}) {
		t.Errorf("calls after the restart: %d, want 0, 1 and 1", got)
	}
	if _, err := h.Jobs.Create(spec); !errors.Is(err, hub.ErrJobAlreadyExists) {
		t.Errorf("the same job again: %v, want %v", err, hub.ErrJobAlreadyExists)
	}
}

// What is absent and what is null are two things, also after a restart.
func TestAJobIsKeptAsItWasAskedFor(t *testing.T) {
	dir := t.TempDir()
	later := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	method := func(id string, payload json.RawMessage) jobs.Spec {
		spec := methodJob(id, "*")
		spec.Method.Payload = payload
		return spec
	}
	specs := []jobs.Spec{
		method("no-payload", nil), method("null", json.RawMessage("null")), method("a-payload", json.RawMessage(`{"a":1}`)),
		{ID: "clears", Type: jobs.Twin, Condition: "*", Twin: &hub.TwinChange{ClearDesired: true}},
		{ID: "patches", Type: jobs.Twin, Condition: "*", Twin: &hub.TwinChange{Tags: json.RawMessage(`{"a":null}`)}},
	}
	t.Run("before", func(t *testing.T) {
		s := wiretest.NewNode(t, node.Options{Storage: node.Folder(dir)})
		for i := range specs {
			specs[i].Start, specs[i].MaxTime = later, time.Hour
			wiretest.CreateJob(t, s, specs[i])
		}
	})
	s := wiretest.NewNode(t, node.Options{Storage: node.Folder(dir)})
	for _, spec := range specs {
		job, err := s.Jobs.Get(spec.ID)
		if diff := cmp.Diff(spec, job.Spec); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", spec.ID, err, diff)
		}
	}
}

func TestATwinJobClearsDesiredProperties(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	id := hub.ID{Device: "dev-1"}
	wiretest.Create(t, s, id, hub.IdentitySpec{})
	if _, err := s.PatchTwin(id, hub.TwinChange{Tags: json.RawMessage(`{"a":1}`), Desired: json.RawMessage(`{"a":{"b":1}}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.CreateJob(t, s, jobs.Spec{ID: "job-1", Type: jobs.Twin, Condition: "*", Twin: &hub.TwinChange{ClearDesired: true}})
	wiretest.WaitJob(t, s, "job-1")
	doc, err := s.DeviceTwin(id)
	if want := `{"desired":{"$version":3},"reported":{"$version":1}}`; string(doc) != want || err != nil {
		t.Errorf("the device's twin is %s, %v, want %s", doc, err, want)
	}
}

// However often the hub stops while a device is being called, that gets no more
// than two calls, even if its first was one of another hub's life.
func TestJobCallsADeviceTwiceAtMost(t *testing.T) {
	hubtest.OneNode(t, "it has a data folder")
	dir := t.TempDir()
	open := func(t *testing.T) *hubtest.Hub {
		return hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}))
	}
	devices := []string{"a", "b", "c"}
	calls := make(map[string]int64)
	const lives = 5
	for life := range lives {
		t.Run(fmt.Sprint("life ", life), func(t *testing.T) {
			h := open(t)
			called := make(chan string, len(devices))
			if life == 0 {
				spec := methodJob("job-1", "*")
				spec.MaxTime = 24 * time.Hour
				for _, device := range devices {
					h.Device(device)
				}
				spec.Method.ConnectTimeout = time.Minute
				wiretest.CreateJob(t, h.Node, spec)
			}
			// Every life another device joins, and none ever answers.
			var silent []*wiretest.Responder
			want := 0
			for n, device := range devices {
				if n > life {
					continue
				}
				silent = append(silent, wiretest.Respond(t, h, device, 0, "", called))
				if calls[device] < 2 {
					want++
				}
			}
			for range want {
				<-called
			}
			if life == lives-1 {
				job := wiretest.WaitJob(t, h.Node, "job-1")
				if diff := cmp.Diff(&jobs.Statistics{Devices: 3, Failed: 3}, job.Statistics); diff != "" || job.Status != jobs.Completed {
					t.Errorf("the job is %s, statistics (-want +got):\n%s", job.Status, diff)
				}
				wiretest.WantOutcomes(t, h.Node, "job-1", map[string]string{
					"a": "failed GatewayTimeout repeated", "b": "failed GatewayTimeout repeated", "c": "failed GatewayTimeout repeated",
				})
			}
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
			for n, d := range silent {
				calls[devices[n]] += d.Calls.Load()
			}
		})
	}
	if diff := cmp.Diff(map[string]int64{"a": 2, "b": 2, "c": 2}, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestShutdownLetsCallsOfJobsFinish(t *testing.T) {
	hubtest.OneNode(t, "it has a data folder")
	dir := t.TempDir()
	t.Run("before", func(t *testing.T) {
		called := make(chan string, 1)
		h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}))
		d := wiretest.DialTLS(t, h)
		d.Connect(h.Device("dev"), wiretest.CleanSession)
		d.Subscribe(0, "$iothub/methods/POST/#")
		wiretest.CreateJob(t, h.Node, methodJob("job-1", "*"))
		p := wiretest.Receive[*packets.PublishPacket](d)
		shut := make(chan error, 1)
		go func() { shut <- h.Shutdown(t.Context()) }()
		select {
		case err := <-shut:
			t.Fatalf("Shutdown does not wait for the call: %v", err)
		case called <- "":
		}
		d.Send(wiretest.PublishPacket(0, 0, "$iothub/methods/res/200/?$rid="+wiretest.RequestID(p), "1"))
		if err := <-shut; err != nil {
			t.Error(err)
		}
	})
	s := wiretest.NewNode(t, node.Options{Storage: node.Folder(dir)})
	wiretest.WaitJob(t, s, "job-1")
	wiretest.WantOutcomes(t, s, "job-1", map[string]string{"dev": "completed 200 1"})
}

func TestJobHistoryIsKeptForThirtyDays(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	open := func() *node.Node {
		return wiretest.NewNode(t, node.Options{Storage: node.Folder(dir), Clock: clock.Stopped(now)})
	}
	s := open()
	wiretest.Create(t, s, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	wiretest.CreateJob(t, s, wiretest.TwinJob("job-1", "*", `{"a":1}`))
	wiretest.WaitJob(t, s, "job-1")
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
		wiretest.CreateJob(t, s, wiretest.TwinJob(fmt.Sprint("job-", tt.age), "*", `{"a":1}`))
		wiretest.WaitJob(t, s, fmt.Sprint("job-", tt.age))
		if _, err := s.Jobs.Get("job-1"); !errors.Is(err, tt.want) {
			t.Errorf("after %v: %v, want %v", tt.age, err, tt.want)
		}
	}
}

func TestBadJobsAreRefused(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	good := func(change func(*jobs.Spec)) jobs.Spec {
		spec := methodJob("job-1", "*")
		change(&spec)
		return spec
	}
	for name, tt := range map[string]struct {
		spec jobs.Spec
		want error
	}{
		"an id with a slash":         {good(func(j *jobs.Spec) { j.ID = "a/b" }), hub.ErrArgumentInvalid},
		"the id of a route":          {good(func(j *jobs.Spec) { j.ID = "query" }), hub.ErrArgumentInvalid},
		"no condition":               {good(func(j *jobs.Spec) { j.Condition = "" }), hub.ErrArgumentInvalid},
		"a condition that is huge":   {good(func(j *jobs.Spec) { j.Condition = strings.Repeat("x", 8193) }), hub.ErrPreconditionFailed},
		"a type of the preview":      {good(func(j *jobs.Spec) { j.Type = "scheduleDirectMethod" }), hub.ErrGenericBadRequest},
		"a negative execution time":  {good(func(j *jobs.Spec) { j.MaxTime = -1 }), hub.ErrArgumentInvalid},
		"no method":                  {good(func(j *jobs.Spec) { j.Method = nil }), hub.ErrArgumentInvalid},
		"a method without a name":    {good(func(j *jobs.Spec) { j.Method.Name = "" }), hub.ErrArgumentNull},
		"no twin patch":              {good(func(j *jobs.Spec) { j.Type = jobs.Twin }), hub.ErrArgumentInvalid},
		"a twin patch of nothing":    {good(func(j *jobs.Spec) { j.Type, j.Twin = jobs.Twin, new(hub.TwinChange) }), hub.ErrArgumentInvalid},
		"a twin patch no twin takes": {wiretest.TwinJob("job-1", "*", `{"a.b":1}`), hub.ErrArgumentInvalid},
		"a twin patch that is huge":  {wiretest.TwinJob("job-1", "*", `{"a":"`+strings.Repeat("x", 5000)+`"}`), hub.ErrArgumentInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.Jobs.Create(tt.spec); !errors.Is(err, tt.want) {
				t.Errorf("CreateJob: %v, want %v", err, tt.want)
			}
		})
	}
	for j, err := range s.Jobs.List(jobs.Filter{}, "") {
		t.Errorf("job %s is there, %v", j.ID, err)
	}
}

func TestJobChoosesItsDevices(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	for _, device := range []string{"dev-1", "dev-2", "dev-3", "Dev-1"} {
		wiretest.Create(t, s, hub.ID{Device: device}, hub.IdentitySpec{})
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
			wiretest.CreateJob(t, s, wiretest.TwinJob(id, condition, `{"a":1}`))
			if job := wiretest.WaitJob(t, s, id); job.Status != jobs.Completed {
				t.Errorf("the job is %+v", job)
			}
			got := slices.Sorted(maps.Keys(wiretest.Outcomes(t, s, id)))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJobWithABadConditionFails(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	for condition, want := range map[string]string{
		"SELECT * FROM devices":      "SQL query parse failed due to following errors: ",
		"STARTS_WITH(deviceId, 'a')": "STARTS_WITH",
		"tags.a =":                   "SQL query parse failed due to following errors: ",
	} {
		id := fmt.Sprintf("job-%x", condition)
		wiretest.CreateJob(t, s, wiretest.TwinJob(id, condition, `{"a":1}`))
		job := wiretest.WaitJob(t, s, id)
		if job.Status != jobs.Failed || !strings.Contains(job.FailureReason, want) || job.Ended.IsZero() {
			t.Errorf("%s: the job is %+v, want failed with %q", condition, job, want)
		}
	}
}
