// Package bulk imports and exports the devices and modules of a hub, with their
// twins: lines of JSON as the import and export jobs of IoT Hub have them, or CSV.
//
// An [Import] reads lines as long as it has requests to fill (import.go), chooses
// those that may go out together (batch.go), looks what they would change (look.go),
// and sends those that change something (apply.go). A line waits as long as one of its device is
// under way; a child waits for its parent, to the end of the file if need be, and
// with it what follows of its device.
package bulk

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
	// maxParked bounds the lines whose parent has not come yet, and those of the
	// same devices behind them.
	maxParked = 20_000
	// maxScopes bounds the scopes of parents that are remembered.
	maxScopes = 100_000
	// lastRequests is how long requests under way may take after Ctrl-C.
	lastRequests = 15 * time.Second
)

// An Import applies the lines of a file to a hub: many in one request, and
// several requests at a time. It is bounded in memory, whatever the file.
type Import struct {
	Client   *hubrest.Client
	Lines    Reader
	Mode     hubrest.ImportMode  // of lines without one
	DryRun   bool                // only find out what would be done
	FromLine int                 // leave out those before
	Parallel int                 // requests at a time, at least 1
	Paused   func(time.Duration) // hears of each pause that a busy hub makes it take; nil: nobody

	// Report is called for each line once, when it is known what became of it.
	// An error ends the import.
	Report func(LineResult) error

	// What came of it so far. Broken is why the file could not be read to its
	// end.
	Counts Counts
	Broken error

	// Only the goroutine of Run touches what follows; requests are goroutines
	// that send what came of them through done.
	throttle *throttle
	ended    bool // nothing more is read
	read     int  // the last line that was read
	held     []Line
	parked   []Line
	waiting  map[string]bool   // devices with a parked line
	scopes   map[string]string // of parents, by device id; "" has none
	running  int
	devices  map[string]int // entries under way, by device id
	done     chan outcome
	unsent   []int // lines of requests that did not go out
}

// An outcome is a request, with what came of it.
type outcome struct {
	lines   []Line
	results []LineResult // of lines; one without a Result was not sent
	err     error        // why the import has to end
}

// A LineResult is what became of a line.
type LineResult struct {
	Line     int                `json:"line"` // its first in the file, from 1
	ID       string             `json:"id,omitempty"`
	ModuleID string             `json:"moduleId,omitempty"`
	Mode     hubrest.ImportMode `json:"importMode,omitempty"`
	Result   string             `json:"result"` // such as "created", "unchanged", "failed" or "would update"
	Code     int                `json:"errorCode,omitempty"`
	Reason   string             `json:"reason,omitempty"`
	Changes  []Change           `json:"changes,omitempty"` // of what was there

	failed    bool
	connected bool
	did       string // the Result once the hub has done it
}

// Run imports the lines. It is called once, and returns nil when every line was
// looked at, be it in vain; what the hub refuses line by line is no error. After an
// error, Resume says where to go on.
func (im *Import) Run(ctx context.Context) error {
	im.throttle = &throttle{paused: im.Paused}
	im.devices, im.scopes, im.waiting, im.done = make(map[string]int), make(map[string]string), make(map[string]bool), make(chan outcome)
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastRequests, cancel) })()
	var failure error
	for {
		for failure == nil && ctx.Err() == nil && im.running < im.Parallel {
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
			return cmp.Or(failure, ctx.Err(), im.Broken)
		}
		batch := <-im.done
		im.running--
		if err := im.finish(batch); err != nil && failure == nil {
			failure = err
		}
	}
}

// Resume returns the first line that was not done.
func (im *Import) Resume() int {
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
func (im *Import) fill(ctx context.Context) ([]Line, error) {
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
		l, err := im.Lines.next()
		if errors.Is(err, io.EOF) {
			im.ended = true
			break
		}
		if err != nil {
			im.ended, im.Broken = true, err
			break
		}
		im.read = l.number
		if l.number < im.FromLine {
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

// park puts a line aside until the end of the file, and with it those of its
// device that follow.
func (im *Import) park(l Line) {
	im.parked = append(im.parked, l)
	im.waiting[l.entry.ID] = true
}

// unpark looks once more for the parents that were missing, at the end of the
// file. A parent may itself be among the parked.
func (im *Import) unpark(ctx context.Context) ([]Line, error) {
	parked := im.parked
	im.parked = nil
	parents := make(map[string]bool)
	for _, l := range parked {
		parents[l.entry.ID] = true
	}
	clear(im.scopes)
	clear(im.waiting)
	var orphans []Line
	for i, l := range parked {
		parent := parentOf(l.entry)
		if im.waiting[l.entry.ID] { // behind one that stays
			im.park(l)
			continue
		}
		if parent == "" {
			im.held = append(im.held, l)
			continue
		}
		scope, err := im.scopeOf(ctx, parent)
		switch {
		case err != nil:
			im.parked = append(im.parked, parked[i:]...)
			return nil, err
		case scope != "":
			im.held = append(im.held, l)
		case parents[parent]:
			im.park(l)
		default:
			orphans = append(orphans, orphan(l))
		}
	}
	if len(im.held) == 0 && len(orphans) == 0 { // parents of each other
		for _, l := range im.parked {
			if parentOf(l.entry) == "" {
				im.held = append(im.held, l)
			} else {
				orphans = append(orphans, orphan(l))
			}
		}
		im.parked = nil
		clear(im.waiting)
	}
	if len(orphans) > 0 {
		return orphans, nil
	}
	return im.fill(ctx)
}

func orphan(l Line) Line {
	l.err = fmt.Errorf("its parent %q is not an IoT Edge device of the hub", parentOf(l.entry))
	return l
}

// start makes the request of a batch.
func (im *Import) start(ctx, requests context.Context, lines []Line) {
	for _, l := range lines {
		im.devices[l.entry.ID]++
	}
	im.running++
	go func() {
		b := outcome{lines: lines, results: make([]LineResult, len(lines))}
		var todo []int
		for i, l := range lines {
			b.results[i] = LineResult{Line: l.number, ID: l.entry.ID, ModuleID: l.entry.ModuleID, Mode: l.entry.ImportMode}
			if l.err != nil {
				b.results[i].fail("failed", 0, l.err.Error())
				continue
			}
			todo = append(todo, i)
		}
		if len(todo) > 0 {
			todo, b.err = im.look(ctx, b, todo)
		}
		if len(todo) > 0 && b.err == nil {
			b.err = im.apply(ctx, requests, b, todo)
		}
		im.done <- b
	}()
}

// Failed reports whether nothing came of the line.
func (r LineResult) Failed() bool { return r.failed }

func (r *LineResult) fail(result string, code int, reason string) {
	r.Result, r.Code, r.Reason, r.Changes, r.failed = result, code, reason, nil, true
}

// finish reports a batch.
func (im *Import) finish(b outcome) error {
	for i, r := range b.results {
		device := b.lines[i].entry.ID
		if im.devices[device]--; im.devices[device] == 0 {
			delete(im.devices, device)
		}
		if r.Result == "" {
			im.unsent = append(im.unsent, r.Line)
			continue
		}
		im.Counts.add(r)
		if err := im.Report(r); err != nil {
			return err
		}
	}
	return b.err
}

// Why is what changes, or why it does not, for people.
func (r LineResult) Why() string {
	if len(r.Changes) > 0 {
		var changes []string
		for _, c := range r.Changes {
			changes = append(changes, c.String())
		}
		return strings.Join(changes, ", ")
	}
	if r.Code == 0 {
		return r.Reason
	}
	return fmt.Sprintf("%s (%d)", r.Reason, r.Code)
}
