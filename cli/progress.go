package cli

import (
	"cmp"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hubrest"
)

// A progressBar shows the counts of a job: in one line that changes on a
// terminal, in a line for each change elsewhere.
type progressBar struct {
	streams
	terminal bool
	shown    string // the last line
}

func (b *progressBar) show(n hubrest.JobStatistics, took time.Duration) {
	done := n.Succeeded + n.Failed
	text := fmt.Sprintf("%d of %s", done, count(n.Devices, "device"))
	if n.Failed > 0 {
		text += fmt.Sprintf(", %d failed", n.Failed)
	}
	if !b.terminal {
		if text != b.shown {
			b.note("%s", text)
		}
		b.shown = text
		return
	}
	if n.Running > 0 {
		text += fmt.Sprintf(", %d under way", n.Running)
	}
	if took >= time.Second && done > 0 {
		text += fmt.Sprintf(", %.0f/s", float64(done)/took.Seconds())
	}
	b.shown = text
	width := min(30, cmp.Or(terminalWidth(b.errOut), usualWidth)-1-len("[] ")-len(text))
	if full := width * done / n.Devices; width > 0 {
		b.shown = "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] " + text
	}
	redraw(b.errOut, b.shown)
}

// clear takes the line from a terminal, to make room for another.
func (b *progressBar) clear() {
	if b.terminal && b.shown != "" {
		fmt.Fprint(b.errOut, eraseLine)
		b.shown = ""
	}
}

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

// count is a number of things for people.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprint(n, " ", what, "s")
}

// rate says how fast n things were done, if there is anything to say.
func rate(n int, took time.Duration) string {
	if n < 2 || took <= 0 {
		return ""
	}
	return fmt.Sprintf(" in %v, %.0f/s", took.Round(10*time.Millisecond), float64(n)/took.Seconds())
}
