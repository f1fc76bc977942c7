package query

import (
	"bytes"
	"math"
	"strconv"

	"github.com/iotdm/iotdm/internal/jsontext"
)

type kind uint8

const (
	undefined kind = iota
	null
	boolean
	number
	text
	object
	array
)

// A Value is a JSON value, or undefined: what a path has that leads nowhere. The zero Value is undefined. A Value
// refers to the text it was made of, which must not change while the Value is in use.
type Value struct {
	kind    kind
	escaped bool    // a string whose raw is its JSON text, which has escapes
	num     float64 // a number without raw; for a boolean 1 is true
	raw     []byte  // the characters of a string, or the JSON text of a number, object or array
}

// JSON returns the value of a JSON text, which is taken to be valid. No text at all is undefined.
func JSON(text []byte) Value {
	i := jsontext.SkipSpace(text, 0)
	if i == len(text) {
		return Value{}
	}
	switch text[i] {
	case '{':
		return Value{kind: object, raw: text[i:]}
	case '[':
		return Value{kind: array, raw: text[i:]}
	}
	return valueAt(text[i:])
}

// String returns a string value.
func String[T ~string | ~[]byte](s T) Value { return Value{kind: text, raw: []byte(s)} }

// Number returns a number value.
func Number(f float64) Value { return Value{kind: number, num: f} }

// Bool returns true or false as a value.
func Bool(b bool) Value {
	if b {
		return isTrue
	}
	return isFalse
}

var (
	isTrue  = Value{kind: boolean, num: 1}
	isFalse = Value{kind: boolean}
)

// Get returns a member of an object, or undefined.
func (v Value) Get(key string) Value {
	if v.kind != object {
		return Value{}
	}
	return valueAt(member(v.raw, key))
}

// Chars returns the characters of a string, or nil for any other value.
func (v Value) Chars() []byte {
	if v.kind != text {
		return nil
	}
	return v.chars()
}

// IsTrue reports whether the value is the boolean true.
func (v Value) IsTrue() bool { return v.kind == boolean && v.num != 0 }

func (v Value) primitive() bool { return v.kind >= null && v.kind <= text }

// at returns the value the steps lead to.
func (v Value) at(steps []step) Value {
	if len(steps) == 0 {
		return v
	}
	if v.kind != object && v.kind != array {
		return Value{}
	}
	return valueAt(find(v.raw, steps))
}

// valueAt returns the value that b begins with, or undefined.
func valueAt(b []byte) Value {
	end := jsontext.SkipValue(b, 0)
	if end < 0 {
		return Value{}
	}
	switch c, raw := b[0], b[:end]; c {
	case '"':
		if bytes.IndexByte(raw, '\\') >= 0 {
			return Value{kind: text, escaped: true, raw: raw}
		}
		return Value{kind: text, raw: raw[1 : end-1]}
	case '{':
		return Value{kind: object, raw: raw}
	case '[':
		return Value{kind: array, raw: raw}
	case 't':
		return isTrue
	case 'f':
		return isFalse
	case 'n':
		return Value{kind: null}
	default:
		if c != '-' && !isDigit(c) {
			return Value{}
		}
		return Value{kind: number, raw: raw}
	}
}

// chars returns the characters of a string.
func (v Value) chars() []byte {
	if v.escaped {
		return jsontext.Unquote(v.raw)
	}
	return v.raw
}

// float returns a number as the IEEE double that comparisons and arithmetic use.
func (v Value) float() float64 {
	if v.raw == nil {
		return v.num
	}
	// Up to 15 digits without a fraction are most numbers, and exact.
	b, negative := v.raw, false
	if b[0] == '-' {
		b, negative = b[1:], true
	}
	if len(b) <= 15 {
		n, i := int64(0), 0
		for i < len(b) && isDigit(b[i]) {
			n = n*10 + int64(b[i]-'0')
			i++
		}
		if i == len(b) {
			if negative {
				n = -n
			}
			return float64(n)
		}
	}
	f, _ := strconv.ParseFloat(string(v.raw), 64)
	return f
}

// appendTo appends the value as JSON. Numbers of a document keep their text. The value must not be undefined.
func (v Value) appendTo(dst []byte) []byte {
	switch v.kind {
	case null:
		return append(dst, "null"...)
	case boolean:
		return strconv.AppendBool(dst, v.IsTrue())
	case number:
		if v.raw == nil {
			return appendNumber(dst, v.num)
		}
	case text:
		if !v.escaped {
			return appendString(dst, v.raw)
		}
	}
	return append(dst, v.raw...)
}

// finite reports whether f is a number, which JSON can print.
func finite(f float64) bool { return !math.IsInf(f, 0) && !math.IsNaN(f) }

// appendNumber appends a finite number in its shortest form.
func appendNumber(dst []byte, f float64) []byte {
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, 64)
}

// equal reports whether two values are equal. The answer is undefined (ok is false) unless both are primitive:
// "Comparison is supported only between primitives". Values of different types are not equal.
func equal(a, b Value) (equal, ok bool) {
	if !a.primitive() || !b.primitive() {
		return false, false
	}
	if a.kind != b.kind {
		return false, true
	}
	switch a.kind {
	case boolean:
		return a.num == b.num, true
	case number:
		return a.float() == b.float(), true
	case text:
		return bytes.Equal(a.chars(), b.chars()), true
	}
	return true, true // null
}

// order compares two numbers or two strings, the latter by their bytes. For all others it is undefined.
func order(a, b Value) (order int, ok bool) {
	if a.kind != b.kind {
		return 0, false
	}
	switch a.kind {
	case number:
		x, y := a.float(), b.float()
		switch {
		case x < y:
			return -1, true
		case x > y:
			return 1, true
		}
		return 0, true
	case text:
		return bytes.Compare(a.chars(), b.chars()), true
	}
	return 0, false
}

// A set is values of which each is equal to itself alone: it answers whether one is equal to a value in the same time
// however many they are.
type set struct {
	texts   map[string]struct{}
	numbers map[float64]struct{}
	words   [text][2]bool // null, false and true, by kind and num
}

func newSet() *set {
	return &set{texts: make(map[string]struct{}), numbers: make(map[float64]struct{})}
}

// add adds a value. Nothing is equal to one that is not primitive.
func (s *set) add(v Value) {
	switch v.kind {
	case text:
		s.texts[string(v.chars())] = struct{}{}
	case number:
		s.numbers[v.float()] = struct{}{}
	case null, boolean:
		s.words[v.kind][int(v.num)] = true
	}
}

// has reports whether a primitive value is equal to one of the set.
func (s *set) has(v Value) (ok bool) {
	switch v.kind {
	case text:
		_, ok = s.texts[string(v.chars())]
	case number:
		_, ok = s.numbers[v.float()]
	case null, boolean:
		ok = s.words[v.kind][int(v.num)]
	}
	return ok
}
