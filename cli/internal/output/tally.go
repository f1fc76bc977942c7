package output

import (
	"fmt"
	"sync"
	"time"
)

// A Tally shows on a terminal how far a long operation is, in one line that
// changes. Elsewhere it is silent. It is safe for concurrent use.
type Tally struct {
	Streams
	terminal bool
	began    time.Time

	mu    sync.Mutex // guards what follows
	last  time.Time
	shown bool
}

// patience is how long something takes before anybody wants to know how far it is.
const patience = 500 * time.Millisecond

// NewTally returns a tally of what begins now.
func NewTally(s Streams) *Tally {
	return &Tally{Streams: s, terminal: CanRedraw(s.ErrOut), began: time.Now()}
}

// NewRowTally returns a tally of results that are printed as they come: nobody
// needs it where they can be seen.
func NewRowTally(s Streams) *Tally {
	t := NewTally(s)
	t.terminal = t.terminal && !IsTerminal(s.Out)
	return t
}

// Show shows text and the rate of n, at most ten times a second.
func (t *Tally) Show(n int, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if !t.terminal || now.Sub(t.began) < patience || now.Sub(t.last) < 100*time.Millisecond {
		return
	}
	if took := now.Sub(t.began); took >= time.Second {
		text += fmt.Sprintf(", %.0f/s", float64(n)/took.Seconds())
	}
	t.last, t.shown = now, true
	Redraw(t.ErrOut, text)
}

// Clear takes the line away, to make room for another.
func (t *Tally) Clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shown {
		EraseLine(t.ErrOut)
		t.shown = false
	}
}

// Tell prints a line for people.
func (t *Tally) Tell(format string, args ...any) {
	t.Clear()
	t.Note(format, args...)
}

// TellPause tells people that a busy hub is left alone for d.
func (t *Tally) TellPause(d time.Duration) { t.Tell("The hub is busy or away; trying again in %v", d) }
