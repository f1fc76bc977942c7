package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/severaltest"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/store"
)

func ok(json.RawMessage) int32 { return 200 }

// connect registers so many devices, and connects them to nodes in turn.
func connect(t *testing.T, answer func(json.RawMessage) int32, devices int, nodes ...*severaltest.Node) map[string]*severaltest.Link {
	t.Helper()
	links := make(map[string]*severaltest.Link)
	for i := range devices {
		id, n := fmt.Sprintf("d%02d", i), nodes[i%len(nodes)]
		n.Create(t, id)
		links[id] = n.Attach(t, id, answer)
	}
	return links
}

// wait returns a job when it has ended.
func wait(t *testing.T, n *severaltest.Node, id string) jobs.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), severaltest.Patience)
	defer cancel()
	job, err := n.Jobs.Wait(ctx, id)
	if err != nil {
		t.Fatalf("wait for job %s: %v", id, err)
	}
	return job
}

// A jobRow is what a test reads of a row.
type jobRow struct {
	DeviceID string `json:"deviceId"`
	Status   string `json:"status"`
	Repeated bool   `json:"repeated"`
}

func rows(t *testing.T, n *severaltest.Node, id string) (list []jobRow) {
	t.Helper()
	for text, err := range n.Jobs.Devices(id) {
		var row jobRow
		if err = errors.Join(err, json.Unmarshal(text, &row)); err != nil {
			t.Fatal(err)
		}
		list = append(list, row)
	}
	return list
}

func TestAJobCallsDevicesOfAllNodes(t *testing.T) {
	c := severaltest.Start(t, 3)
	links := connect(t, ok, 9, c.Nodes...)
	created, err := c.Nodes[2].Jobs.Create(methodJob("job", "*"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Nodes[1].Jobs.Create(methodJob("job", "*")); !errors.Is(err, hub.ErrJobAlreadyExists) {
		t.Errorf("the same job on another node: %v, want %v", err, hub.ErrJobAlreadyExists)
	}
	job := wait(t, c.Nodes[2], "job")
	want := created
	want.Status, want.Statistics = jobs.Completed, &jobs.Statistics{Devices: 9, Succeeded: 9}
	if diff := cmp.Diff(want, job, cmpopts.IgnoreFields(jobs.Job{}, "Started", "Ended")); diff != "" {
		t.Errorf("the job at its end (-want +got):\n%s", diff)
	}
	for id, l := range links {
		if l.Calls() != 1 {
			t.Errorf("%s was called %d times", id, l.Calls())
		}
	}
	c.Settle(t, 1)
	for _, row := range rows(t, c.Nodes[1], "job") {
		if row.Status != "completed" || row.Repeated {
			t.Errorf("row %+v", row)
		}
	}
}

func TestAJobIsReadAndCancelledOnAnyNode(t *testing.T) {
	c := severaltest.Start(t, 3)
	called, release := make(chan struct{}, 1), make(chan struct{})
	connect(t, func(json.RawMessage) int32 {
		called <- struct{}{}
		<-release
		return 200
	}, 1, c.Nodes[1])
	c.Nodes[1].Create(t, "offline")
	spec := methodJob("job", "*")
	spec.Method.ConnectTimeout = hub.MaxMethodTimeout
	if _, err := c.Nodes[1].Jobs.Create(spec); err != nil {
		t.Fatal(err)
	}
	<-called
	running := &jobs.Statistics{Devices: 2, Running: 1, Pending: 1}
	for i, n := range c.Nodes {
		c.Settle(t, i)
		job, err := n.Jobs.Get("job")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(running, job.Statistics); diff != "" || job.Status != jobs.Running {
			t.Errorf("node %d knows the job %s, (-want +got):\n%s", i, job.Status, diff)
		}
		listed := 0
		for job, err := range n.Jobs.List(jobs.Filter{Status: jobs.Running}, "") {
			listed++
			if diff := cmp.Diff(running, job.Statistics); diff != "" || err != nil {
				t.Errorf("node %d lists the job, %v, (-want +got):\n%s", i, err, diff)
			}
		}
		if listed != 1 {
			t.Errorf("node %d lists %d jobs", i, listed)
		}
	}
	if job, err := c.Nodes[2].Jobs.Cancel("job"); err != nil || job.Status != jobs.Cancelled {
		t.Fatalf("cancel: %v, %v", job.Status, err)
	}
	close(release)
	job := wait(t, c.Nodes[2], "job")
	if want := (jobs.Statistics{Devices: 2, Succeeded: 1, Failed: 1}); job.Statistics == nil || *job.Statistics != want || job.Status != jobs.Cancelled {
		t.Errorf("the job ends %s, %+v", job.Status, job.Statistics)
	}
	if _, err := c.Nodes[1].Jobs.Cancel("job"); !errors.Is(err, hub.ErrNotInCurrentState) {
		t.Errorf("cancel again: %v, want %v", err, hub.ErrNotInCurrentState)
	}
	if _, err := c.Nodes[1].Jobs.Cancel("none"); !errors.Is(err, hub.ErrJobNotFound) {
		t.Errorf("cancel what is not there: %v, want %v", err, hub.ErrJobNotFound)
	}
}

func TestAJobGoesOnWhenItsLeaderDies(t *testing.T) {
	const devices = 12
	c := severaltest.Start(t, 3)
	var calls atomic.Int32
	half, release := make(chan struct{}), make(chan struct{})
	links := connect(t, func(json.RawMessage) int32 { // half of the calls are answered before the leader dies
		if n := calls.Add(1); n > devices/2 {
			if n == devices/2+1 {
				close(half)
			}
			<-release
		}
		return 200
	}, devices, c.Nodes[1], c.Nodes[2])
	if _, err := c.Nodes[0].Jobs.Create(methodJob("job", "*")); err != nil {
		t.Fatal(err)
	}
	<-half
	c.Kill(t, 0)
	close(release)
	job := wait(t, c.Nodes[2], "job")
	if want := (jobs.Statistics{Devices: devices, Succeeded: devices}); job.Statistics == nil || *job.Statistics != want {
		t.Errorf("the job ends %s, %+v", job.Status, job.Statistics)
	}
	c.Settle(t, 1)
	list := rows(t, c.Nodes[1], "job")
	if len(list) != devices {
		t.Errorf("%d rows", len(list))
	}
	for _, row := range list {
		n := links[row.DeviceID].Calls()
		if row.Status != "completed" || n < 1 || n > 2 || n == 2 && !row.Repeated {
			t.Errorf("row %+v, and the device was called %d times", row, n)
		}
	}
}

func TestAJobCallsOnceMoreWhenTheNodeOfADeviceIs(t *testing.T) {
	for _, test := range []struct {
		name  string
		end   func(*testing.T, *severaltest.Cluster, int)
		again bool // the second node, too
	}{
		{"killed", func(t *testing.T, c *severaltest.Cluster, i int) { c.Kill(t, i) }, false},
		{"stopped", func(_ *testing.T, c *severaltest.Cluster, i int) { c.Nodes[i].Stop() }, false},
		{"left for another", func(*testing.T, *severaltest.Cluster, int) {}, false},
		{"killed twice", func(t *testing.T, c *severaltest.Cluster, i int) { c.Kill(t, i) }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := severaltest.Start(t, 4)
			c.Nodes[0].Create(t, "d")
			called, release := make(chan struct{}, 1), make(chan struct{})
			defer close(release)
			hang := func(json.RawMessage) int32 {
				called <- struct{}{}
				<-release
				return 200
			}
			first := c.Nodes[1].Attach(t, "d", hang)
			if _, err := c.Nodes[0].Jobs.Create(methodJob("job", "*")); err != nil {
				t.Fatal(err)
			}
			<-called
			test.end(t, c, 1)
			second := ok
			if test.again {
				second = hang
			}
			next := c.Nodes[2].Attach(t, "d", second)
			want := jobRow{DeviceID: "d", Status: "completed", Repeated: true}
			if test.again {
				<-called
				test.end(t, c, 2)
				c.Nodes[3].Attach(t, "d", func(json.RawMessage) int32 { t.Error("a third call"); return 200 })
				want.Status = "failed"
			}
			wait(t, c.Nodes[0], "job")
			if diff := cmp.Diff([]jobRow{want}, rows(t, c.Nodes[0], "job")); diff != "" {
				t.Errorf("the job's row (-want +got):\n%s", diff)
			}
			if first.Calls() != 1 || next.Calls() != 1 {
				t.Errorf("the device was called %d times, and %d times when it had connected again", first.Calls(), next.Calls())
			}
		})
	}
}

func TestATwinJobChangesEachTwinOnceThoughTheLogIsSilent(t *testing.T) {
	t.Parallel() // the log is waited for as long as users do
	c := severaltest.Start(t, 2)
	c.Nodes[0].Create(t, "d")
	id := hub.ID{Device: "d"}
	before, err := c.Nodes[0].Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.Once
	err = c.Nodes[0].Subscribe(disk.Job, func(change store.Change) error {
		var job jobs.Job
		err := json.Unmarshal(change.Value, &job)
		if job.Status == jobs.Running {
			running.Do(func() {
				c.Cut(0, true)
				time.AfterFunc(11*time.Second, func() { c.Cut(0, false) }) // the twin's change has failed by then
			})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	spec := jobs.Spec{ID: "job", Type: jobs.Twin, Condition: "*", Twin: &hub.TwinChange{Desired: json.RawMessage(`{"speed":1}`)}}
	if _, err := c.Nodes[0].Jobs.Create(spec); err != nil {
		t.Fatal(err)
	}
	job := wait(t, c.Nodes[0], "job")
	if want := (jobs.Statistics{Devices: 1, Succeeded: 1}); job.Statistics == nil || *job.Statistics != want {
		t.Errorf("the job ends %s, %+v", job.Status, job.Statistics)
	}
	after, err := c.Nodes[0].Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	if got := desiredVersion(t, after) - desiredVersion(t, before); got != 1 {
		t.Errorf("the job changed the twin's desired properties %d times", got)
	}
}

// desiredVersion is what a twin shows as $version of its desired properties.
func desiredVersion(t *testing.T, twin any) int {
	t.Helper()
	var shown struct {
		Properties struct {
			Desired struct {
				Version int `json:"$version"`
			}
		}
	}
	text, err := json.Marshal(twin)
	if err = errors.Join(err, json.Unmarshal(text, &shown)); err != nil {
		t.Fatal(err)
	}
	return shown.Properties.Desired.Version
}

func TestATwinJobChangesEachTwinOnceThoughItsLeaderDies(t *testing.T) {
	c := severaltest.Start(t, 3)
	const devices = 40
	for i := range devices {
		c.Nodes[1].Create(t, fmt.Sprintf("d%02d", i))
	}
	spec := jobs.Spec{ID: "job", Type: jobs.Twin, Condition: "*", Twin: &hub.TwinChange{Desired: json.RawMessage(`{"speed":1}`)}}
	if _, err := c.Nodes[2].Jobs.Create(spec); err != nil {
		t.Fatal(err)
	}
	c.Kill(t, 0)
	job := wait(t, c.Nodes[1], "job")
	if want := (jobs.Statistics{Devices: devices, Succeeded: devices}); job.Statistics == nil || *job.Statistics != want {
		t.Errorf("the job ends %s, %+v", job.Status, job.Statistics)
	}
	for i := range devices {
		v, err := c.Nodes[1].Twin(hub.ID{Device: fmt.Sprintf("d%02d", i)})
		if err != nil {
			t.Fatal(err)
		}
		var shown struct{ Version int }
		text, err := json.Marshal(v)
		if err = errors.Join(err, json.Unmarshal(text, &shown)); err != nil || shown.Version != 3 { // a new one has 2
			t.Errorf("the twin of device %d has version %d, %v, want 3", i, shown.Version, err)
		}
	}
}
