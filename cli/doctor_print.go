package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/iotdm/iotdm/cli/doctor"
)

// verdictColours are terminal colours that are legible on light and dark.
var verdictColours = map[doctor.Verdict]string{doctor.OK: "\x1b[32m", doctor.Warning: "\x1b[33m", doctor.Failed: "\x1b[31m", doctor.Skipped: "\x1b[2m"}

// A checkPrinter prints checks for people as they are made, and on a terminal
// what is waited for.
type checkPrinter struct {
	streams
	people bool // false: results are printed elsewhere, in a machine's form
	colour bool
	width  int // of the terminal; 0: lines are not broken
	wait   bool
	err    error // why a check could not be printed
}

func newCheckPrinter(s streams, people bool) *checkPrinter {
	return &checkPrinter{streams: s, people: people, colour: colours(s.out), width: terminalWidth(s.out), wait: canRedraw(s.errOut)}
}

func (p *checkPrinter) begin(what string) {
	if p.wait {
		redraw(p.errOut, "looking at "+what+" ...")
	}
}

func (p *checkPrinter) done(c doctor.Check) {
	p.end()
	if p.people && p.err == nil {
		_, p.err = io.WriteString(p.out, p.format(c))
	}
}

// end takes away what begin wrote.
func (p *checkPrinter) end() {
	if p.wait {
		io.WriteString(p.errOut, eraseLine)
	}
}

// format is one line, and a second one for the remedy.
func (p *checkPrinter) format(c doctor.Check) string {
	const verdict, name = 8, 11
	label := fmt.Sprintf("%-*s", verdict, c.Verdict)
	if p.colour {
		label = verdictColours[c.Verdict] + label + "\x1b[0m"
	}
	indent := verdict + name + 1
	text := label + fmt.Sprintf("%-*s ", name, c.Name) + wrap(c.Detail, indent, p.width) + "\n"
	if c.Remedy != "" {
		text += strings.Repeat(" ", indent) + "-> " + wrap(c.Remedy, indent+3, p.width) + "\n"
	}
	return text
}

// wrap breaks text between words so that it fits beside an indent. A width that
// leaves no room, or is 0, breaks nothing.
func wrap(text string, indent, width int) string {
	if width-indent < 20 {
		return text
	}
	var b strings.Builder
	column := indent
	for i, word := range strings.Split(text, " ") {
		switch {
		case i == 0:
		case column+1+len(word) > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
