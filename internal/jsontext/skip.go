package jsontext

import (
	"bytes"
	"encoding/json"
)

// SkipSpace returns where the white space that begins at i ends.
func SkipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}

// SkipValue returns the end of the value that begins at i, or -1 if there is none.
func SkipValue(text []byte, i int) int {
	if i >= len(text) {
		return -1
	}
	switch text[i] {
	case '"':
		return SkipString(text, i)
	case '{', '[':
		return skipNested(text, i)
	}
	start := i
	for i < len(text) && text[i] >= '+' && text[i] != ',' && text[i] != ']' && text[i] != '}' {
		i++ // a number, true, false or null
	}
	if i == start {
		return -1
	}
	return i
}

// SkipString returns the end of the string whose opening quote is at i, or -1 if it has none.
func SkipString(text []byte, i int) int {
	for start := i + 1; ; {
		i++
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			return -1
		}
		i += n
		escapes := 0
		for i-escapes > start && text[i-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

// skipNested returns the end of the object or array that begins at i, or -1.
func skipNested(text []byte, i int) int {
	for depth := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			end := SkipString(text, i)
			if end < 0 {
				return -1
			}
			i = end - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// Unquote returns the characters of a string, which is given with its quotes. They are a part of it
// where it has no escapes. Half a surrogate pair becomes U+FFFD; a string with escapes that JSON does
// not have stays as it is.
func Unquote(s []byte) []byte {
	inside := s[1 : len(s)-1]
	if bytes.IndexByte(inside, '\\') < 0 {
		return inside
	}
	var text string
	if err := json.Unmarshal(s, &text); err != nil {
		return inside
	}
	return []byte(text)
}
