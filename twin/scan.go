package twin

import (
	"bytes"
	"encoding/json"
)

// A cursor walks the members of an object or the elements of an array. The text has been checked
// before, so the cursor looks only for the ends of values, which is several times faster than
// checking again. On text that isn't JSON it stops early and sets damaged.
type cursor struct {
	b       []byte
	pos     int // where the current value ends
	damaged bool

	// Places in b and not slices of it: a cursor moves often, and moving pointers costs more.
	keyStart, keyEnd, valueStart int
}

// key returns the name of the current member, with its quotes.
func (c *cursor) key() []byte { return c.b[c.keyStart:c.keyEnd] }

// value returns the current value.
func (c *cursor) value() []byte { return c.b[c.valueStart:c.pos] }

// member moves to the next member of an object and reports whether there is one. No text at all
// is an empty object.
func (c *cursor) member() bool {
	if !c.more('{') {
		return false
	}
	if c.b[c.pos] != '"' {
		return c.damage()
	}
	c.keyStart = c.pos
	if c.keyEnd = skipString(c.b, c.pos); c.keyEnd < 0 {
		return c.damage()
	}
	c.pos = skipSpace(c.b, c.keyEnd)
	if c.pos == len(c.b) || c.b[c.pos] != ':' {
		return c.damage()
	}
	c.pos = skipSpace(c.b, c.pos+1)
	return c.take()
}

// element moves to the next element of an array and reports whether there is one.
func (c *cursor) element() bool { return c.more('[') && c.take() }

// more moves to where the next member or element begins. In ASCII "]" is two after "[", and "}" two
// after "{".
func (c *cursor) more(open byte) bool {
	if c.pos == 0 {
		if c.pos = skipSpace(c.b, 0); c.pos == len(c.b) {
			return false
		}
		if c.b[c.pos] != open {
			return c.damage()
		}
	} else if c.pos = skipSpace(c.b, c.pos); c.pos < len(c.b) && c.b[c.pos] != ',' {
		return c.b[c.pos] != open+2 && c.damage()
	}
	if c.pos = skipSpace(c.b, c.pos+1); c.pos >= len(c.b) {
		return c.damage()
	}
	return c.b[c.pos] != open+2
}

// take reads the value at pos.
func (c *cursor) take() bool {
	c.valueStart = c.pos
	if c.pos = skipValue(c.b, c.pos); c.pos < 0 {
		return c.damage()
	}
	return true
}

func (c *cursor) damage() bool {
	c.damaged = true
	c.pos = len(c.b)
	return false
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the end of the string that begins at i, or -1.
func skipString(b []byte, i int) int {
	for start := i + 1; ; {
		i++
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		i += n
		escapes := 0
		for i-escapes > start && b[i-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

// skipValue returns the end of the value that begins at i, or -1.
func skipValue(b []byte, i int) int {
	if i == len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipNested(b, i)
	}
	start := i
	for i < len(b) && b[i] >= '+' && b[i] != ',' && b[i] != ']' && b[i] != '}' {
		i++ // a number, true, false or null
	}
	if i == start {
		return -1
	}
	return i
}

// skipNested returns the end of the object or array that begins at i, or -1.
func skipNested(b []byte, i int) int {
	for depth := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			end := skipString(b, i)
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

// decode returns the text of a JSON string. It is a part of raw if there is nothing to decode.
func decode(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return raw[1 : len(raw)-1]
	}
	return []byte(s)
}

func isObject(value []byte) bool { return len(value) > 0 && value[0] == '{' }
func isArray(value []byte) bool  { return len(value) > 0 && value[0] == '[' }
func isNull(value []byte) bool   { return len(value) > 0 && value[0] == 'n' }
