package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// A jobWriter runs jobs on devices that count how often they are called.
type jobWriter struct {
	ids  []string
	n    int
	open map[int]bool // jobs that have to end; false if one is perhaps not there

	hungUp []time.Time // when the devices have gone, at the end of each round

	mu    sync.Mutex // guards calls
	calls map[string]map[string]int
}

func newJobWriter(devices int) *jobWriter {
	w := &jobWriter{open: make(map[int]bool), calls: make(map[string]map[string]int)}
	for i := range devices {
		w.ids = append(w.ids, fmt.Sprintf("job-%d", i))
	}
	return w
}

func jobID(n int) string { return fmt.Sprintf("job-%06d", n) }

// method says whether a job calls a method or changes twins.
func (w *jobWriter) method(n int) bool { return n%2 == 1 }

func (w *jobWriter) setup(h *crashHub) error {
	for _, id := range w.ids {
		if err := createDevice(h, id, ""); err != nil {
			return err
		}
	}
	return nil
}

// answer is a device that answers direct methods, until ctx ends.
func (w *jobWriter) answer(ctx context.Context, h *crashHub, id string) {
	for ctx.Err() == nil {
		w.answerOnce(ctx, h, id)
		pause(ctx, 50*time.Millisecond)
	}
}

// answerOnce is answer until the connection ends.
func (w *jobWriter) answerOnce(ctx context.Context, h *crashHub, id string) {
	d, err := h.connect(id)
	if err != nil {
		return
	}
	defer d.Close()
	defer d.hangUp(ctx)()
	if d.subscribe("$iothub/methods/POST/#") != nil {
		return
	}
	for {
		d.SetReadDeadline(time.Time{})
		p, err := packets.ReadPacket(d)
		if err != nil {
			return
		}
		m, ok := p.(*packets.PublishPacket)
		if !ok || !strings.HasPrefix(m.TopicName, "$iothub/methods/POST/") {
			continue
		}
		job := strings.Trim(string(m.Payload), `"`)
		w.mu.Lock()
		if w.calls[job] == nil {
			w.calls[job] = make(map[string]int)
		}
		w.calls[job][id]++
		w.mu.Unlock()
		_, rid, _ := strings.Cut(m.TopicName, "?$rid=")
		if d.send(publish(0, 0, "$iothub/methods/res/200/?$rid="+rid, "{}")) != nil {
			return
		}
	}
}

func (w *jobWriter) write(ctx context.Context, h *crashHub, r *rand.Rand) {
	var devices sync.WaitGroup
	defer devices.Wait()
	connected, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		w.hungUp = append(w.hungUp, time.Now())
		disconnect()
	}()
	for _, id := range w.ids {
		devices.Go(func() { w.answer(connected, h, id) })
	}
	for ctx.Err() == nil {
		if !w.await(ctx, h) {
			return
		}
		w.n++
		body := `{"type":"scheduleUpdateTwin","queryCondition":"STARTSWITH(deviceId, 'job-')","updateTwin":{"etag":"*","properties":{"desired":{"job":%d}}},"maxExecutionTimeInSeconds":600}`
		if w.method(w.n) {
			body = `{"type":"scheduleDeviceMethod","queryCondition":"STARTSWITH(deviceId, 'job-')","cloudToDeviceMethod":{"methodName":"count","payload":"job-%06d","connectTimeoutInSeconds":120},"maxExecutionTimeInSeconds":600}`
		}
		a, err := h.do("PUT", "/jobs/v2/"+jobID(w.n), fmt.Sprintf(body, w.n))
		switch {
		case err == nil && a.ok():
			w.open[w.n] = true
		case err == nil && a.refused():
			h.t.Errorf("create a job: %v", a)
			return
		default:
			w.open[w.n] = false
			return
		}
	}
}

// await waits until all jobs have ended, and checks what came of them. It
// reports false if it does not know.
func (w *jobWriter) await(ctx context.Context, h *crashHub) bool {
	numbers := make([]int, 0, len(w.open))
	for n := range w.open {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		for {
			a, err := h.do("GET", "/jobs/v2/"+jobID(n), "")
			if err != nil || a.status >= 500 {
				return false
			}
			if a.status == 404 { // check has looked at it
				delete(w.open, n)
				break
			}
			var job struct {
				Status     string
				Statistics map[string]int `json:"deviceJobStatistics"`
			}
			if err := a.decode(&job); err != nil {
				h.t.Errorf("job %d: %v", n, err)
				return false
			}
			if job.Status == "completed" || job.Status == "failed" {
				if err := w.ended(h, n, job.Status, job.Statistics); errors.Is(err, errNoAnswer) {
					return false
				} else if err != nil {
					h.t.Error(err)
				}
				delete(w.open, n)
				break
			}
			if !pause(ctx, 10*time.Millisecond) {
				return false
			}
		}
	}
	return true
}

var errNoAnswer = errors.New("the hub does not answer")

// ended checks a job that has ended.
func (w *jobWriter) ended(h *crashHub, n int, status string, statistics map[string]int) error {
	rows, err := h.query("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '" + jobID(n) + "'")
	if err != nil {
		return errNoAnswer
	}
	if status != "completed" || len(rows) != len(w.ids) || statistics["deviceCount"] != len(rows) {
		return fmt.Errorf("job %d is %s with %d rows and %v, want completed, and %d devices: %s", n, status, len(rows), statistics, len(w.ids), rows)
	}
	w.mu.Lock()
	calls := w.calls[jobID(n)]
	delete(w.calls, jobID(n))
	w.mu.Unlock()
	succeeded := 0
	for _, text := range rows {
		var row struct {
			DeviceID, Status string
			Repeated         bool
			Start            time.Time `json:"startTimeUtc"`
			End              time.Time `json:"endTimeUtc"`
		}
		if err := json.Unmarshal(text, &row); err != nil {
			return err
		}
		switch {
		case row.Status == "completed":
			succeeded++
		case row.Status != "failed" || !w.method(n) || !row.Repeated && !w.gone(row.Start, row.End): // two calls were cut off, or the device went
			return fmt.Errorf("job %d: %s", n, text)
		}
		if !w.method(n) {
			doc, err := readTwin(h, row.DeviceID)
			if err != nil {
				return errNoAnswer
			}
			// A version for each twin job: each changes a twin once.
			if doc.Properties.Desired.Version != int64(1+n/2) || doc.Properties.Desired.Job != n {
				return fmt.Errorf("after job %d, %s has version %d of its desired properties, of job %d", n, row.DeviceID, doc.Properties.Desired.Version, doc.Properties.Desired.Job)
			}
			continue
		}
		least, most := 1, 1
		if row.Repeated {
			most = 2
		}
		if row.Status == "failed" {
			least = 0
		}
		if got := calls[row.DeviceID]; got < least || got > most {
			return fmt.Errorf("job %d called %s %d times: %s", n, row.DeviceID, calls[row.DeviceID], text)
		}
	}
	if statistics["succeededCount"] != succeeded {
		return fmt.Errorf("job %d has %v, but %d devices succeeded: %s", n, statistics, succeeded, rows)
	}
	return nil
}

// gone reports whether the devices have hung up during a call. The hub may notice
// that a moment later.
func (w *jobWriter) gone(start, end time.Time) bool {
	return slices.ContainsFunc(w.hungUp, func(t time.Time) bool { return !t.After(end) && start.Before(t.Add(time.Second)) })
}

func (w *jobWriter) check(h *crashHub) error {
	for n, acked := range w.open {
		a, err := h.do("GET", "/jobs/v2/"+jobID(n), "")
		switch {
		case err != nil:
			return err
		case a.status == 404 && !acked:
			delete(w.open, n)
			if !w.method(n) {
				w.n-- // so that twin jobs and versions stay in step
			}
		case !a.ok():
			return fmt.Errorf("job %d, which was acknowledged: %v", n, a)
		default:
			w.open[n] = true
		}
	}
	return nil
}

// A configurationState is a configuration as it is stored.
type configurationState struct {
	exists   bool
	priority int
}

// A configurationWriter creates, changes and deletes configurations that set the
// same desired property of one device.
type configurationWriter struct {
	id   string
	all  map[string]*register[configurationState]
	prio int
}

func (w *configurationWriter) setup(h *crashHub) error {
	w.all = make(map[string]*register[configurationState])
	for _, name := range []string{"conf-a", "conf-b", "conf-c"} {
		w.all[name] = &register[configurationState]{can: []configurationState{{}}}
	}
	if err := createDevice(h, w.id, ""); err != nil {
		return err
	}
	a, err := h.do("PATCH", "/twins/"+w.id, `{"tags":{"n":0,"conf":true}}`)
	if err == nil && !a.ok() {
		err = fmt.Errorf("tag %s: %v", w.id, a)
	}
	return err
}

func (w *configurationWriter) write(ctx context.Context, h *crashHub, r *rand.Rand) {
	names := []string{"conf-a", "conf-b", "conf-c"}
	for ctx.Err() == nil {
		name := names[r.IntN(len(names))]
		c := w.all[name]
		w.prio++
		next := configurationState{exists: true, priority: w.prio}
		body := fmt.Sprintf(`{"id":%q,"schemaVersion":"1.0","content":{"deviceContent":{"properties.desired.conf":%q}},"targetCondition":"tags.conf = true","priority":%d}`, name, name, w.prio)
		method, headers := "PUT", []string{}
		if c.can[0].exists {
			headers = []string{"If-Match", "*"}
			if r.IntN(3) == 0 {
				method, body, next = "DELETE", "", configurationState{}
			}
		}
		change := func(configurationState) configurationState { return next }
		a, err := h.do(method, "/configurations/"+name, body, headers...)
		switch {
		case err == nil && a.ok():
			c.acked(change)
		case err == nil && a.refused():
			h.t.Errorf("%s configuration %s: %v", method, name, a)
			return
		default:
			c.unknown(change)
			return
		}
	}
}

func (w *configurationWriter) check(h *crashHub) error {
	want, most := "", 0
	for name, c := range w.all {
		a, err := h.do("GET", "/configurations/"+name, "")
		if err != nil {
			return err
		}
		var is configurationState
		if a.status != 404 {
			var doc struct{ Priority int }
			if err := a.decode(&doc); err != nil {
				return err
			}
			is = configurationState{exists: true, priority: doc.Priority}
		}
		if err := c.is(is); err != nil {
			return fmt.Errorf("configuration %s %w", name, err)
		}
		if is.exists && is.priority > most {
			want, most = name, is.priority
		}
	}
	deadline := time.Now().Add(crashPatience)
	for {
		lag, err := h.metric("iotdm_hub_configuration_lag_seconds")
		if err != nil {
			return err
		}
		doc, err := readTwin(h, w.id)
		if err != nil {
			return err
		}
		switch {
		case lag == 0 && doc.Properties.Desired.Conf == want:
			return nil
		case lag == 0 || time.Now().After(deadline):
			return fmt.Errorf("the configurations, %.0f s behind, set %q; want %q, which has the highest priority", lag, doc.Properties.Desired.Conf, want)
		}
	}
}
