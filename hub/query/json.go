package query

import (
	"bytes"
	"encoding/json"
	"strings"
)

// The functions of this file find their way in JSON text. The hub has checked the text when it stored it, so they look
// only for the ends of values, which is several times faster than checking again. On text that is not JSON they find
// something or nothing, and stay within it.

// find returns the value that the steps lead to, and perhaps text behind it, or nil.
func find(b []byte, steps []step) []byte {
	for i := range steps {
		if s := &steps[i]; s.key != "" {
			b = member(b, s.key)
		} else {
			b = element(b, s.index)
		}
		if b == nil {
			return nil
		}
	}
	return b
}

// member returns the value of a member of an object, and the text behind it, or nil.
func member(b []byte, key string) []byte {
	i := skipSpace(b, 0)
	if i == len(b) || b[i] != '{' {
		return nil
	}
	for {
		i = skipSpace(b, i+1)
		if i == len(b) || b[i] != '"' {
			return nil
		}
		end := skipString(b, i)
		name := b[i+1 : max(end-1, i+1)]
		i = skipSpace(b, end)
		if i == len(b) || b[i] != ':' {
			return nil
		}
		i = skipSpace(b, i+1)
		if isKey(name, key) {
			return b[i:]
		}
		i = skipSpace(b, skipValue(b, i))
		if i == len(b) || b[i] != ',' {
			return nil
		}
	}
}

// isKey reports whether a member's name, as the text has it between its quotes, is this key. With escapes it is longer
// than without.
func isKey(name []byte, key string) bool {
	if len(name) > len(key) {
		return bytes.IndexByte(name, '\\') >= 0 && string(unescape(name)) == key
	}
	return string(name) == key && strings.IndexByte(key, '\\') < 0
}

// element returns an element of an array, counted from zero, and the text behind it, or nil.
func element(b []byte, index int) []byte {
	i := skipSpace(b, 0)
	if i == len(b) || b[i] != '[' {
		return nil
	}
	for {
		i = skipSpace(b, i+1)
		if i == len(b) || b[i] == ']' {
			return nil
		}
		if index == 0 {
			return b[i:]
		}
		index--
		i = skipSpace(b, skipValue(b, i))
		if i == len(b) || b[i] != ',' {
			return nil
		}
	}
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the end of the string that begins at i.
func skipString(b []byte, i int) int {
	for start := i + 1; ; {
		i++
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return len(b)
		}
		i += n
		slashes := 0
		for i-slashes > start && b[i-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i + 1
		}
	}
}

// skipValue returns the end of the value that begins at i.
func skipValue(b []byte, i int) int {
	if i == len(b) {
		return i
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipNested(b, i)
	}
	for i < len(b) && b[i] >= '+' && b[i] != ',' && b[i] != ']' && b[i] != '}' {
		i++ // a number, true, false or null
	}
	return i
}

// skipNested returns the end of the object or array that begins at i.
func skipNested(b []byte, i int) int {
	for depth := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			i = skipString(b, i) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(b)
}

// unescape returns the characters of a JSON string, which is given without its quotes.
func unescape(inside []byte) []byte {
	quoted := make([]byte, 0, len(inside)+2)
	quoted = append(append(append(quoted, '"'), inside...), '"')
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return inside
	}
	return []byte(s)
}

// appendString appends characters as a JSON string.
func appendString[T string | []byte](dst []byte, s T) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
