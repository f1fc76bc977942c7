package cli

import (
	"io"
	"regexp"
	"strings"

	"github.com/iotdm/iotdm/cli/internal/output"
)

// A helpPage collects the help that urfave/cli prints, which knows no terminal.
type helpPage struct {
	strings.Builder
	out   io.Writer
	width int // of the terminal
}

// print prints what has been collected so that it fits the terminal.
func (p *helpPage) print() error {
	_, err := io.WriteString(p.out, fitHelp(p.String(), p.width))
	return err
}

// beside puts what a name stands for beside it, in a column that leaves it room: below
// a name that is longer.
func beside(name, what string, width int) string {
	column := min(len(name), width*2/5)
	name = strings.TrimRight(name, " ")
	head := name + strings.Repeat(" ", max(column-len(name), 0))
	if len(name)+2 > column {
		head = output.Wrap(name, 6, width) + "\n" + strings.Repeat(" ", column)
	}
	return head + output.Wrap(what, column, width)
}

// widestProse is how long lines are at most that are read as text.
const widestProse = 100

var (
	prose  = regexp.MustCompile(`^ {3}\S`)
	twoWay = regexp.MustCompile(`^( {3,}\S+(?: \S+)* {2,})(\S.*)$`) // a name, and what it is
)

// fitHelp breaks the lines of a help page that are too long for a terminal: the text
// of a description as a whole, and what names stand for beside them. Examples stay as
// they are, to be copied.
func fitHelp(text string, width int) string {
	var b strings.Builder
	var paragraph []string
	flush := func() {
		if paragraph != nil {
			b.WriteString("   " + output.Wrap(strings.Join(paragraph, " "), 3, min(width, widestProse)) + "\n")
		}
		paragraph = nil
	}
	inDescription := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		if line != "" && line[0] != ' ' {
			inDescription = line == "DESCRIPTION:"
		}
		if inDescription && prose.MatchString(line) && !twoWay.MatchString(line) {
			paragraph = append(paragraph, strings.TrimSpace(line))
			continue
		}
		flush()
		switch m := twoWay.FindStringSubmatch(line); {
		case inDescription:
		case m != nil:
			line = beside(m[1], m[2], width)
		default:
			text := strings.TrimLeft(line, " ")
			indent := len(line) - len(text)
			line = line[:indent] + output.Wrap(text, indent, width)
		}
		b.WriteString(line + "\n")
	}
	flush()
	return b.String()
}
