package output

import (
	"cmp"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// Streams are where a command reads and writes. Results go to Out; progress,
// notes and errors go to ErrOut, so that a pipe only sees results.
type Streams struct {
	In          io.Reader
	Out, ErrOut io.Writer
}

// Note prints one line for people.
func (s Streams) Note(format string, args ...any) {
	fmt.Fprintf(s.ErrOut, format+"\n", args...)
}

// IsTerminal reports whether a person sees what is written to w.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Colours reports whether text written to w may be coloured: on a terminal,
// unless NO_COLOR is set (no-color.org).
func Colours(w io.Writer) bool {
	return IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// TerminalWidth is how many characters fit on a line of w; 0 if w is no
// terminal.
func TerminalWidth(w io.Writer) int {
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

// CanRedraw reports whether w is a terminal on which a line can be replaced.
func CanRedraw(w io.Writer) bool { return IsTerminal(w) && os.Getenv("TERM") != "dumb" }

// EraseLine takes the line that the cursor is on from a terminal.
const EraseLine = "\r\x1b[K"

// Redraw replaces the line of the terminal w that the cursor is on.
func Redraw(w io.Writer, line string) { fmt.Fprint(w, EraseLine+Fit(w, line)) }

// Fit cuts a line of ASCII that the terminal w would break: only one row of it
// could be taken back.
func Fit(w io.Writer, line string) string {
	return line[:min(len(line), cmp.Or(TerminalWidth(w), UsualWidth)-1)]
}

// UsualWidth is that of a terminal which does not tell.
const UsualWidth = 80

// Print prints one line of result. The device and demo commands use it from
// several goroutines; a line stays whole because it is one write.
func (s Streams) Print(format string, args ...any) {
	fmt.Fprintf(s.Out, format+"\n", args...)
}
