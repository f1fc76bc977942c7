// Package jsontext finds its way in JSON text that has been checked before, and prints JSON as it is
// meant for people and other programs, not for HTML.
//
// A [Cursor] and the Skip functions look only for the ends of values, which is several times faster
// than checking the text again. On text that is not JSON they find something or nothing, and stay
// within it. What they return is a part of the text; nothing is copied.
package jsontext

// A Cursor walks the members of an object or the elements of an array. It comes from [Walk].
type Cursor struct {
	text    []byte
	pos     int // where the current value ends
	damaged bool

	// Places in text and not slices of it: a cursor moves often, and moving pointers costs more.
	keyStart, keyEnd, valueStart int
}

// Walk returns a Cursor before the first member of an object or the first element of an array. No
// text at all is an empty one.
func Walk(text []byte) Cursor { return Cursor{text: text} }

// Key returns the name of the current member, with its quotes.
func (c *Cursor) Key() []byte { return c.text[c.keyStart:c.keyEnd] }

// Value returns the current value, which is never empty.
func (c *Cursor) Value() []byte { return c.text[c.valueStart:c.pos] }

// Behind returns the text behind the current value; before the first one that is all of it.
func (c *Cursor) Behind() []byte { return c.text[c.pos:] }

// FromKey returns the text from the key of the current member on.
func (c *Cursor) FromKey() []byte { return c.text[c.keyStart:] }

// Damaged reports whether the walk has ended early, because the text is not JSON or not what was to
// be walked: an object for [Cursor.Member], an array for [Cursor.Element].
func (c *Cursor) Damaged() bool { return c.damaged }

// Member moves to the next member of an object and reports whether there is one.
func (c *Cursor) Member() bool {
	if !c.more('{') {
		return false
	}
	if c.text[c.pos] != '"' {
		return c.damage()
	}
	c.keyStart = c.pos
	if c.keyEnd = SkipString(c.text, c.pos); c.keyEnd < 0 {
		return c.damage()
	}
	c.pos = SkipSpace(c.text, c.keyEnd)
	if c.pos == len(c.text) || c.text[c.pos] != ':' {
		return c.damage()
	}
	c.pos = SkipSpace(c.text, c.pos+1)
	return c.take()
}

// Element moves to the next element of an array and reports whether there is one.
func (c *Cursor) Element() bool { return c.more('[') && c.take() }

// more moves to where the next member or element begins. In ASCII "]" is two after "[", and "}" two
// after "{".
func (c *Cursor) more(open byte) bool {
	if c.pos == 0 {
		if c.pos = SkipSpace(c.text, 0); c.pos == len(c.text) {
			return false
		}
		if c.text[c.pos] != open {
			return c.damage()
		}
	} else if c.pos = SkipSpace(c.text, c.pos); c.pos < len(c.text) && c.text[c.pos] != ',' {
		return c.text[c.pos] != open+2 && c.damage()
	}
	if c.pos = SkipSpace(c.text, c.pos+1); c.pos >= len(c.text) {
		return c.damage()
	}
	return c.text[c.pos] != open+2
}

// take reads the value at pos.
func (c *Cursor) take() bool {
	c.valueStart = c.pos
	if c.pos = SkipValue(c.text, c.pos); c.pos < 0 {
		return c.damage()
	}
	return true
}

// More reports whether an object or an array has more members or elements than most. It looks no
// further than it has to, so that a text can be refused before it is made into something larger.
func More(text []byte, most int) bool {
	c := Walk(text)
	next := c.Element
	if start := SkipSpace(text, 0); start < len(text) && text[start] == '{' {
		next = c.Member
	}
	for range most + 1 {
		if !next() {
			return false
		}
	}
	return true
}

func (c *Cursor) damage() bool {
	c.damaged = true
	c.pos = len(c.text)
	return false
}
