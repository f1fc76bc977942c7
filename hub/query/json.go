package query

import (
	"bytes"
	"strings"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// The functions of this file find their way in JSON text that the hub has checked when it stored it. They go no
// further than to where the value begins, and leave it to the caller to look for its end.

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
	i := jsontext.SkipSpace(b, 0)
	if i == len(b) || b[i] != '{' {
		return nil
	}
	for {
		i = jsontext.SkipSpace(b, i+1)
		if i == len(b) || b[i] != '"' {
			return nil
		}
		end := jsontext.SkipString(b, i)
		if end < 0 {
			return nil
		}
		name := b[i:end]
		i = jsontext.SkipSpace(b, end)
		if i == len(b) || b[i] != ':' {
			return nil
		}
		i = jsontext.SkipSpace(b, i+1)
		if isKey(name, key) {
			return b[i:]
		}
		if i = comma(b, i); i < 0 {
			return nil
		}
	}
}

// isKey reports whether a member's name, with its quotes, is this key. With escapes it is longer than without.
func isKey(name []byte, key string) bool {
	inside := name[1 : len(name)-1]
	if len(inside) > len(key) {
		return bytes.IndexByte(inside, '\\') >= 0 && string(jsontext.Unquote(name)) == key
	}
	return string(inside) == key && strings.IndexByte(key, '\\') < 0
}

// element returns an element of an array, counted from zero, and the text behind it, or nil.
func element(b []byte, index int) []byte {
	i := jsontext.SkipSpace(b, 0)
	if i == len(b) || b[i] != '[' {
		return nil
	}
	for {
		i = jsontext.SkipSpace(b, i+1)
		if i == len(b) || b[i] == ']' {
			return nil
		}
		if index == 0 {
			return b[i:]
		}
		index--
		if i = comma(b, i); i < 0 {
			return nil
		}
	}
}

// comma returns where the comma behind the value at i is, or -1 if there is none.
func comma(b []byte, i int) int {
	if i = jsontext.SkipValue(b, i); i < 0 {
		return -1
	}
	if i = jsontext.SkipSpace(b, i); i == len(b) || b[i] != ',' {
		return -1
	}
	return i
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
