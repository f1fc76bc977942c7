package controls_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/mqttdevice"
)

const seedText = `
devices:
  - deviceId: seeded
    primaryKey: c2VlZGVkLXNlZWRlZC1zZWVkZWQtc2VlZGVkLXNlZWQ=
    tags: {site: A}
    desired: {interval: 5}
    modules:
      - moduleId: camera
        primaryKey: Y2FtZXJhLWNhbWVyYS1jYW1lcmEtY2FtZXJhLWNhbWU=
consumerGroups: [tests]
`

func seed(t testing.TB) node.Seed {
	t.Helper()
	s, err := node.ParseSeed([]byte(seedText))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// state is what of a hub does not depend on when it was made.
func state(t testing.TB, n *node.Node) []string {
	t.Helper()
	var list []string
	for i, err := range n.Devices() {
		if err != nil {
			t.Fatal(err)
		}
		twin, err := n.DeviceTwin(i.ID)
		if err != nil {
			t.Fatal(err)
		}
		modules, err := n.Modules(i.ID.Device)
		if err != nil {
			t.Fatal(err)
		}
		c := n.ConnectionState(i.ID)
		list = append(list, fmt.Sprintf("%s %s %d modules, %d messages, seen %v, job rows %d", i.ID, twin, len(modules), c.PendingMessages, !c.LastActivity.IsZero(), rows(t, n)))
	}
	for j, err := range n.Jobs.List(jobs.Filter{}, "") {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, "job "+j.ID)
	}
	for _, c := range n.Configurations.List() {
		list = append(list, "configuration "+c.ID)
	}
	cas, err := n.CACertificates()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cas {
		list = append(list, "CA "+c.Name)
	}
	return list
}

func rows(t testing.TB, n *node.Node) int {
	t.Helper()
	page, err := n.Query(t.Context(), "SELECT * FROM devices.jobs", 1000, "")
	if err != nil {
		t.Fatal(err)
	}
	return page.Rows
}

func TestResetLeavesTheSeedAlone(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{Seed: seed(t)})
	fresh := state(t, h.Node)
	key := func() string {
		i, err := h.Identity(hub.ID{Device: "seeded"})
		if err != nil {
			t.Fatal(err)
		}
		return string(i.Auth.SymmetricKey.Primary)
	}()

	wiretest.Create(t, h.Node, hub.ID{Device: "d1"}, hub.IdentitySpec{})
	c := wiretest.DialTLS(t, h.Hub)
	c.Connect(h.Device("d1"))
	c.Publish("devices/d1/messages/events/", "before")
	c.Settled()
	if _, err := h.PatchTwin(hub.ID{Device: "seeded"}, hub.TwinChange{Desired: json.RawMessage(`{"interval":6}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.SendMessage(t, h.Node, "seeded", wiretest.Message("m"))
	wiretest.PutConfiguration(t, h.Node, wiretest.DeviceConfiguration("c1", "*", 1, map[string]string{"properties.desired.c": `1`}), hub.Match{})
	wiretest.CreateJob(t, h.Node, wiretest.TwinJob("j1", "*", `{"j":1}`))
	wiretest.WaitJob(t, h.Node, "j1")
	if _, err := h.Jobs.Create(jobs.Spec{ID: "later", Type: jobs.Twin, Condition: "*", Start: h.Now().Add(time.Hour), Twin: &hub.TwinChange{Desired: json.RawMessage(`{"l":1}`)}}); err != nil {
		t.Fatal(err)
	}
	before := wiretest.Events(t, h.Node, hub.EventQuery{})
	h.Advance(2 * time.Hour) // the later job runs, the message expires
	h.Reset()

	c.WantClosed()
	if diff := cmp.Diff(fresh, state(t, h.Node)); diff != "" {
		t.Errorf("after the reset (-fresh +got):\n%s", diff)
	}
	if i, err := h.Identity(hub.ID{Device: "seeded"}); err != nil || string(i.Auth.SymmetricKey.Primary) != key {
		t.Errorf("the seeded device has another key, %v", err)
	}
	if ahead := h.Controls.Clock().Ahead; ahead != 0 {
		t.Errorf("the clock is %v ahead", ahead)
	}
	last := before[len(before)-1]
	for _, e := range wiretest.Events(t, h.Node, hub.EventQuery{}) {
		if e.Offset <= last.Offset || e.From.Device != "seeded" || e.Enqueued.Sub(h.Now()) > time.Minute {
			t.Errorf("there is the event %d of %s, enqueued at %v; the last before was %d", e.Offset, e.From, e.Enqueued, last.Offset)
		}
	}
	// It goes on as any hub.
	d := wiretest.DialTLS(t, h.Hub)
	d.Connect(h.Device("d1"))
	d.Publish("devices/d1/messages/events/", "after")
	d.Settled()
	got := wiretest.Telemetry(t, h.Node, "d1")
	if len(got) != 1 || string(got[0].Body) != "after" {
		t.Errorf("telemetry after the reset: %+v", got)
	}
	wiretest.CreateJob(t, h.Node, wiretest.TwinJob("j1", "*", `{"j":1}`))
	if j := wiretest.WaitJob(t, h.Node, "j1"); j.Status != jobs.Completed || j.Statistics.Succeeded != 2 {
		t.Errorf("a job after the reset: %+v", j)
	}
	wiretest.PutConfiguration(t, h.Node, wiretest.DeviceConfiguration("c1", "*", 1, map[string]string{"properties.desired.c": `1`}), hub.Match{})
	wiretest.Configured(t, h.Node, hub.ID{Device: "d1"})
}

func TestWhatWaitsIsAnsweredWhenTheHubIsReset(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{Seed: seed(t)})
	called := make(chan string, 1)
	wiretest.Respond(t, h.Hub, "silent", 0, "", called)
	ctx := wiretest.WithPatience(t)
	method := func(device string) <-chan wiretest.Answer {
		return h.Begin(ctx, wiretest.Call{Method: "POST", Path: "/twins/" + device + "/methods",
			Body: `{"methodName":"m","connectTimeoutInSeconds":300,"responseTimeoutInSeconds":300}`})
	}
	answered := func(what string, answer <-chan wiretest.Answer) {
		t.Helper()
		for {
			h.Reset() // it may not wait yet
			select {
			case a, ok := <-answer:
				if !ok || a.Status != http.StatusServiceUnavailable && a.Status != http.StatusNotFound {
					t.Errorf("%s: %d %s", what, a.Status, a.Body)
				}
				return
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("%s: no answer", what)
			}
		}
	}
	answer := method("silent")
	<-called
	answered("a method that the device does not answer", answer)
	answered("a method of a device that is not connected", method("seeded"))

	// A request whose body does not come holds nobody up.
	slow, end := io.Pipe()
	defer end.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "https://"+h.HTTPSAddr+"/devices/slow?api-version=2021-04-12", slow)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", h.Token("iothubowner"))
	answer2 := make(chan wiretest.Answer, 1)
	go func() {
		defer close(answer2)
		resp, err := h.Client.Do(req)
		if err != nil {
			return // it was cut off, since its body is not there
		}
		defer resp.Body.Close()
		answer2 <- wiretest.Answer{Status: resp.StatusCode}
	}()
	if _, err := io.WriteString(end, `{"deviceId":`); err != nil {
		t.Fatal(err)
	}
	for waiting := true; waiting; {
		began := time.Now()
		h.Reset()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a reset took %v", took)
		}
		select {
		case a, ok := <-answer2:
			waiting = false
			if ok && a.Status != http.StatusServiceUnavailable {
				t.Errorf("a request without its body: %d", a.Status)
			}
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("a request without its body: no answer")
		}
	}
}

func TestSnapshots(t *testing.T) {
	for name, storage := range map[string]node.Storage{"memory": {}, "folder": node.Folder(filepath.Join(t.TempDir(), "hub"))} {
		t.Run(name, func(t *testing.T) {
			h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: storage, Seed: seed(t)}))
			wiretest.Create(t, h.Node, hub.ID{Device: "d1"}, hub.IdentitySpec{})
			wiretest.SendMessage(t, h.Node, "d1", wiretest.Message("m"))
			want := state(t, h.Node)
			h.SaveSnapshot("one")
			wiretest.Create(t, h.Node, hub.ID{Device: "d2"}, hub.IdentitySpec{})
			if err := h.DeleteIdentity(hub.ID{Device: "d1"}, hub.Match{}); err != nil {
				t.Fatal(err)
			}
			h.SaveSnapshot("two")
			h.LoadSnapshot("one")
			if diff := cmp.Diff(want, state(t, h.Node)); diff != "" {
				t.Errorf("(-saved +loaded):\n%s", diff)
			}
			if got := wiretest.Events(t, h.Node, hub.EventQuery{}); len(got) > 0 {
				t.Errorf("%d events of before", len(got))
			}
			if m, ok, err := h.ReceiveMessage("d1", 0); !ok || err != nil || string(m.Body) != "m" {
				t.Errorf("the message that waited: %q, %v, %v", m.Body, ok, err)
			}
			list, err := h.Controls.Snapshots()
			if err != nil || len(list) != 2 || list[0].Name != "one" || list[1].Name != "two" || list[0].Bytes == 0 || list[0].Taken.IsZero() {
				t.Errorf("snapshots are %+v, %v", list, err)
			}
			h.Reset()
			h.LoadSnapshot("two")
			if _, err := h.Identity(hub.ID{Device: "d2"}); err != nil {
				t.Error(err)
			}
			if err := h.Controls.DeleteSnapshot("two"); err != nil {
				t.Error(err)
			}
			for _, c := range []struct {
				want error
				got  error
			}{
				{hub.ErrSnapshotNotFound, h.Controls.LoadSnapshot(t.Context(), "two")},
				{hub.ErrSnapshotNotFound, h.Controls.DeleteSnapshot("two")},
				{hub.ErrArgumentInvalid, h.Controls.LoadSnapshot(t.Context(), "../policies")},
				{hub.ErrArgumentInvalid, h.Controls.DeleteSnapshot("")},
			} {
				if !errors.Is(c.got, c.want) {
					t.Errorf("got %v, want %v", c.got, c.want)
				}
			}
		})
	}
}

func TestADamagedSnapshotChangesNothing(t *testing.T) {
	dir := t.TempDir()
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir), Seed: seed(t)}))
	h.SaveSnapshot("s")
	file := filepath.Join(dir, "snapshots", "s.snapshot")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := state(t, h.Node)
	for _, bad := range [][]byte{nil, good[:len(good)-1], append([]byte("x"), good[1:]...), append(good[:len(good):len(good)], 0)} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.Controls.LoadSnapshot(t.Context(), "s"); !errors.Is(err, hub.ErrSnapshotDamaged) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
	if diff := cmp.Diff(want, state(t, h.Node)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

// Devices over both protocols, readers, services and jobs go on as if nothing
// were, while the hub is reset again and again.
func TestResetUnderLoad(t *testing.T) {
	resets := 100
	if testing.Short() {
		resets = 10
	}
	h := wiretest.StartREST(t, node.Options{Seed: seed(t), Clock: clock.New(), Logger: slog.New(slog.DiscardHandler)})
	fresh := state(t, h.Node)
	goroutines := runtime.NumGoroutine()
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var done sync.Map // how often what was done
	again := func(what string, f func(i int) (ok bool)) {
		n := new(atomic.Int64)
		done.Store(what, n)
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if f(i) {
					n.Add(1)
				}
			}
		})
	}
	request := func(method, path, body string) func(int) bool {
		return func(i int) bool {
			number := strings.NewReplacer("%d", fmt.Sprint(i%5))
			a, err := h.Try(ctx, wiretest.Call{Method: method, Path: number.Replace(path) + "?api-version=2021-04-12", Body: number.Replace(body)})
			if err != nil && ctx.Err() == nil || err == nil && a.Status >= 500 && a.Status != http.StatusServiceUnavailable {
				t.Errorf("%s %s: %d %s, %v", method, path, a.Status, a.Body, err)
			}
			return err == nil && a.Status < 300
		}
	}
	again("device created", request("PUT", "/devices/d%d", `{"deviceId":"d%d"}`))
	again("twin patched", request("PATCH", "/twins/d%d", `{"properties":{"desired":{"a":1}}}`))
	again("job created", func(i int) bool {
		return request("PUT", "/jobs/v2/j"+fmt.Sprint(i)+"-%d", `{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"properties":{"desired":{"j":1}},"etag":"*"}}`)(i)
	})
	again("method answered", request("POST", "/twins/seeded/methods", `{"methodName":"m","connectTimeoutInSeconds":5}`))
	again("message sent", request("POST", "/devices/seeded/messages/deviceBound", `m`))
	again("configuration put", request("PUT", "/configurations/c%d", `{"id":"c%d","content":{"deviceContent":{"properties.desired.c":1}},"targetCondition":"*"}`))
	again("query answered", request("POST", "/devices/query", `{"query":"SELECT * FROM devices"}`))
	// A device over MQTT. Where its connection ends it begins anew, and does not wait
	// as a client does whose hub ends one connection after the other.
	seeded := h.Device("seeded")
	again("telemetry over MQTT", func(i int) bool {
		lost, cancel := context.WithCancel(ctx)
		defer cancel()
		device, err := mqttdevice.New(mqttdevice.Options{ConnectionString: seeded, Addr: h.MQTTSAddr, TLS: h.ClientTLS(), OnState: func(s mqttdevice.State) {
			if s.Status == mqttdevice.Disconnected {
				cancel()
			}
		}})
		if err != nil {
			t.Error(err)
			return false
		}
		defer device.Close()
		device.HandleMethod("m", func(context.Context, mqttdevice.Method) mqttdevice.Response { return mqttdevice.Response{Status: 200} })
		if device.Connect(lost) != nil {
			return false
		}
		for range 20 {
			if device.Send(lost, mqttdevice.Message{Payload: []byte("t")}) != nil {
				return false
			}
			if _, err := device.PatchReported(lost, map[string]int{"i": i}); err != nil {
				return false
			}
		}
		return true
	})
	// One over AMQP.
	camera := h.Module("seeded", "camera")
	again("telemetry over AMQP", func(int) (ok bool) {
		a := attempt{TB: t}
		defer a.end(&ok)
		peer := wiretest.DialAMQP(&a, h.Hub, camera)
		sender := peer.Sender("/devices/seeded/modules/camera/messages/events")
		for range 10 {
			if err := sender.Send(ctx, wiretest.AMQPMessage("", "t"), nil); err != nil {
				return false
			}
		}
		return true
	})
	var last atomic.Int64
	last.Store(-1)
	read := new(atomic.Int64)
	done.Store("events read", read)
	load.Go(func() {
		for e, err := range h.Events(ctx, hub.EventQuery{Follow: true}) {
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("the reader of events: %v", err)
				}
				return
			}
			if before := last.Swap(e.Offset); e.Offset <= before {
				t.Errorf("offset %d comes behind %d", e.Offset, before)
			}
			read.Add(1)
		}
	})
	await := func(what string) {
		counter, _ := done.Load(what)
		n := counter.(*atomic.Int64)
		for before, deadline := n.Load(), time.After(wiretest.Patience); n.Load() == before; {
			select {
			case <-time.After(time.Millisecond):
			case <-deadline:
				t.Errorf("no %s for %v", what, wiretest.Patience)
				return
			}
		}
	}
	var took []time.Duration
	for i := range resets {
		seen, began := last.Load(), time.Now()
		if err := h.Controls.Reset(t.Context()); err != nil {
			t.Fatalf("reset %d: %v", i, err)
		}
		took = append(took, time.Since(began))
		generation := words.Ticks(began)
		for d, err := range h.Devices() {
			if err != nil || d.GenerationID < generation {
				t.Errorf("after reset %d there is still %s of %s, %v", i, d.ID, d.GenerationID, err)
			}
		}
		for j, err := range h.Jobs.List(jobs.Filter{}, "") {
			if err != nil || j.Created.Before(began) {
				t.Errorf("after reset %d there is still job %s of %s, %v", i, j.ID, j.Created, err)
			}
		}
		for e, err := range h.Events(t.Context(), hub.EventQuery{}) {
			if err != nil || e.Offset <= seen {
				t.Errorf("after reset %d there is still the event %d, %v", i, e.Offset, err)
			}
		}
		<-time.After(time.Duration(rand.IntN(20)) * time.Millisecond)
		if i%20 == 0 {
			await("telemetry over MQTT")
			await("telemetry over AMQP")
			await("method answered")
		}
	}
	stop()
	load.Wait()
	h.Reset()
	if diff := cmp.Diff(fresh, state(t, h.Node)); diff != "" {
		t.Errorf("after the last reset (-fresh +got):\n%s", diff)
	}
	h.Client.CloseIdleConnections()
	slices.Sort(took)
	t.Logf("a reset took %v, at most %v", took[len(took)/2], took[len(took)-1])
	done.Range(func(what, n any) bool {
		t.Logf("%s: %d", what, n.(*atomic.Int64).Load())
		return true
	})
	deadline := time.After(wiretest.Patience)
	for runtime.NumGoroutine() > goroutines {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), goroutines, buf[:runtime.Stack(buf, true)])
		}
	}
}

// An attempt is a test that may fail without failing the one it is part of.
type attempt struct {
	testing.TB
	ends []func()
}

type failed struct{}

func (a *attempt) Fatal(...any)          { panic(failed{}) }
func (a *attempt) Fatalf(string, ...any) { panic(failed{}) }
func (a *attempt) Cleanup(f func())      { a.ends = append(a.ends, f) }

// end ends the attempt, which is not ok if it has failed.
func (a *attempt) end(ok *bool) {
	switch cause := recover(); cause {
	case nil:
	case failed{}:
		*ok = false
	default:
		panic(cause)
	}
	for _, f := range slices.Backward(a.ends) {
		f()
	}
}
