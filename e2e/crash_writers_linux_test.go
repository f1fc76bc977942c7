package e2e

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
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
