package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hubrest"
)

const (
	// maxBatchBytes bounds a bulk request beside hubrest.MaxBulk.
	maxBatchBytes = 2 << 20
	// maxHeldBack bounds the lines that wait for others to be done.
	maxHeldBack = 2000
	// maxParked bounds the lines whose parent has not come yet.
	maxParked = 20_000
	// maxScopes bounds the scopes of parents that are remembered.
	maxScopes = 100_000
	// lastRequests is how long requests under way may take after Ctrl-C.
	lastRequests = 15 * time.Second
)

// A bulkImport applies the lines of a file to a hub: many in one request, and
// several requests at a time. It is bounded in memory, whatever the file.
//
// Only the goroutine of run touches it; requests are goroutines that send what
// came of them through done.
type bulkImport struct {
	client   *hubrest.Client
	mode     hubrest.ImportMode // of lines without one
	dryRun   bool
	parallel int
	fromLine int
	report   func(lineResult) error
	throttle *throttle

	lines   bulkReader
	ended   bool  // nothing more is read
	broken  error // why, if not for the end of the file
	read    int   // the last line that was read
	held    []bulkLine
	parked  []bulkLine
	scopes  map[string]string // of parents, by device id; "" has none
	running int
	devices map[string]int // entries under way, by device id
	done    chan bulkBatch

	Succeeded, Failed int
	unsent            []int // lines of requests that did not go out
}

// A bulkBatch is a request, with what came of it.
type bulkBatch struct {
	lines   []bulkLine
	results []lineResult // of lines; one without a Result was not sent
	err     error        // why the import has to end
}

// A lineResult is what became of a line.
type lineResult struct {
	Line     int                `json:"line"`
	ID       string             `json:"id,omitempty"`
	ModuleID string             `json:"moduleId,omitempty"`
	Mode     hubrest.ImportMode `json:"importMode,omitempty"`
	Result   string             `json:"result"`
	Code     int                `json:"errorCode,omitempty"`
	Reason   string             `json:"reason,omitempty"`

	failed bool
}

// run returns nil when every line was looked at, be it in vain. After an
// error, resume says where to go on.
func (im *bulkImport) run(ctx context.Context) error {
	im.devices, im.scopes, im.done = make(map[string]int), make(map[string]string), make(chan bulkBatch)
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastRequests, cancel) })()
	var failure error
	for {
		for failure == nil && ctx.Err() == nil && im.running < im.parallel {
			batch, err := im.fill(ctx)
			if err != nil {
				failure = err
				for _, l := range batch {
					im.unsent = append(im.unsent, l.number)
				}
				break
			}
			if len(batch) == 0 {
				break
			}
			im.start(ctx, requests, batch)
		}
		if im.running == 0 {
			return firstError(failure, ctx.Err(), im.broken)
		}
		batch := <-im.done
		im.running--
		if err := im.finish(batch); err != nil && failure == nil {
			failure = err
		}
	}
}

// resume returns the first line that was not done.
func (im *bulkImport) resume() int {
	first := im.read + 1
	for _, l := range slices.Concat(im.held, im.parked) {
		first = min(first, l.number)
	}
	for _, n := range im.unsent {
		first = min(first, n)
	}
	return first
}

// fill returns the lines of the next request: those held back first, then
// those of the file. Lines of a device are done in their order, and a request
// names a device once.
func (im *bulkImport) fill(ctx context.Context) ([]bulkLine, error) {
	b := batchBuilder{im: im, blocked: make(map[string]bool)}
	held := im.held
	im.held = nil
	for i, l := range held {
		if err := b.add(ctx, l); err != nil {
			im.held = append(im.held, held[i:]...)
			return b.lines, err
		}
	}
	for !b.full() && !im.ended && len(im.held) < maxHeldBack && ctx.Err() == nil {
		l, err := im.lines.next()
		if errors.Is(err, io.EOF) {
			im.ended = true
			break
		}
		if err != nil {
			im.ended, im.broken = true, err
			break
		}
		im.read = l.number
		if l.number < im.fromLine {
			continue
		}
		if err := b.add(ctx, l); err != nil {
			im.held = append(im.held, l)
			return b.lines, err
		}
	}
	if len(b.lines) == 0 && im.ended && len(im.held) == 0 && im.running == 0 && len(im.parked) > 0 {
		return im.unpark(ctx)
	}
	return b.lines, nil
}

// unpark looks once more for the parents that were missing, at the end of the
// file. A parent may itself be among the parked.
func (im *bulkImport) unpark(ctx context.Context) ([]bulkLine, error) {
	parked := im.parked
	im.parked = nil
	parents := make(map[string]bool)
	for _, l := range parked {
		parents[l.entry.ID] = true
	}
	clear(im.scopes)
	var orphans []bulkLine
	for i, l := range parked {
		parent := parentOf(l.entry)
		scope, err := im.scopeOf(ctx, parent)
		switch {
		case err != nil:
			im.parked = append(im.parked, parked[i:]...)
			return nil, err
		case scope != "":
			im.held = append(im.held, l)
		case parents[parent]:
			im.parked = append(im.parked, l)
		default:
			orphans = append(orphans, orphan(l))
		}
	}
	if len(im.held) == 0 && len(orphans) == 0 { // parents of each other
		for _, l := range im.parked {
			orphans = append(orphans, orphan(l))
		}
		im.parked = nil
	}
	if len(orphans) > 0 {
		return orphans, nil
	}
	return im.fill(ctx)
}

func orphan(l bulkLine) bulkLine {
	l.err = fmt.Errorf("its parent %q is not an IoT Edge device of the hub", parentOf(l.entry))
	return l
}

// A batchBuilder collects the lines of a request.
type batchBuilder struct {
	im      *bulkImport
	lines   []bulkLine
	names   map[string]bool
	blocked map[string]bool // devices with a line held back
	bytes   int
}

func (b *batchBuilder) full() bool {
	return len(b.lines) >= hubrest.MaxBulk || b.bytes >= maxBatchBytes
}

// add takes the line into the request, or holds it back.
func (b *batchBuilder) add(ctx context.Context, l bulkLine) error {
	e := &l.entry
	if b.full() {
		b.hold(l)
		return nil
	}
	if l.err != nil {
		b.lines = append(b.lines, l) // so that it is reported in its turn
		return nil
	}
	if e.ImportMode == "" {
		e.ImportMode = b.im.mode
	}
	parent := parentOf(*e)
	if b.busy(e.ID) || parent != "" && b.busy(parent) {
		b.hold(l)
		return nil
	}
	if parent != "" && !b.im.dryRun {
		scope, err := b.im.scopeOf(ctx, parent)
		if err != nil {
			return err
		}
		if scope == "" {
			if len(b.im.parked) < maxParked {
				b.im.parked = append(b.im.parked, l)
				return nil
			}
			b.lines = append(b.lines, orphan(l))
			return nil
		}
		setParent(e, scope)
	}
	if b.names == nil {
		b.names = make(map[string]bool, hubrest.MaxBulk)
	}
	b.names[e.ID] = true
	b.bytes += 512 + len(e.Tags) + len(e.Properties.Desired) + len(e.Properties.Reported)
	b.lines = append(b.lines, l)
	return nil
}

func (b *batchBuilder) busy(device string) bool {
	return b.names[device] || b.blocked[device] || b.im.devices[device] > 0
}

func (b *batchBuilder) hold(l bulkLine) {
	b.im.held = append(b.im.held, l)
	b.blocked[l.entry.ID] = true
}

// parentOf returns the id of the IoT Edge device that an entry is to be a child
// of; "" is none.
func parentOf(e hubrest.BulkEntry) string {
	if e.ModuleID != "" || changesOnlyTwin(e.ImportMode) || deletes(e.ImportMode) {
		return ""
	}
	scope := ""
	if len(e.ParentScopes) > 0 {
		scope = e.ParentScopes[0]
	} else if e.Capabilities == nil || !e.Capabilities.IoTEdge {
		scope = e.DeviceScope // an edge device's is its own
	}
	return hubrest.ScopeDevice(scope)
}

// setParent makes e a child of the device with scope: that in the file has the
// generation id that its parent had where it was exported.
func setParent(e *hubrest.BulkEntry, scope string) {
	e.ParentScopes = []string{scope}
	e.DeviceScope = ""
	if e.Capabilities == nil || !e.Capabilities.IoTEdge {
		e.DeviceScope = scope
	}
}

// scopeOf returns the scope of an IoT Edge device of the hub, "" if there is
// none.
func (im *bulkImport) scopeOf(ctx context.Context, device string) (string, error) {
	if scope, known := im.scopes[device]; known {
		return scope, nil
	}
	var parent hubrest.Device
	err := im.throttle.do(ctx, func() (err error) {
		parent, err = im.client.Device(ctx, device)
		return err
	})
	if err != nil && !errors.Is(err, hubrest.ErrNotFound) {
		return "", err
	}
	scope := ""
	if parent.Capabilities.IoTEdge {
		scope = parent.DeviceScope
	}
	if scope != "" && len(im.scopes) < maxScopes {
		im.scopes[device] = scope
	}
	return scope, nil
}

func deletes(m hubrest.ImportMode) bool {
	return m == hubrest.ImportDelete || m == hubrest.ImportDeleteIfMatchETag
}

func changesOnlyTwin(m hubrest.ImportMode) bool {
	return m == hubrest.ImportUpdateTwin || m == hubrest.ImportUpdateTwinIfMatchETag
}

// start makes the request of a batch.
func (im *bulkImport) start(ctx, requests context.Context, lines []bulkLine) {
	for _, l := range lines {
		im.devices[l.entry.ID]++
	}
	im.running++
	go func() {
		b := bulkBatch{lines: lines, results: make([]lineResult, len(lines))}
		var todo []int
		for i, l := range lines {
			b.results[i] = lineResult{Line: l.number, ID: l.entry.ID, ModuleID: l.entry.ModuleID, Mode: l.entry.ImportMode}
			if l.err != nil {
				b.results[i].fail("failed", 0, l.err.Error())
				continue
			}
			todo = append(todo, i)
		}
		switch {
		case len(todo) == 0:
		case im.dryRun:
			b.err = im.rehearse(ctx, b, todo)
		default:
			b.err = im.apply(ctx, requests, b, todo)
		}
		im.done <- b
	}()
}

func (r *lineResult) fail(result string, code int, reason string) {
	r.Result, r.Code, r.Reason, r.failed = result, code, reason, true
}

// finish reports a batch.
func (im *bulkImport) finish(b bulkBatch) error {
	for i, r := range b.results {
		device := b.lines[i].entry.ID
		if im.devices[device]--; im.devices[device] == 0 {
			delete(im.devices, device)
		}
		switch {
		case r.Result == "":
			im.unsent = append(im.unsent, r.Line)
			continue
		case r.failed:
			im.Failed++
		default:
			im.Succeeded++
		}
		if err := im.report(r); err != nil {
			return err
		}
	}
	return b.err
}

// modeDone words what a mode has done.
var modeDone = map[hubrest.ImportMode]string{
	hubrest.ImportCreate:                    "created",
	hubrest.ImportUpdate:                    "updated",
	hubrest.ImportUpdateIfMatchETag:         "updated",
	hubrest.ImportCreateOrUpdate:            "created or updated",
	hubrest.ImportCreateOrUpdateIfMatchETag: "created or updated",
	hubrest.ImportDelete:                    "deleted",
	hubrest.ImportDeleteIfMatchETag:         "deleted",
	hubrest.ImportUpdateTwin:                "twin updated",
	hubrest.ImportUpdateTwinIfMatchETag:     "twin updated",
}

// apply makes the request for the lines todo of the batch. ctx ends the waits
// between requests, and requests those under way.
func (im *bulkImport) apply(ctx, requests context.Context, b bulkBatch, todo []int) error {
	entries := make([]hubrest.BulkEntry, 0, len(todo))
	for _, i := range todo {
		entries = append(entries, wireEntry(b.lines[i].entry))
	}
	result, err := im.bulk(ctx, requests, entries)
	if refusal, ok := asAnswer(err); ok && (refusal.Status == 400 || refusal.Status == 413) {
		// The hub refuses the whole for one of them. Which one?
		if len(todo) == 1 {
			b.results[todo[0]].fail("failed", refusal.Code, reasonOf(refusal.Code, refusal.Name, refusal.Message))
			return nil
		}
		half := len(todo) / 2
		if err := im.apply(ctx, requests, b, todo[:half]); err != nil {
			return err
		}
		return im.apply(ctx, requests, b, todo[half:])
	}
	if err != nil {
		return err // no line has a result: nobody knows
	}
	failed := make(map[hubrest.Target]hubrest.BulkError, len(result.Errors))
	for _, e := range result.Errors {
		failed[hubrest.Target{DeviceID: e.DeviceID, ModuleID: e.ModuleID}] = e
	}
	var again []int
	for _, i := range todo {
		r := &b.results[i]
		e, wrong := failed[hubrest.Target{DeviceID: r.ID, ModuleID: r.ModuleID}]
		switch {
		case !wrong:
			r.Result = modeDone[r.Mode]
		case e.Code/1000 == 429 || strings.HasPrefix(e.Name, "Throttl"):
			again = append(again, i)
		default:
			r.fail("failed", e.Code, reasonOf(e.Code, e.Name, e.Message))
		}
	}
	if len(again) == 0 {
		return nil
	}
	im.throttle.refused()
	return im.apply(ctx, requests, b, again)
}

// bulk makes a request, again and again while that can do no harm.
func (im *bulkImport) bulk(ctx, requests context.Context, entries []hubrest.BulkEntry) (result hubrest.BulkResult, err error) {
	const attempts = 4
	for n := 1; ; n++ {
		err = im.throttle.do(ctx, func() (err error) {
			result, err = im.client.Bulk(requests, entries)
			return err
		})
		refusal, answered := asAnswer(err)
		if err == nil || answered && refusal.Status < 500 || n == attempts || ctx.Err() != nil {
			return result, err
		}
		if slices.ContainsFunc(entries, func(e hubrest.BulkEntry) bool { return !repeatableModes[e.ImportMode] }) {
			return result, err
		}
		im.throttle.refused()
	}
}

// repeatableModes are the modes that come to the same when they are done twice.
var repeatableModes = map[hubrest.ImportMode]bool{
	hubrest.ImportUpdate: true, hubrest.ImportCreateOrUpdate: true, hubrest.ImportUpdateTwin: true,
}

// wireEntry is what a request says of an entry: what its mode has no use for
// stays here.
func wireEntry(e hubrest.BulkEntry) hubrest.BulkEntry {
	switch {
	case deletes(e.ImportMode):
		return hubrest.BulkEntry{ID: e.ID, ModuleID: e.ModuleID, ETag: e.ETag, ImportMode: e.ImportMode}
	case changesOnlyTwin(e.ImportMode):
		return hubrest.BulkEntry{ID: e.ID, ModuleID: e.ModuleID, TwinETag: e.TwinETag, ImportMode: e.ImportMode,
			Tags: e.Tags, Properties: hubrest.BulkProperties{Desired: e.Properties.Desired}}
	case e.ModuleID == "$edgeAgent" || e.ModuleID == "$edgeHub":
		// They come with their device, and only their twins can be changed.
		return hubrest.BulkEntry{ID: e.ID, ModuleID: e.ModuleID, ImportMode: hubrest.ImportUpdateTwin,
			Tags: e.Tags, Properties: hubrest.BulkProperties{Desired: e.Properties.Desired}}
	}
	e.TwinETag = ""
	return e
}

// reasonOf words a refusal of one entry.
func reasonOf(code int, name, message string) string {
	switch {
	case code == 409001 || name == "DeviceAlreadyExists", code == 409301 || name == "ModuleAlreadyExistsOnDevice":
		return "exists already"
	case code == 404001 || name == "DeviceNotFound":
		return "the device does not exist"
	case code == 404010 || name == "ModuleNotFound":
		return "the module does not exist"
	case code == 412001 || name == "PreconditionFailed":
		return "its etag is another one: it was changed by somebody else"
	}
	return cmp.Or(message, name, "refused")
}
