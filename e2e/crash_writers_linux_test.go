package e2e

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// A crashWriter changes something of the hub, alone, and takes down what was
// acknowledged.
type crashWriter interface {
	// setup makes what the writer needs.
	setup(h *crashHub) error
	// write writes until ctx ends, or until it does not know what the hub has:
	// then check finds out.
	write(ctx context.Context, h *crashHub, r *rand.Rand)
	// check compares what a hub has that was just started, while nobody writes,
	// with what it must have.
	check(h *crashHub) error
}

// A register is what is known of something that the hub keeps: how it is, or,
// while there are changes of which the hub has not said what became of them, all
// that it can be.
type register[S comparable] struct{ can []S }

// acked is a change that the hub has acknowledged.
func (r *register[S]) acked(change func(S) S) {
	for i, s := range r.can {
		r.can[i] = change(s)
	}
	r.distinct()
}

// unknown is a change that may have been made.
func (r *register[S]) unknown(change func(S) S) {
	for _, s := range slices.Clone(r.can) {
		r.can = append(r.can, change(s))
	}
	r.distinct()
}

func (r *register[S]) distinct() {
	var can []S
	for _, s := range r.can {
		if !slices.Contains(can, s) {
			can = append(can, s)
		}
	}
	r.can = can
}

// is says how the hub has it.
func (r *register[S]) is(s S) error {
	if !slices.Contains(r.can, s) {
		return fmt.Errorf("is %+v; by what was acknowledged it must be %+v", s, r.can)
	}
	r.can = []S{s}
	return nil
}

// pause waits a moment, and reports false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func createDevice(h *crashHub, id, more string) error {
	a, err := h.do("PUT", "/devices/"+id, fmt.Sprintf(`{"deviceId":%q%s}`, id, more))
	if err == nil && !a.ok() {
		err = fmt.Errorf("create %s: %v", id, a)
	}
	return err
}

// A twinDoc is a twin as REST shows it.
type twinDoc struct {
	Version    int64
	ETag       string
	Tags       struct{ N int }
	Properties struct {
		Desired struct {
			N       int
			Conf    string
			Job     int
			Version int64 `json:"$version"`
		}
		Reported struct {
			N       int
			Version int64 `json:"$version"`
		}
	}
}

func readTwin(h *crashHub, id string) (doc twinDoc, err error) {
	a, err := h.do("GET", "/twins/"+id, "")
	if err != nil {
		return doc, err
	}
	if err := a.decode(&doc); err != nil {
		return doc, fmt.Errorf("twin of %s: %w", id, err)
	}
	return doc, nil
}

// nextETag is the etag behind one: they count.
func nextETag(etag string) string {
	b, err := base64.StdEncoding.DecodeString(etag)
	if err != nil || len(b) != 8 {
		return "none behind " + etag
	}
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(b)+1))
}

// A twinState is a twin with its versions.
type twinState struct {
	version, desiredVersion, reportedVersion int64
	etag                                     string
	tags, desired, reported                  int
}

func (doc twinDoc) state() twinState {
	p := doc.Properties
	return twinState{doc.Version, p.Desired.Version, p.Reported.Version, doc.ETag, doc.Tags.N, p.Desired.N, p.Reported.N}
}

// A twinWriter patches and replaces a twin over REST while its device reports
// over MQTT. The two touch different members, so that what was acknowledged to
// one does not depend on the other.
type twinWriter struct {
	id string

	mu    sync.Mutex // guards what follows
	twin  register[twinState]
	n     int   // of the last change
	seen  int64 // the highest version that was ever shown
	acked int
}

func (w *twinWriter) setup(h *crashHub) error {
	if err := createDevice(h, w.id, ""); err != nil {
		return err
	}
	doc, err := readTwin(h, w.id)
	w.twin.can = []twinState{doc.state()}
	return err
}

func (w *twinWriter) next() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	return w.n
}

func (w *twinWriter) note(acked bool, change func(twinState) twinState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if acked {
		w.twin.acked(change)
		w.acked++
	} else {
		w.twin.unknown(change)
	}
}

func (w *twinWriter) rises(h *crashHub, version int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if version <= w.seen {
		h.t.Errorf("%s: a write led to version %d after %d had been shown", w.id, version, w.seen)
	}
	w.seen = version
}

func (w *twinWriter) write(ctx context.Context, h *crashHub, r *rand.Rand) {
	var both sync.WaitGroup
	defer both.Wait()
	both.Go(func() { w.report(ctx, h) })
	for n := w.next(); ctx.Err() == nil; {
		method, body := "PATCH", fmt.Sprintf(`{"tags":{"n":%d},"properties":{"desired":{"n":%d}}}`, n, n)
		if n%4 == 0 {
			method = "PUT"
		}
		if n%7 == 0 { // a condition that does not hold
			if a, err := h.do("PATCH", "/twins/"+w.id, `{"tags":{"n":-1}}`, "If-Match", `"AAAA"`); err == nil && a.status != 412 && a.status < 500 {
				h.t.Errorf("%s: a write with another etag: %v, want 412", w.id, a)
			}
		}
		a, err := h.do(method, "/twins/"+w.id, body)
		if err == nil && a.refused() {
			h.t.Errorf("%s: %s: %v", w.id, method, a)
			return
		}
		acked := err == nil && a.ok()
		w.note(acked, func(s twinState) twinState {
			s.version++
			s.desiredVersion++
			s.etag = nextETag(s.etag)
			s.tags, s.desired = n, n
			return s
		})
		if acked {
			var doc twinDoc
			if err := a.decode(&doc); err != nil || doc.Tags.N != n || doc.Properties.Desired.N != n {
				h.t.Errorf("%s: the answer to write %d is %v", w.id, n, a)
			}
			w.rises(h, doc.Version)
			n = w.next()
			continue
		}
		if err != nil || !pause(ctx, 50*time.Millisecond) {
			return
		}
	}
}

// report has the device patch its reported properties.
func (w *twinWriter) report(ctx context.Context, h *crashHub) {
	d, err := h.connect(w.id)
	if err != nil {
		return // the hub is gone, or cannot take it
	}
	defer d.Close()
	for ctx.Err() == nil {
		n := w.next()
		change := func(s twinState) twinState {
			s.version++
			s.reportedVersion++
			s.reported = n
			return s
		}
		if d.send(publish(0, 0, fmt.Sprintf("$iothub/twin/PATCH/properties/reported/?$rid=%d", n), fmt.Sprintf(`{"n":%d}`, n))) != nil {
			w.note(false, change)
			return
		}
		p, err := d.read()
		if err != nil {
			w.note(false, change)
			return
		}
		answer, ok := p.(*packets.PublishPacket)
		status := ""
		if ok {
			status, _, _ = strings.Cut(strings.TrimPrefix(answer.TopicName, "$iothub/twin/res/"), "/")
		}
		if !ok || status[0] == '4' {
			h.t.Errorf("%s: the answer to a patch of reported properties is %v", w.id, p)
			return
		}
		w.note(status == "204", change)
		if status != "204" {
			return
		}
	}
}

func (w *twinWriter) check(h *crashHub) error {
	doc, err := readTwin(h, w.id)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if doc.Version < w.seen {
		return fmt.Errorf("%s: version %d after %d had been shown", w.id, doc.Version, w.seen)
	}
	w.seen = doc.Version
	if err := w.twin.is(doc.state()); err != nil {
		return fmt.Errorf("twin of %s %w", w.id, err)
	}
	return nil
}

// An identityState is a device with a module or without.
type identityState struct {
	exists, module bool
	n              int // in its status reason, or its tags
}

// An identityWriter creates, updates and deletes a device and its module.
type identityWriter struct {
	id       string
	identity register[identityState]
	n        int
}

func (w *identityWriter) setup(*crashHub) error {
	w.identity.can = []identityState{{}}
	return nil
}

func (w *identityWriter) write(ctx context.Context, h *crashHub, r *rand.Rand) {
	for ctx.Err() == nil {
		w.n++
		n, now := w.n, w.identity.can[0] // there is one
		method, path, match := "PUT", "/devices/"+w.id, ""
		body := fmt.Sprintf(`{"deviceId":%q,"statusReason":"%d"}`, w.id, n)
		var change func(identityState) identityState
		switch what := r.IntN(10); {
		case !now.exists:
			change = func(identityState) identityState { return identityState{exists: true, n: n} }
		case what < 4:
			match = "*"
			change = func(s identityState) identityState { s.n = n; return s }
		case what < 6 && now.module:
			method, path, body, match = "DELETE", path+"/modules/m", "", "*"
			change = func(s identityState) identityState { s.module = false; return s }
		case what < 8 && !now.module:
			path += "/modules/m"
			body = fmt.Sprintf(`{"deviceId":%q,"moduleId":"m"}`, w.id)
			change = func(s identityState) identityState { s.module = true; return s }
		default:
			method, body, match = "DELETE", "", "*"
			change = func(identityState) identityState { return identityState{} }
		}
		var headers []string
		if match != "" {
			headers = []string{"If-Match", match}
		}
		a, err := h.do(method, path, body, headers...)
		switch {
		case err == nil && a.ok():
			w.identity.acked(change)
		case err == nil && a.refused():
			h.t.Errorf("%s %s of %+v: %v", method, path, now, a)
			return
		default:
			w.identity.unknown(change)
			return
		}
	}
}

func (w *identityWriter) check(h *crashHub) error {
	is, err := readIdentity(h, w.id)
	if err != nil {
		return err
	}
	if err := w.identity.is(is); err != nil {
		return fmt.Errorf("identity %s %w", w.id, err)
	}
	return nil
}

// readIdentity reads a device, its twin and its module, which have to agree.
func readIdentity(h *crashHub, id string) (s identityState, err error) {
	device, err := h.do("GET", "/devices/"+id, "")
	if err != nil {
		return s, err
	}
	twin, err := h.do("GET", "/twins/"+id, "")
	if err != nil {
		return s, err
	}
	module, err := h.do("GET", "/devices/"+id+"/modules/m", "")
	if err != nil {
		return s, err
	}
	moduleTwin, err := h.do("GET", "/twins/"+id+"/modules/m", "")
	if err != nil {
		return s, err
	}
	if device.status != twin.status || module.status != moduleTwin.status || device.status == 404 && module.status != 404 {
		return s, fmt.Errorf("%s: the device is %d, its twin %d, its module %d, and the twin of that %d",
			id, device.status, twin.status, module.status, moduleTwin.status)
	}
	if device.status == 404 {
		return s, nil
	}
	var doc struct{ StatusReason string }
	if err := device.decode(&doc); err != nil {
		return s, err
	}
	n, _ := strconv.Atoi(doc.StatusReason)
	return identityState{exists: true, module: module.ok(), n: n}, nil
}

// A bulkWriter creates, updates and deletes devices in bulk.
type bulkWriter struct {
	ids     []string
	devices []register[identityState]
	n       int
}

func newBulkWriter(prefix string, devices int) *bulkWriter {
	w := new(bulkWriter)
	for i := range devices {
		w.ids = append(w.ids, fmt.Sprintf("%s-%d", prefix, i))
		w.devices = append(w.devices, register[identityState]{can: []identityState{{}}})
	}
	return w
}

func (w *bulkWriter) setup(*crashHub) error { return nil }

func (w *bulkWriter) write(ctx context.Context, h *crashHub, r *rand.Rand) {
	for ctx.Err() == nil {
		w.n++
		n := w.n
		changes := make(map[int]func(identityState) identityState)
		var entries []string
		for i, id := range w.ids {
			switch what := r.IntN(4); {
			case what == 0:
				continue
			case what == 1 && w.devices[i].can[0].exists:
				entries = append(entries, fmt.Sprintf(`{"id":%q,"importMode":"delete"}`, id))
				changes[i] = func(identityState) identityState { return identityState{} }
			default:
				entries = append(entries, fmt.Sprintf(`{"id":%q,"importMode":"createOrUpdate","statusReason":"%d","tags":{"n":%d}}`, id, n, n))
				changes[i] = func(identityState) identityState { return identityState{exists: true, n: n} }
			}
		}
		if len(entries) == 0 {
			continue
		}
		a, err := h.do("POST", "/devices", "["+strings.Join(entries, ",")+"]")
		var result struct{ IsSuccessful bool }
		acked := err == nil && a.ok() && json.Unmarshal(a.body, &result) == nil && result.IsSuccessful
		for i, change := range changes {
			if acked {
				w.devices[i].acked(change)
			} else {
				w.devices[i].unknown(change)
			}
		}
		if !acked {
			if err == nil && a.status < 500 && !strings.Contains(string(a.body), "50300") {
				h.t.Errorf("bulk: %v", a)
			}
			return
		}
	}
}

func (w *bulkWriter) check(h *crashHub) error {
	for i, id := range w.ids {
		is, err := readIdentity(h, id)
		if err == nil {
			err = w.devices[i].is(is)
		}
		if err != nil {
			return fmt.Errorf("%s, changed in bulk, %w", id, err)
		}
		if !is.exists {
			continue
		}
		doc, err := readTwin(h, id)
		if err != nil {
			return err
		}
		if doc.Tags.N != is.n {
			return fmt.Errorf("%s, changed in bulk, has tag %d and status reason %d, which were written in one step", id, doc.Tags.N, is.n)
		}
	}
	return nil
}

// A telemetryWriter sends numbered messages. What the hub has of it is found
// among all events.
type telemetryWriter struct {
	id    string
	acked int // all up to this
	sent  int
	next  int // the number that comes next in the events
}

func (w *telemetryWriter) setup(h *crashHub) error {
	w.next = 1
	return createDevice(h, w.id, "")
}

func (w *telemetryWriter) write(ctx context.Context, h *crashHub, r *rand.Rand) {
	d, err := h.connect(w.id)
	if err != nil {
		return
	}
	defer d.Close()
	w.sent = w.acked // what was not acknowledged is sent again
	for window := 1 + r.IntN(20); ctx.Err() == nil; {
		for w.sent < w.acked+window {
			w.sent++
			topic := "devices/" + w.id + "/messages/events/"
			if d.send(publish(uint16(1+w.sent%60_000), 1, topic, fmt.Sprint(w.sent))) != nil {
				break
			}
		}
		p, err := d.read()
		if err != nil {
			return
		}
		ack, ok := p.(*packets.PubackPacket)
		if want := uint16(1 + (w.acked+1)%60_000); !ok || ack.MessageID != want {
			h.t.Errorf("%s: got %v, want PUBACK %d", w.id, p, want)
			return
		}
		w.acked++
	}
}

// saw takes a message that is among the events.
func (w *telemetryWriter) saw(n int) error {
	if n > w.next {
		return fmt.Errorf("%s: message %d is followed by %d", w.id, w.next-1, n)
	}
	w.next = max(w.next, n+1)
	return nil
}

func (w *telemetryWriter) check(*crashHub) error {
	if w.next <= w.acked {
		return fmt.Errorf("%s: messages up to %d were acknowledged, and those up to %d are there", w.id, w.acked, w.next-1)
	}
	return nil
}

// A messageState is a cloud-to-device message as its sender and its receiver
// know it.
type messageState uint8

const (
	messageMaybeSent messageState = iota
	messageSent
	messageMaybeSettled
	messageSettled
)

// A messageWriter sends cloud-to-device messages, and receives and settles them
// as the device.
type messageWriter struct {
	id       string
	n        int
	messages map[int]messageState
	abandons map[int]int
}

func (w *messageWriter) setup(h *crashHub) error {
	w.messages, w.abandons = make(map[int]messageState), make(map[int]int)
	return createDevice(h, w.id, "")
}

func (w *messageWriter) path() string { return "/devices/" + w.id + "/messages/deviceBound" }

func (w *messageWriter) write(ctx context.Context, h *crashHub, r *rand.Rand) {
	for ctx.Err() == nil {
		if waiting := w.waiting(); waiting < 40 && (waiting == 0 || r.IntN(2) == 0) {
			w.n++
			a, err := h.do("POST", w.path(), fmt.Sprint(w.n))
			switch {
			case err == nil && a.ok():
				w.messages[w.n] = messageSent
			case err == nil && a.refused():
				h.t.Errorf("send a message to %s: %v", w.id, a)
				return
			default:
				w.messages[w.n] = messageMaybeSent
				return
			}
			continue
		}
		if more, err := w.receive(h, r.IntN(4) == 0); err != nil {
			h.t.Error(err)
			return
		} else if !more {
			return
		}
	}
}

// waiting counts the messages that may wait.
func (w *messageWriter) waiting() (n int) {
	for _, s := range w.messages {
		if s != messageSettled {
			n++
		}
	}
	return n
}

// receive receives a message and completes it, or abandons it. There is no more
// if the queue is empty, or the hub does not say what became of it. An error is
// one of the hub's.
func (w *messageWriter) receive(h *crashHub, abandon bool) (more bool, err error) {
	a, err := h.do("GET", w.path(), "")
	if err != nil || a.status >= 500 {
		return false, nil
	}
	if a.status == 204 {
		return false, nil
	}
	n, err := strconv.Atoi(string(a.body))
	if err != nil || !a.ok() {
		return false, fmt.Errorf("receive a message of %s: %v", w.id, a)
	}
	state, known := w.messages[n]
	switch {
	case !known:
		return false, fmt.Errorf("%s receives %d, which nobody sent", w.id, n)
	case state == messageSettled:
		return false, fmt.Errorf("%s receives %d again, which it has settled", w.id, n)
	case state == messageMaybeSent:
		w.messages[n] = messageSent
	}
	lock := strings.Trim(a.header.Get("ETag"), `"`)
	if abandon && w.abandons[n] < 5 { // ten are too many
		w.abandons[n]++
		a, err := h.do("POST", w.path()+"/"+lock+"/abandon", "")
		return err == nil && a.ok(), nil
	}
	a, err = h.do("DELETE", w.path()+"/"+lock, "")
	switch {
	case err == nil && a.ok():
		delete(w.abandons, n)
		w.messages[n] = messageSettled
		return true, nil
	case err == nil && a.refused():
		return false, fmt.Errorf("%s completes %d: %v", w.id, n, a)
	}
	w.messages[n] = messageMaybeSettled
	return false, nil
}

// check receives and settles everything: after a start nothing is locked.
func (w *messageWriter) check(h *crashHub) error {
	for {
		more, err := w.receive(h, false)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	for n, s := range w.messages {
		if s == messageSent {
			return fmt.Errorf("message %d to %s was acknowledged, not settled, and is not there", n, w.id)
		}
		// What nobody knew is known now: it is not there. Settled ones are kept
		// for a while, to be recognised.
		w.messages[n] = messageSettled
		if n < w.n-500 {
			delete(w.messages, n)
		}
	}
	return nil
}

// A jobWriter runs jobs on devices that count how often they are called.
type jobWriter struct {
	ids  []string
	n    int
	open map[int]bool // jobs that have to end; false if one is perhaps not there

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

// answer is a device that answers direct methods until the connection ends.
func (w *jobWriter) answer(ctx context.Context, h *crashHub, id string) {
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
	connected, disconnect := context.WithCancel(ctx)
	defer disconnect()
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
		}
		if err := json.Unmarshal(text, &row); err != nil {
			return err
		}
		switch {
		case row.Status == "completed":
			succeeded++
		case row.Status != "failed" || !row.Repeated || !w.method(n): // two calls were cut off
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

// An eventChecker reads the events as they grow, and sees that none changes its
// number, that none goes, and what the telemetry writers want to know. Numbers
// that were given to events which were not completely written when the hub was
// killed are never given to others: so each start may leave a gap.
type eventChecker struct {
	telemetry map[string]*telemetryWriter

	from    int64                // offset to read on from: where the round before the last began
	begun   int64                // where the last round began
	records map[int64]eventPlace // those from from on, by offset
	next    map[string]int64     // numbers that come next, by partition
	starts  int                  // of the hub, at the last check
	gaps    bool                 // there may be any number of gaps: a disk that is full cuts batches too
	damaged bool                 // what was damaged may be missing
	missing int                  // events that were missing at the last check
}

// An eventPlace says which event stands at an offset.
type eventPlace struct {
	partition string
	number    int64
	content   string
}

func (c *eventChecker) check(h *crashHub) error {
	a, err := h.do("GET", fmt.Sprintf("/iotdm/events?from=%d", c.from), "")
	if err != nil {
		return err
	}
	if !a.ok() {
		return fmt.Errorf("read events: %v", a)
	}
	seen := make(map[int64]eventPlace)
	last, gaps := make(map[string]int64), make(map[string]int)
	end := c.begun
	for line := range strings.Lines(string(a.body)) {
		var e struct {
			Damaged json.RawMessage // a place where something is missing
			Event   struct {
				Origin      string
				Payload     json.RawMessage
				Annotations struct {
					Offset    string `json:"x-opt-offset"`
					Partition string `json:"x-opt-partition-id"`
					Number    int64  `json:"x-opt-sequence-number"`
					Source    string `json:"iothub-message-source"`
				}
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return fmt.Errorf("the events end with %.200q: %w", line, err)
		}
		if e.Damaged != nil {
			continue
		}
		at := e.Event.Annotations
		offset, err := strconv.ParseInt(at.Offset, 10, 64)
		if err != nil {
			return err
		}
		p := eventPlace{at.Partition, at.Number, e.Event.Origin + " " + string(e.Event.Payload)}
		before, known := c.records[offset]
		switch {
		case known && before != p:
			return fmt.Errorf("the event at offset %d was %+v and is %+v", offset, before, p)
		case !known && c.records != nil && offset < end:
			return fmt.Errorf("there is a new event before others, at offset %d: %+v", offset, p)
		case !known && at.Number < c.next[at.Partition]:
			return fmt.Errorf("number %d of partition %s is given out again, at offset %d: %+v", at.Number, at.Partition, offset, p)
		}
		if n, ok := last[at.Partition]; ok && at.Number <= n {
			return fmt.Errorf("in partition %s, number %d is followed by %d", at.Partition, n, at.Number)
		}
		if !known && at.Number != c.next[at.Partition] {
			if gaps[at.Partition]++; !c.gaps && !c.damaged && gaps[at.Partition] > h.starts-c.starts {
				return fmt.Errorf("in partition %s, number %d is missing", at.Partition, c.next[at.Partition])
			}
		}
		last[at.Partition] = at.Number
		seen[offset] = p
		c.next[at.Partition] = max(c.next[at.Partition], at.Number+1)
		if w := c.telemetry[e.Event.Origin]; w != nil && at.Source == "Telemetry" && !known {
			n, err := strconv.Atoi(strings.Trim(string(e.Event.Payload), `"`))
			if err != nil {
				return fmt.Errorf("telemetry is %s", line)
			}
			if err := w.saw(n); err != nil {
				return err
			}
		}
	}
	c.missing = 0
	for offset, p := range c.records {
		if _, ok := seen[offset]; !ok {
			if c.missing++; !c.damaged {
				return fmt.Errorf("the event at offset %d, %+v, is gone", offset, p)
			}
		}
	}
	c.starts = h.starts
	c.turn(seen)
	return nil
}

// turn goes on to the next round.
func (c *eventChecker) turn(seen map[int64]eventPlace) {
	if c.damaged { // all are read again, as often as it is looked
		c.records = seen
		return
	}
	c.from = c.begun
	for offset := range seen {
		c.begun = max(c.begun, offset+1)
	}
	for offset := range seen {
		if offset < c.from {
			delete(seen, offset)
		}
	}
	c.records = seen
}

// crashIndexes checks that what is found agrees with what is there.
func crashIndexes(h *crashHub) error {
	a, err := h.do("GET", "/devices?top=1000", "")
	if err != nil {
		return err
	}
	var list []struct {
		DeviceID string
		Pending  int `json:"cloudToDeviceMessageCount"`
	}
	if err := a.decode(&list); err != nil {
		return err
	}
	var ids []string
	pending := 0
	for _, d := range list {
		ids = append(ids, d.DeviceID)
		pending += d.Pending
	}
	slices.Sort(ids)
	if queued, err := h.metric("iotdm_hub_c2d_queued"); err != nil || int(queued) != pending {
		return cmp.Or(err, fmt.Errorf("%d messages wait by the devices, %v by the metrics", pending, queued))
	}
	// The first condition reads the index of when twins were written, the other all twins.
	for _, condition := range []string{
		"", " WHERE properties.reported.$metadata.$lastUpdated >= '2000-01-01' OR properties.desired.$metadata.$lastUpdated >= '0001-01-01'",
		" WHERE properties.desired.$metadata.$lastUpdated >= '0001-01-01'", " WHERE NOT (properties.desired.$metadata.$lastUpdated < '0001-01-01')",
	} {
		rows, err := h.query("SELECT deviceId FROM devices" + condition)
		if err != nil {
			return err
		}
		var found []string
		for _, row := range rows {
			var d struct{ DeviceID string }
			if err := json.Unmarshal(row, &d); err != nil {
				return err
			}
			found = append(found, d.DeviceID)
		}
		slices.Sort(found)
		if !slices.Equal(ids, found) {
			return fmt.Errorf("devices%s are %q, and the registry has %q", condition, found, ids)
		}
	}
	return nil
}
