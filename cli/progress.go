package cli

import (
	"fmt"
	"sync"
	"time"
)

// A tally shows on a terminal how far a long operation is, in one line that
// changes. Elsewhere it is silent. It is safe for concurrent use.
type tally struct {
	streams
	terminal bool
	began    time.Time

	mu    sync.Mutex // guards what follows
	last  time.Time
	shown bool
}

func newTally(s streams) *tally {
	return &tally{streams: s, terminal: canRedraw(s.errOut), began: time.Now()}
}

// newRowTally returns a tally of results that are printed as they come: nobody
// needs it where they can be seen.
func newRowTally(s streams) *tally {
	t := newTally(s)
	t.terminal = t.terminal && !isTerminal(s.out)
	return t
}

// show shows text and the rate of n, at most ten times a second.
func (t *tally) show(n int, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if !t.terminal || now.Sub(t.last) < 100*time.Millisecond {
		return
	}
	if took := now.Sub(t.began); took >= time.Second {
		text += fmt.Sprintf(", %.0f/s", float64(n)/took.Seconds())
	}
	t.last, t.shown = now, true
	redraw(t.errOut, text)
}

// clear takes the line away, to make room for another.
func (t *tally) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shown {
		fmt.Fprint(t.errOut, eraseLine)
		t.shown = false
	}
}

// tell prints a line for people.
func (t *tally) tell(format string, args ...any) {
	t.clear()
	t.note(format, args...)
}
