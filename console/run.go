package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/iotdm/iotdm/internal/bulk"
)

const (
	maxRuns    = 50 // the oldest that has ended makes room
	maxRunning = 4
	maxUploads = 4  // files of rehearsals that may still be imported
	maxLines   = 50 // of each kind that a run shows
)

// A run is work that takes the console longer than an answer may: an import, or a change of many identities. It goes on
// when nobody looks, and ends with the console.
type run struct {
	id     string
	title  string
	by     string // the user; empty: whoever had a token or the password
	need   need
	cancel context.CancelFunc

	mu    sync.Mutex // guards what follows
	state runState
	next  *upload // of a rehearsal: what may be imported; nil: nothing
}

// A runState is how far a run is.
type runState struct {
	Rehearsal bool
	Began     time.Time
	Ended     time.Time // zero: it goes on
	Looked    int       // identities that were looked up before anything is done
	Counts    bulk.Counts
	Total     int64 // of Done; 0: not known
	Done      int64
	Paused    time.Time         // until when the hub is left alone
	Failures  []bulk.LineResult // the first ones
	Changes   []bulk.LineResult // the first lines that change what is there
	Problem   string            // why it ended early
	Cancelled bool
}

// Took is how long the run takes, so far.
func (s runState) Took(now time.Time) time.Duration {
	if !s.Ended.IsZero() {
		now = s.Ended
	}
	return now.Sub(s.Began).Round(time.Second)
}

// look returns how far the run is, and whether there is something to import.
func (r *run) look() (runState, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	s.Failures, s.Changes = slices.Clone(s.Failures), slices.Clone(s.Changes)
	return s, r.next != nil
}

func (r *run) change(f func(*runState)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.state)
}

// takeUpload returns what may be imported, which nobody else gets.
func (r *run) takeUpload() *upload {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.next
	r.next = nil
	return u
}

// runs are those that the console remembers, the newest first.
type runs struct {
	mu   sync.Mutex
	list []*run
}

func (rs *runs) find(id string) *run {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.list {
		if r.id == id {
			return r
		}
	}
	return nil
}

func (rs *runs) all() []*run {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return slices.Clone(rs.list)
}

// add remembers a run, and forgets the oldest one and files that nobody has imported.
func (rs *runs) add(r *run) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	running, uploads := 0, 0
	for _, other := range rs.list {
		state, pending := other.look()
		if state.Ended.IsZero() {
			running++
		}
		if pending {
			if uploads++; uploads >= maxUploads {
				other.takeUpload().close()
			}
		}
	}
	if running >= maxRunning {
		return &problem{status: http.StatusTooManyRequests, text: fmt.Sprintf("%d imports or changes of many devices are under way; wait until one has ended, or cancel it", running)}
	}
	rs.list = slices.Insert(rs.list, 0, r)
	if len(rs.list) > maxRuns {
		for i, old := range slices.Backward(rs.list) {
			if state, _ := old.look(); !state.Ended.IsZero() {
				old.takeUpload().close()
				rs.list = slices.Delete(rs.list, i, i+1)
				break
			}
		}
	}
	return nil
}

// close lets go of all files. All runs have ended.
func (rs *runs) close() {
	for _, r := range rs.all() {
		r.takeUpload().close()
	}
}

// begin starts a run. Work returns when ctx ends; its error is what the user reads.
func (c *Console) begin(req *http.Request, title string, n need, rehearsal bool, work func(ctx context.Context, r *run) error) (*run, error) {
	ctx, cancel := context.WithCancel(c.ctx)
	r := &run{id: secret(), title: title, by: userOf(req), need: n, cancel: cancel, state: runState{Began: c.now(), Rehearsal: rehearsal}}
	if err := c.runs.add(r); err != nil {
		cancel()
		return nil, err
	}
	c.wg.Go(func() {
		defer cancel()
		err := work(ctx, r)
		r.change(func(s *runState) {
			s.Ended = c.now()
			if s.Cancelled = ctx.Err() != nil; err != nil && !s.Cancelled {
				s.Problem = c.explain(ctx, err)
			}
		})
	})
	return r, nil
}

// An importer is an import of whatever a file has in it.
type importer struct {
	run    func(context.Context) error
	report *func(bulk.LineResult) error
	counts *bulk.Counts
	broken *error // why the lines could not be read to their end
}

// follow runs the importer and keeps how far it is.
func (r *run) follow(ctx context.Context, im importer, in *meter) error {
	*im.report = func(line bulk.LineResult) error {
		r.change(func(s *runState) {
			s.Counts, s.Done = *im.counts, in.read
			switch {
			case line.Failed() && len(s.Failures) < maxLines:
				s.Failures = append(s.Failures, line)
			case !line.Failed() && len(line.Changes) > 0 && len(s.Changes) < maxLines:
				s.Changes = append(s.Changes, line)
			}
		})
		return nil
	}
	err := im.run(ctx)
	r.change(func(s *runState) { s.Counts, s.Done = *im.counts, in.read })
	return err
}

// paused returns a function that keeps until when a busy hub is left alone.
func (c *Console) paused(r *run) func(time.Duration) {
	return func(d time.Duration) { r.change(func(s *runState) { s.Paused = c.now().Add(d) }) }
}

// A meter counts what is read, for the one goroutine that reads.
type meter struct {
	io.Reader
	read int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.read += int64(n)
	return n, err
}

// spool returns a file that nobody else can open, and that is gone once it is closed.
func spool() (*os.File, error) {
	f, err := os.CreateTemp("", "iotdm-console-*")
	if err != nil {
		return nil, errors.New("there is no room for a temporary file: " + err.Error())
	}
	os.Remove(f.Name()) // where a file can do without a name
	return f, nil
}

// unspool closes a file of spool.
func unspool(f *os.File) {
	f.Close()
	os.Remove(f.Name())
}

// runPage is the data of the page of a run.
type runPage struct {
	ID, Title, By string
	State         runState
	Running       bool
	May           bool   // the console may do what the run does
	Pending       bool   // there is a file to import
	Question      string // what an import would do to what is there; empty: nothing
	Want          int    // how many identities that are, to be typed
	Took          time.Duration
	Waits         time.Duration // how long the hub is left alone, still
}

func (c *Console) runPage(r *http.Request, run *run) runPage {
	state, pending := run.look()
	p := runPage{ID: run.id, Title: run.title, By: run.by, State: state, Running: state.Ended.IsZero(), Took: state.Took(c.now())}
	p.May = c.refusal(r.Context(), run.need) == nil
	p.Pending = pending && !p.Running && state.Problem == "" && !state.Cancelled
	p.Question, p.Want = state.Counts.Question(), state.Counts.Updated+state.Counts.Deleted
	p.Waits = max(0, state.Paused.Sub(c.now()).Round(time.Second))
	return p
}

func (c *Console) runOf(r *http.Request) (*run, error) {
	if run := c.runs.find(r.PathValue("id")); run != nil {
		return run, nil
	}
	return nil, &problem{status: http.StatusNotFound, text: "this work is no longer known: the console remembers the last ones since it was started"}
}

func (c *Console) showRun(w http.ResponseWriter, r *http.Request) error {
	run, err := c.runOf(r)
	if err != nil {
		return err
	}
	p := c.runPage(r, run)
	c.render(w, r, page{Template: "run", Title: p.Title, Section: "Jobs", Data: p})
	return nil
}

func (c *Console) cancelRun(w http.ResponseWriter, r *http.Request) error {
	run, err := c.runOf(r)
	if err != nil {
		return err
	}
	if err := c.refusal(r.Context(), run.need); err != nil {
		return err
	}
	text := "It is being cancelled; requests that are under way are still answered."
	if state, _ := run.look(); !state.Ended.IsZero() {
		text = "It had ended already."
	}
	run.cancel()
	return c.done(w, r, "/run/"+run.id, text)
}
