package output

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// What a device writes must not act on a terminal. Text for people reaches one
// through a guard: [Streams.Note] and [Streams.Print], the Text of a [Result] and
// tables have it everywhere, all other output on a terminal. JSON and YAML escape
// by themselves. Only what --jq finds goes into a pipe as it is.

// acts reports whether a terminal may do something else with r than show it in its
// place: control characters, and characters without a shape that turn the
// direction of text or hide. Those that join letters are part of how words and
// emoji are written.
func acts(r rune) bool {
	const nonJoiner, joiner = '\u200c', '\u200d'
	switch r {
	case '\n', '\t', nonJoiner, joiner:
		return false
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// Visible is text with what would act on a terminal written as JSON escapes it,
// and with bytes that are no text as \xNN. Line breaks and tabs stay.
func Visible(text string) string {
	for i, r := range text {
		if acts(r) || isBroken(text[i:], r) {
			return text[:i] + escape(text[i:], acts)
		}
	}
	return text
}

// visibleCell is Visible for text that has to stay on its line and in its column.
func visibleCell(text string) string {
	return escape(text, func(r rune) bool { return acts(r) || r == '\n' || r == '\t' })
}

func escape(text string, odd func(rune) bool) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case isBroken(text[i:], r):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case !odd(r):
			b.WriteRune(r)
		case r == '\n' || r == '\r' || r == '\t':
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// isBroken reports whether text, of which r is the first character, begins with a
// byte that is no UTF-8.
func isBroken(text string, r rune) bool {
	if r != utf8.RuneError {
		return false
	}
	_, size := utf8.DecodeRuneInString(text)
	return size == 1
}

// A guard makes what is written visible. What is one character has to be written
// at once.
type guard struct{ io.Writer }

// Guard returns a writer to w of text for people.
func Guard(w io.Writer) io.Writer {
	if _, guarded := w.(guard); guarded {
		return w
	}
	return guard{w}
}

func (g guard) Write(p []byte) (int, error) {
	if _, err := io.WriteString(g.Writer, Visible(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Unguarded returns what is behind w, for colours and other control sequences of
// our own. Text that stands beside them has to be [Visible].
func Unguarded(w io.Writer) io.Writer {
	if g, guarded := w.(guard); guarded {
		return g.Writer
	}
	return w
}
