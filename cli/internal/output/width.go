package output

import (
	"cmp"
	"io"
	"strings"

	"github.com/clipperhouse/displaywidth"
	"golang.org/x/term"
)

// Width is how many columns of a terminal text takes: two for a wide character,
// none for a combining one.
func Width(text string) int { return displaywidth.String(text) }

// Truncate cuts text that takes more columns than width, and says so by an
// ellipsis.
func Truncate(text string, width int) string {
	if width < 1 {
		return ""
	}
	return displaywidth.TruncateString(text, width, "…")
}

// TerminalWidth is how many characters fit on a line of w; 0 if w is no
// terminal.
func TerminalWidth(w io.Writer) int {
	f, ok := file(w)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// UsualWidth is that of a terminal which does not tell.
const UsualWidth = 80

// Fit cuts a line that the terminal w would break: only one row of it could be
// taken back.
func Fit(w io.Writer, line string) string {
	return Truncate(line, cmp.Or(TerminalWidth(w), UsualWidth)-1)
}

// Cut cuts a line that the terminal w would break. Elsewhere it stays whole.
func Cut(w io.Writer, line string) string {
	if width := TerminalWidth(w); width > 0 {
		return Truncate(line, width)
	}
	return line
}

// Wrap breaks text between words so that it fits beside an indent. A width that
// leaves no room, or is 0, breaks nothing.
func Wrap(text string, indent, width int) string {
	if width-indent < 20 {
		return text
	}
	var b strings.Builder
	column := indent
	for i, word := range strings.Split(text, " ") {
		switch {
		case i == 0:
		case column+1+Width(word) > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += Width(word)
	}
	return b.String()
}
