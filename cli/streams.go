package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// streams are where a command reads and writes. Results go to out; progress,
// notes and errors go to errOut, so that a pipe only sees results.
type streams struct {
	in          io.Reader
	out, errOut io.Writer
}

// note prints one line for people.
func (s streams) note(format string, args ...any) {
	fmt.Fprintf(s.errOut, format+"\n", args...)
}

// isTerminal reports whether a person sees what is written to w.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colours reports whether text written to w may be coloured: on a terminal,
// unless NO_COLOR is set (no-color.org).
func colours(w io.Writer) bool {
	return isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// terminalWidth is how many characters fit on a line of w; 0 if w is no
// terminal.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// canRedraw reports whether w is a terminal on which a line can be replaced.
func canRedraw(w io.Writer) bool { return isTerminal(w) && os.Getenv("TERM") != "dumb" }

const eraseLine = "\r\x1b[K"

// redraw replaces the line of the terminal w that the cursor is on.
func redraw(w io.Writer, line string) { fmt.Fprint(w, eraseLine+fit(w, line)) }

// fit cuts a line of ASCII that the terminal w would break: only one row of it
// could be taken back.
func fit(w io.Writer, line string) string {
	return line[:min(len(line), cmp.Or(terminalWidth(w), usualWidth)-1)]
}

// usualWidth is that of a terminal which does not tell.
const usualWidth = 80

// print prints one line of result. The device and demo commands use it from
// several goroutines; a line stays whole because it is one write.
func (s streams) print(format string, args ...any) {
	fmt.Fprintf(s.out, format+"\n", args...)
}
