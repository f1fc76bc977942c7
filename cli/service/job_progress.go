package service

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
)

// A progressBar shows how many of some devices are done: in one line that changes
// on a terminal, in a line for each change elsewhere.
type progressBar struct {
	output.Streams
	terminal bool
	shown    string // the last line
}

func newProgressBar(s output.Streams) progressBar {
	return progressBar{Streams: s, terminal: output.CanRedraw(s.ErrOut)}
}

// showJob shows the counts of a job.
func (b *progressBar) showJob(n hubrest.JobStatistics, took time.Duration) {
	done := n.Succeeded + n.Failed
	text := fmt.Sprintf("%d of %s", done, output.Count(n.Devices, "device"))
	if n.Failed > 0 {
		text += fmt.Sprintf(", %d failed", n.Failed)
	}
	live := text
	if n.Running > 0 {
		live += fmt.Sprintf(", %d under way", n.Running)
	}
	if took >= time.Second && done > 0 {
		live += fmt.Sprintf(", %.0f/s", float64(done)/took.Seconds())
	}
	b.show(done, n.Devices, text, live)
}

// show shows a text, or on a terminal one that changes more often.
func (b *progressBar) show(done, all int, text, live string) {
	if !b.terminal {
		if text != b.shown {
			b.Note("%s", text)
		}
		b.shown = text
		return
	}
	b.shown = live
	width := min(30, cmp.Or(output.TerminalWidth(b.ErrOut), output.UsualWidth)-len("[] ^C")-len(live)) // a line that Ctrl-C breaks cannot be taken back
	if width > 0 {
		full := width * done / all
		b.shown = "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] " + live
	}
	output.Redraw(b.ErrOut, b.shown)
}

// clear takes the line from a terminal, to make room for another.
func (b *progressBar) clear() {
	if b.terminal && b.shown != "" {
		output.EraseLine(b.ErrOut)
		b.shown = ""
	}
}

// mostNotes is how many failures people are told of one by one.
const mostNotes = 10

// failureNotes tell of devices that fail as they do: of the first ones, for they
// may be many, and most will fail for the same reason.
type failureNotes struct {
	output.Streams
	bar  *progressBar // which is in the way
	told int
}

func (n *failureNotes) tell(format string, args ...any) {
	if n.told++; n.told > mostNotes+1 {
		return
	}
	n.bar.clear()
	if n.told > mostNotes {
		n.Note("More failures are counted, but not shown one by one")
		return
	}
	n.Note(format, args...)
}
