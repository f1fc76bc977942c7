package disk

import (
	"encoding/binary"
	"fmt"
)

// A record begins with a byte that says its format. Numbers follow as varints,
// texts with their length in front, and at the end, in some, a body.

// AppendText appends a text.
func AppendText[T ~string | ~[]byte](b []byte, text T) []byte {
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

// AppendOptional appends a text that may be absent, which is not the same as
// empty: 0, or the text with 1 more than its length in front.
func AppendOptional(b []byte, text string, present bool) []byte {
	if !present {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(text))+1)
	return append(b, text...)
}

// A Reader reads a record field by field. What is missing reads as zero, and
// Err tells.
type Reader struct {
	what string
	rest []byte
	err  error
}

// Read returns a reader of what follows the format of a record, which must be
// the one given. what names the record in errors.
func Read(what string, data []byte, format byte) Reader {
	r := Reader{what: what}
	if len(data) == 0 || data[0] != format {
		r.err = fmt.Errorf("stored %s: unknown format", what)
		return r
	}
	r.rest = data[1:]
	return r
}

// Err returns what is wrong with the record, if anything.
func (r *Reader) Err() error { return r.err }

// More reports whether there is something left to read.
func (r *Reader) More() bool { return len(r.rest) > 0 && r.err == nil }

// Rest returns what is left: a body. It is a slice of the record.
func (r *Reader) Rest() []byte { return r.rest }

// fail ends the reading.
func (r *Reader) fail() {
	if r.err == nil {
		r.err = fmt.Errorf("stored %s: cut short", r.what)
	}
	r.rest = nil
}

// Number reads a number.
func (r *Reader) Number() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Signed reads a number that AppendVarint wrote.
func (r *Reader) Signed() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Text reads a text. It is a slice of the record.
func (r *Reader) Text() []byte { return r.take(r.Number()) }

// Optional reads a text that may be absent.
func (r *Reader) Optional() (text []byte, present bool) {
	n := r.Number()
	if n == 0 {
		return nil, false
	}
	return r.take(n - 1), r.err == nil
}

// Count reads how many fields follow, each of at least a byte.
func (r *Reader) Count() int {
	n := r.Number()
	if n > uint64(len(r.rest)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *Reader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.fail()
		return nil
	}
	t := r.rest[:n:n]
	r.rest = r.rest[n:]
	return t
}
