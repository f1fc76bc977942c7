package fault

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/hub/query"
)

// An Active is a fault that was added.
type Active struct {
	ID int // counts from 1
	Fault
	Struck int       // how often it has struck
	Until  time.Time // when it ends by the hub's clock; zero is never
	Ended  bool      // its count or its time is used up
}

// Left returns how often the fault may strike yet, and false if that has no bound.
func (a *Active) Left() (n int, bounded bool) {
	switch {
	case a.Ended:
		return 0, true
	case a.Count == 0:
		return 0, false
	}
	return a.Count - a.Struck, true
}

// Faults are the faults of a hub. Its methods may be called concurrently, and a nil *Faults has none, at no cost.
type Faults struct {
	now   func() time.Time
	going atomic.Int64 // how many have not ended: most hubs under test have none most of the time

	mu   sync.Mutex // guards what follows; never held while a twin is looked at
	list []*entry   // in the order in which they were added
	last int        // the last id
}

type entry struct {
	Active
	where *query.Query // nil is everyone
}

// MaxFaults is how many faults a hub has at a time. Those that have ended make room.
const MaxFaults = 1000

// ErrTooMany means that there are MaxFaults faults, and none has ended.
var ErrTooMany = errors.New("there are too many faults at a time: clear some")

// New returns no faults. now is the hub's clock.
func New(now func() time.Time) *Faults { return &Faults{now: now} }

// Add adds a fault, which strikes from now on. Where several could strike, the one that was added first does until it has
// ended: so a test can say "twice this and then that".
//
// Errors: those of [Fault.Validate], ErrTooMany.
func (f *Faults) Add(add Fault) (Active, error) {
	if err := add.Validate(); err != nil {
		return Active{}, err
	}
	where, err := add.condition()
	if err != nil {
		return Active{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if len(f.list) >= MaxFaults {
		f.endLocked(now)
		at := slices.IndexFunc(f.list, func(e *entry) bool { return e.Ended })
		if at < 0 {
			return Active{}, ErrTooMany
		}
		f.list = slices.Delete(f.list, at, at+1)
	}
	f.last++
	e := &entry{Active: Active{ID: f.last, Fault: add}, where: where}
	if add.For > 0 {
		e.Until = now.Add(add.For)
	}
	f.list = append(f.list, e)
	f.going.Add(1)
	return e.Active, nil
}

// endLocked ends the faults whose time is up.
func (f *Faults) endLocked(now time.Time) {
	for _, e := range f.list {
		if !e.Ended && !e.Until.IsZero() && !now.Before(e.Until) {
			f.endOneLocked(e)
		}
	}
}

func (f *Faults) endOneLocked(e *entry) {
	e.Ended = true
	f.going.Add(-1)
}

// List returns the faults in the order in which they were added, those that have ended included.
func (f *Faults) List() []Active {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endLocked(f.now())
	list := make([]Active, len(f.list))
	for i, e := range f.list {
		list[i] = e.Active
	}
	return list
}

// Clear removes the fault with the id, and reports whether there was one.
func (f *Faults) Clear(id int) bool {
	return f.clear(func(e *entry) bool { return e.ID == id }) > 0
}

// ClearAll removes all faults and returns how many there were. Ids go on.
func (f *Faults) ClearAll() int {
	return f.clear(func(*entry) bool { return true })
}

func (f *Faults) clear(match func(*entry) bool) int {
	if f == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.list)
	f.list = slices.DeleteFunc(f.list, func(e *entry) bool {
		if !match(e) {
			return false
		}
		if !e.Ended {
			f.endOneLocked(e) // whoever looks at it now finds that it has
		}
		return true
	})
	return before - len(f.list)
}

// Strike returns what is to go wrong with the target, if something is, and counts it. A fault with a count strikes exactly
// so often, whoever asks at the same time.
func (f *Faults) Strike(on Point, t *Target) (Fault, bool) {
	return f.strike(t, func(e *entry) bool { return e.On == on })
}

// StrikeOne is Strike by the one fault with the id.
func (f *Faults) StrikeOne(id int, t *Target) bool {
	_, ok := f.strike(t, func(e *entry) bool { return e.ID == id })
	return ok
}

func (f *Faults) strike(t *Target, among func(*entry) bool) (Fault, bool) {
	if f == nil || f.going.Load() == 0 {
		return Fault{}, false
	}
	for _, e := range f.candidates(t, among) {
		if e.where != nil {
			doc, ok := t.Twin()
			if !ok || !e.where.Match(doc) {
				continue
			}
		}
		if f.take(e) {
			return e.Fault, true
		}
	}
	return Fault{}, false
}

// candidates returns the faults that strike the target unless a condition keeps them from it.
func (f *Faults) candidates(t *Target, among func(*entry) bool) (found []*entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endLocked(f.now())
	for _, e := range f.list {
		if e.Ended || !among(e) || !e.names(t) {
			continue
		}
		found = append(found, e)
		if e.where == nil && e.Count == 0 {
			break // it strikes
		}
	}
	return found
}

// take counts a strike of e, and reports false if another one was the last.
func (f *Faults) take(e *entry) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Ended {
		return false
	}
	e.Struck++
	if e.Struck == e.Count {
		f.endOneLocked(e)
	}
	return true
}
