// Package memlog is the log of a cluster in the memory of one process, with
// faults to order: for tests of what stands on a log.
package memlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/store"
)

// window is for how long an id is known.
const window = 2 * time.Minute

// A Log is a log without faults. Nodes that are to have some use Clients of it.
// It is safe for concurrent use.
type Log struct {
	mu      sync.Mutex // guards what follows
	first   uint64
	entries []entry
	ids     map[string]time.Time // those of the window, and when they came
	changed chan struct{}        // closed when there is more, or less
}

type entry struct {
	id    string
	at    time.Time
	group []byte
}

// New returns an empty log. [store.StartLog] begins it.
func New() *Log {
	return &Log{first: 1, ids: map[string]time.Time{}, changed: make(chan struct{})}
}

// Append implements store.Log.
func (l *Log) Append(ctx context.Context, id string, group []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.take(id, group)
	return nil
}

func (l *Log) take(id string, group []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if at, ok := l.ids[id]; ok && now.Sub(at) < window {
		return
	}
	l.ids[id] = now
	l.entries = append(l.entries, entry{id, now, bytes.Clone(group)})
	l.change()
}

func (l *Log) change() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Follow implements store.Log.
func (l *Log) Follow(ctx context.Context, from uint64, fn func(pos uint64, at time.Time, group []byte) error) error {
	for ; ; from++ {
		e, err := l.at(ctx, from)
		if err != nil {
			return err
		}
		if err := fn(from, e.at, e.group); err != nil {
			return err
		}
	}
}

// at waits for the entry at a position.
func (l *Log) at(ctx context.Context, pos uint64) (entry, error) {
	for {
		if err := ctx.Err(); err != nil {
			return entry{}, err
		}
		l.mu.Lock()
		first, changed := l.first, l.changed
		var e entry
		ok := pos >= first && pos < first+uint64(len(l.entries))
		if ok {
			e = l.entries[pos-first]
		}
		l.mu.Unlock()
		switch {
		case ok:
			return e, nil
		case pos < first:
			return entry{}, store.ErrTrimmed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return entry{}, ctx.Err()
		}
	}
}

// Bounds implements store.Log.
func (l *Log) Bounds(ctx context.Context) (first, end uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first, l.first + uint64(len(l.entries)), ctx.Err()
}

// End implements store.Log. It is always sure.
func (l *Log) End(ctx context.Context) (end uint64, sure bool, err error) {
	_, end, err = l.Bounds(ctx)
	return end, err == nil, err
}

// Trim implements store.Log.
func (l *Log) Trim(ctx context.Context, before uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before > l.first {
		n := min(before-l.first, uint64(len(l.entries)))
		l.entries = l.entries[n:]
		l.first += n
		l.change()
	}
	return ctx.Err()
}

// Lose has the log forget its last n entries, as one that did not fsync does in a
// power cut.
func (l *Log) Lose(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	keep := len(l.entries) - min(n, len(l.entries))
	for _, e := range l.entries[keep:] {
		delete(l.ids, e.id)
	}
	l.entries = l.entries[:keep:keep]
	l.change()
}

// Forget has the log forget all ids, so that what is appended again is there
// twice.
func (l *Log) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.ids)
}

// Faults are what goes wrong between a node and the log. Shares are from 0 to 1.
type Faults struct {
	Seed      uint64
	Unknown   float64       // of Appends that answer an error; half of them come into the log
	Duplicate float64       // of Appends that come into the log once more, some time later
	Broken    float64       // of groups after which Follow fails
	Delay     time.Duration // that a group, and its answer, take at most, each way
}

// ErrFault is the error of what was to go wrong.
var ErrFault = errors.New("memlog: a fault to order")

// A Client is one node's way to a Log.
type Client struct {
	log    *Log
	faults Faults

	mu   sync.Mutex // guards what follows
	rand *rand.Rand
	cut  chan struct{} // closed while the way is cut
	open chan struct{} // closed while it is not
}

// Client returns a way to the log with faults.
func (l *Log) Client(f Faults) *Client {
	c := &Client{log: l, faults: f, rand: rand.New(rand.NewPCG(f.Seed, 1)), cut: make(chan struct{}), open: make(chan struct{})}
	close(c.open)
	return c
}

// Cut has nothing get through, or everything again.
func (c *Client) Cut(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.cut:
		if !cut {
			c.cut = make(chan struct{})
			close(c.open)
		}
	default:
		if cut {
			close(c.cut)
			c.open = make(chan struct{})
		}
	}
}

// passable returns channels that are closed while the way is cut, and while it is
// open.
func (c *Client) passable() (cut, open <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut, c.open
}

// way waits as long as the way takes.
func (c *Client) way(ctx context.Context) error {
	_, open := c.passable()
	select {
	case <-open:
	case <-ctx.Done():
		return ctx.Err()
	}
	if d := c.delay(); d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

func (c *Client) delay() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.faults.Delay <= 0 {
		return 0
	}
	return time.Duration(c.rand.Int64N(int64(c.faults.Delay)))
}

func (c *Client) happens(share float64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return share > 0 && c.rand.Float64() < share
}

// Append implements store.Log. What is under way when ctx ends arrives all the
// same.
func (c *Client) Append(ctx context.Context, id string, group []byte) error {
	unknown := c.happens(c.faults.Unknown)
	if unknown && c.happens(0.5) {
		return errors.Join(c.way(ctx), ErrFault)
	}
	if cut, _ := c.passable(); isClosed(cut) {
		<-ctx.Done()
		return ctx.Err()
	}
	group = bytes.Clone(group)
	taken := make(chan struct{})
	time.AfterFunc(c.delay(), func() {
		c.log.take(id, group)
		close(taken)
	})
	if c.happens(c.faults.Duplicate) {
		time.AfterFunc(c.delay()+c.delay()+c.delay(), func() { c.log.take(fmt.Sprint(id, " again ", time.Now()), group) })
	}
	if unknown {
		return errors.Join(c.way(ctx), ErrFault)
	}
	select {
	case <-taken:
	case <-ctx.Done():
		return ctx.Err()
	}
	return c.way(ctx)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Follow implements store.Log.
func (c *Client) Follow(ctx context.Context, from uint64, fn func(pos uint64, at time.Time, group []byte) error) error {
	return c.log.Follow(ctx, from, func(pos uint64, at time.Time, group []byte) error {
		if err := c.way(ctx); err != nil {
			return err
		}
		if c.happens(c.faults.Broken) {
			return ErrFault
		}
		return fn(pos, at, group)
	})
}

// Bounds implements store.Log.
func (c *Client) Bounds(ctx context.Context) (first, end uint64, err error) {
	if err := c.way(ctx); err != nil {
		return 0, 0, err
	}
	first, end, err = c.log.Bounds(ctx)
	return first, end, errors.Join(err, c.way(ctx))
}

// End implements store.Log.
func (c *Client) End(ctx context.Context) (end uint64, sure bool, err error) {
	_, end, err = c.Bounds(ctx)
	return end, err == nil, err
}

// Trim implements store.Log.
func (c *Client) Trim(ctx context.Context, before uint64) error {
	if err := c.way(ctx); err != nil {
		return err
	}
	return c.log.Trim(ctx, before)
}

// Snapshots implement store.Snapshots in memory. They are safe for concurrent use.
type Snapshots struct {
	mu    sync.Mutex // guards what follows
	pos   uint64
	state []byte
}

// Put implements store.Snapshots. It keeps the newest alone.
func (s *Snapshots) Put(ctx context.Context, pos uint64, state io.Reader) error {
	text, err := io.ReadAll(state)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if pos >= s.pos {
		s.pos, s.state = pos, text
	}
	return nil
}

// Latest implements store.Snapshots.
func (s *Snapshots) Latest(ctx context.Context) (pos uint64, state io.ReadCloser, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pos, io.NopCloser(bytes.NewReader(s.state)), ctx.Err()
}
