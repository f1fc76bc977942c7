package doctor

import (
	"fmt"
	"io"
	"strings"

	"github.com/iotdm/iotdm/cli/internal/output"
)

// verdictColours are terminal colours that are legible on light and dark.
var verdictColours = map[Verdict]string{OK: "\x1b[32m", Warning: "\x1b[33m", Failed: "\x1b[31m", Skipped: "\x1b[2m"}

// A printer prints checks for people as they are made, and on a terminal
// what is waited for.
type printer struct {
	output.Streams
	people bool // false: results are printed elsewhere, in a machine's form
	colour bool
	width  int // of the terminal; 0: lines are not broken
	wait   bool
	err    error // why a check could not be printed
}

func newPrinter(s output.Streams, people bool) *printer {
	return &printer{Streams: s, people: people, colour: output.Colours(s.Out), width: output.TerminalWidth(s.Out), wait: output.CanRedraw(s.ErrOut) && output.IsTerminal(s.Out)}
}

func (p *printer) begin(what string) {
	if p.wait {
		output.Redraw(p.ErrOut, "looking at "+what+" ...")
	}
}

func (p *printer) done(c Check) {
	p.end()
	if p.people && p.err == nil {
		_, p.err = io.WriteString(output.Unguarded(p.Out), p.format(c))
	}
}

// end takes away what begin wrote.
func (p *printer) end() {
	if p.wait {
		output.EraseLine(p.ErrOut)
	}
}

// Print writes checks to w, for people.
func Print(s output.Streams, w io.Writer, checks []Check) error {
	p := newPrinter(s, true)
	for _, c := range checks {
		if _, err := io.WriteString(output.Unguarded(w), p.format(c)); err != nil {
			return err
		}
	}
	return nil
}

// format is one line, and a second one for the remedy.
func (p *printer) format(c Check) string {
	const verdict, name = 8, 11
	label := fmt.Sprintf("%-*s", verdict, c.Verdict)
	if p.colour {
		label = verdictColours[c.Verdict] + label + "\x1b[0m"
	}
	indent := verdict + name + 1
	text := label + fmt.Sprintf("%-*s ", name, c.Name) + output.Wrap(output.Visible(c.Detail), indent, p.width) + "\n"
	if c.Remedy != "" {
		text += strings.Repeat(" ", indent) + "-> " + output.Wrap(output.Visible(c.Remedy), indent+3, p.width) + "\n"
	}
	return text
}
