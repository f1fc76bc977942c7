package output

import (
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

// NewStreams returns streams from which nothing that a device wrote reaches a
// terminal as more than text.
func NewStreams(in io.Reader, out, errOut io.Writer) Streams {
	if IsTerminal(out) {
		out = Guard(out)
	}
	return Streams{In: in, Out: out, ErrOut: Guard(errOut)}
}

// Note prints one line for people.
func (s Streams) Note(format string, args ...any) {
	fmt.Fprintf(Guard(s.ErrOut), format+"\n", args...)
}

// IsTerminal reports whether a person sees what is written to w.
func IsTerminal(w any) bool {
	f, ok := file(w)
	return ok && term.IsTerminal(int(f.Fd()))
}

func file(w any) (*os.File, bool) {
	if g, guarded := w.(guard); guarded {
		w = g.Writer
	}
	f, ok := w.(*os.File)
	return f, ok
}

// IsStderr reports whether w is the standard error of this process.
func IsStderr(w any) bool {
	f, ok := file(w)
	return ok && f.Fd() == os.Stderr.Fd()
}

// Colours reports whether text written to w may be coloured: on a terminal,
// unless NO_COLOR is set (no-color.org).
func Colours(w io.Writer) bool {
	return IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// CanRedraw reports whether w is a terminal on which a line can be replaced.
func CanRedraw(w io.Writer) bool { return IsTerminal(w) && os.Getenv("TERM") != "dumb" }

const eraseLine = "\r\x1b[K"

// Redraw replaces the line of the terminal w that the cursor is on.
func Redraw(w io.Writer, line string) {
	io.WriteString(Unguarded(w), eraseLine+Fit(w, visibleCell(line)))
}

// EraseLine takes the line that the cursor is on from the terminal w.
func EraseLine(w io.Writer) { io.WriteString(Unguarded(w), eraseLine) }

// Print prints one line of result. The device and demo commands use it from
// several goroutines; a line stays whole because it is one write.
func (s Streams) Print(format string, args ...any) {
	fmt.Fprintf(Guard(s.Out), format+"\n", args...)
}
