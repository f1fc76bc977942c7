package cli

import (
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

// print prints one line of result. The device and demo commands use it from
// several goroutines; a line stays whole because it is one write.
func (s streams) print(format string, args ...any) {
	fmt.Fprintf(s.out, format+"\n", args...)
}
