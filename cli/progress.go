package cli

import (
	"fmt"
	"strings"
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
	text := fmt.Sprintf("%d of %d devices", done, n.Devices)
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
	// A line that does not fit could not be taken back.
	width := min(30, 79-len("[] ")-len(text))
	full := width * done / n.Devices
	b.shown = "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] " + text
	fmt.Fprintf(b.errOut, "\r\x1b[K%s", b.shown)
}

// clear takes the line from a terminal, to make room for another.
func (b *progressBar) clear() {
	if b.terminal && b.shown != "" {
		fmt.Fprint(b.errOut, "\r\x1b[K")
		b.shown = ""
	}
}

// A counter shows on a terminal how many of something there have been so far,
// while the results go elsewhere.
type counter struct {
	streams
	what    string
	visible bool
	began   time.Time
	n       int
	shown   time.Time
}

func newCounter(s streams, what string) *counter {
	return &counter{streams: s, what: what, visible: isTerminal(s.errOut) && !isTerminal(s.out), began: time.Now()}
}

func (c *counter) add() {
	c.n++
	if !c.visible || c.n%64 != 0 {
		return
	}
	now := time.Now()
	if now.Sub(c.began) < time.Second || now.Sub(c.shown) < time.Second/4 {
		return
	}
	c.shown = now
	fmt.Fprintf(c.errOut, "\r\x1b[K%d %s, %.0f/s", c.n, c.what, float64(c.n)/now.Sub(c.began).Seconds())
}

// clear takes the count from the terminal.
func (c *counter) clear() {
	if !c.shown.IsZero() {
		fmt.Fprint(c.errOut, "\r\x1b[K")
	}
}
