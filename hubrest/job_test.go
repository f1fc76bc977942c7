package hubrest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubrest"
)

func TestARealHubRunsJobs(t *testing.T) {
	ctx := t.Context()
	h := hubtest.New(t)
	h.Device("dev1")
	h.Device("dev2")
	c := newHubClient(t, h, "service")

	created, err := c.CreateJob(ctx, hubrest.JobRequest{ID: "job#1", Condition: "deviceId = 'dev1'", Twin: &hubrest.TwinChange{Tags: map[string]any{"ring": 2}, Desired: json.RawMessage(`{"a":1}`)}})
	if err != nil || created.Status != hubrest.JobQueued {
		t.Fatalf("CreateJob: %+v, %v", created, err)
	}
	if _, err := h.Jobs.Wait(ctx, "job#1"); err != nil {
		t.Fatal(err)
	}
	job, err := c.Job(ctx, "job#1")
	if diff := cmp.Diff(&hubrest.JobStatistics{Devices: 1, Succeeded: 1}, job.Statistics); diff != "" || err != nil || !job.Status.Ended() || job.End.IsZero() {
		t.Errorf("Job: %+v, %v (-want +got):\n%s", job, err, diff)
	}
	if twin, err := c.Twin(ctx, hubrest.Target{DeviceID: "dev1"}); err != nil || string(twin.Tags) != `{"ring":2}` {
		t.Errorf("the twin has the tags %s: %v", twin.Tags, err)
	}
	if _, err := c.CreateJob(ctx, hubrest.JobRequest{ID: "job#1", Condition: "*", Method: &hubrest.Method{Name: "m"}}); !errors.Is(err, hubrest.ErrAlreadyExists) {
		t.Errorf("CreateJob again: %v, want ErrAlreadyExists", err)
	}

	later := hubrest.JobRequest{ID: "job#2", Condition: "*", Method: &hubrest.Method{Name: "m", Payload: 1}, Start: time.Now().Add(time.Hour), MaxTime: time.Minute}
	if _, err := c.CreateJob(ctx, later); err != nil {
		t.Fatal(err)
	}
	if job, err = c.CancelJob(ctx, "job#2"); err != nil || job.Status != hubrest.JobCancelled || job.MaxTime != 60 || !job.Start.Equal(later.Start.Round(0).UTC().Truncate(100*time.Nanosecond)) {
		t.Errorf("CancelJob: %+v, %v", job, err)
	}
	var refusal *hubrest.Error
	if _, err := c.CancelJob(ctx, "job#2"); !errors.As(err, &refusal) || refusal.Name != "OperationNotAllowedInCurrentState" {
		t.Errorf("CancelJob again: %v, want OperationNotAllowedInCurrentState", err)
	}
	if _, err := c.Job(ctx, "job#3"); !errors.Is(err, hubrest.ErrNotFound) {
		t.Errorf("Job of none: %v, want ErrNotFound", err)
	}

	var ids []string
	for job, err := range c.Jobs(ctx, hubrest.JobMethod, hubrest.JobCancelled) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, job.ID)
	}
	if diff := cmp.Diff([]string{"job#2"}, ids); diff != "" {
		t.Errorf("Jobs (-want +got):\n%s", diff)
	}
}

func TestAJobNeedsOneThingToDo(t *testing.T) {
	c := newHubClient(t, hubtest.New(t), "service")
	for name, r := range map[string]hubrest.JobRequest{
		"nothing": {ID: "job", Condition: "*"},
		"both":    {ID: "job", Condition: "*", Method: &hubrest.Method{Name: "m"}, Twin: &hubrest.TwinChange{}},
	} {
		if job, err := c.CreateJob(t.Context(), r); err == nil {
			t.Errorf("CreateJob with %s to do: %+v, want an error", name, job)
		}
	}
}

// TestJobDevicesReadsDocumentedRows answers with the rows of "Query IoT Hub jobs".
func TestJobDevicesReadsDocumentedRows(t *testing.T) {
	const rows = `[{"deviceId":"d1","jobId":"it's","jobType":"scheduleDeviceMethod","status":"completed","startTimeUtc":"2026-01-04T15:53:00.2Z","endTimeUtc":"2026-01-04T15:53:01.4Z","createdDateTimeUtc":"2026-01-04T15:50:00Z","lastUpdatedDateTimeUtc":"2026-01-04T15:53:01.4Z","outcome":{"deviceMethodResponse":{"status":200,"payload":{"ok":true}}}},
		{"deviceId":"d2","jobId":"it's","jobType":"scheduleUpdateTwin","status":"failed","startTimeUtc":"0001-01-01T00:00:00","outcome":{"deviceMethodResponse":null},"error":{"code":"DeviceNotOnline","description":"The device is not connected."},"repeated":true}]`
	var query string
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var q struct{ Query string }
		if err := json.Unmarshal(body, &q); err != nil {
			t.Error(err)
		}
		query = q.Query
		fmt.Fprint(w, rows)
	})
	var got []string
	for d, err := range c.JobDevices(t.Context(), "it's", "devices.jobs.status = 'failed'") {
		if err != nil {
			t.Fatal(err)
		}
		text := d.DeviceID + " " + d.Status
		if d.Outcome.Method != nil {
			text += fmt.Sprintf(" %d %s", d.Outcome.Method.Status, d.Outcome.Method.Payload)
		}
		if d.Error != nil {
			text += " " + d.Error.Code
		}
		got = append(got, fmt.Sprint(text, " ", d.Repeated))
	}
	if diff := cmp.Diff([]string{`d1 completed 200 {"ok":true} false`, "d2 failed DeviceNotOnline true"}, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if want := `SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'it\'s' AND (devices.jobs.status = 'failed')`; query != want {
		t.Errorf("the query is %s\nwant         %s", query, want)
	}
}
