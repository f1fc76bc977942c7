package jsontext

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// ForYAML returns JSON text, which is valid, in the part of JSON that readers of
// YAML take for the same. They call JSON a part of their language, but the one
// that we use knows neither the escape "\/" nor a character in two halves, as
// Python writes those beyond the sixteenth bit; and it takes some characters,
// which JSON leaves as they are, for control characters or ends of lines.
func ForYAML(text []byte) []byte {
	b := make([]byte, 0, len(text))
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\\':
			i, b = appendEscape(b, text, i)
		case c == '\t': // between values, where no line of YAML may begin with it
			b = append(b, ' ')
			i++
		case c < utf8.RuneSelf-1:
			b = append(b, c)
			i++
		default:
			r, n := utf8.DecodeRune(text[i:])
			if r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0xfeff && r <= 0xffff && r != utf8.RuneError {
				b = fmt.Appendf(b, `\u%04x`, r)
			} else {
				b = utf8.AppendRune(b, r)
			}
			i += n
		}
	}
	return b
}

// appendEscape appends the escape that begins at i, and returns what is behind it.
func appendEscape(b, text []byte, i int) (int, []byte) {
	if i+1 == len(text) {
		return i + 1, append(b, '\\')
	}
	switch text[i+1] {
	case '/':
		return i + 2, append(b, '/')
	case 'u':
		high, ok := hexRune(text, i)
		if !ok || !utf16.IsSurrogate(high) {
			break
		}
		low, _ := hexRune(text, i+6)
		if r := utf16.DecodeRune(high, low); r != utf8.RuneError {
			return i + 12, utf8.AppendRune(b, r)
		}
		return i + 6, utf8.AppendRune(b, utf8.RuneError) // half a character, as encoding/json reads it
	}
	return i + 2, append(b, text[i:i+2]...)
}

// hexRune reads an escape of four hexadecimal digits.
func hexRune(text []byte, i int) (rune, bool) {
	if len(text) < i+6 || text[i] != '\\' || text[i+1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[i+2:i+6]), 16, 16)
	return rune(n), err == nil
}
