package service

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
)

// A progressBar shows the counts of a job: in one line that changes on a
// terminal, in a line for each change elsewhere.
type progressBar struct {
	output.Streams
	terminal bool
	shown    string // the last line
}

func (b *progressBar) show(n hubrest.JobStatistics, took time.Duration) {
	done := n.Succeeded + n.Failed
	text := fmt.Sprintf("%d of %s", done, output.Count(n.Devices, "device"))
	if n.Failed > 0 {
		text += fmt.Sprintf(", %d failed", n.Failed)
	}
	if !b.terminal {
		if text != b.shown {
			b.Note("%s", text)
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
	width := min(30, cmp.Or(output.TerminalWidth(b.ErrOut), output.UsualWidth)-1-len("[] ")-len(text))
	if full := width * done / n.Devices; width > 0 {
		b.shown = "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] " + text
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
