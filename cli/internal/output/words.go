package output

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// IsLineBreak reports whether r ends a line.
func IsLineBreak(r rune) bool { return r == '\n' || r == '\r' }

// Count is a number of things for people.
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprint(n, " ", what, "s")
}

// Rate says how fast n things were done, if there is anything to say.
func Rate(n int, took time.Duration) string {
	if n < 2 || took <= 0 {
		return ""
	}
	return fmt.Sprintf(" in %v, %.0f/s", took.Round(10*time.Millisecond), float64(n)/took.Seconds())
}

// Printable is text as it is, or quoted if it is no text or has what would act on
// a terminal, so that it can be told from text that looks so.
func Printable(text string) string {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, acts) {
		return strconv.Quote(text)
	}
	return text
}

// OneLine is Printable for text that is to stay on its line.
func OneLine(text string) string {
	if strings.ContainsAny(text, "\n\t") {
		return fmt.Sprintf("%q", text)
	}
	return Printable(text)
}
