package controls

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/iotdm/iotdm/hub/store"
)

// ErrDamaged means that a snapshot is not what was saved.
var ErrDamaged = errors.New("the snapshot is damaged")

// A stored snapshot is its magic, whose last byte is the format, the records of
// the store in order, each a key and a value with their lengths in front as
// varints, and the SHA-256 of what stands before that.
const magic = "iotdm snapshot\x00\x01"

// encode returns what db holds at one instant.
func encode(db *store.DB) ([]byte, error) {
	b := []byte(magic)
	err := db.Scan(nil, nil, func(k, v []byte) error {
		b = append(binary.AppendUvarint(b, uint64(len(k))), k...)
		b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), nil
}

// decode returns the records of a snapshot, as slices of data, after it has
// looked at all of them.
//
// Errors: ErrDamaged.
func decode(data []byte) (iter.Seq2[[]byte, []byte], error) {
	n := len(data) - sha256.Size
	if n < len(magic) || string(data[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: it is none, or that of a newer version", ErrDamaged)
	}
	if sum := sha256.Sum256(data[:n]); !bytes.Equal(sum[:], data[n:]) {
		return nil, fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	}
	body := data[len(magic):n]
	whole, last := true, []byte(nil)
	each := func(yield func(k, v []byte) bool) {
		for rest := body; len(rest) > 0; {
			var k, v []byte
			if k, rest, whole = cut(rest); whole {
				v, rest, whole = cut(rest)
			}
			if !whole || !yield(k, v) {
				return
			}
		}
	}
	for k := range each {
		if last != nil && bytes.Compare(k, last) <= 0 {
			return nil, fmt.Errorf("%w: its records are not in order", ErrDamaged)
		}
		last = k
	}
	if !whole {
		return nil, fmt.Errorf("%w: a record is cut short", ErrDamaged)
	}
	return each, nil
}

// cut returns a text that stands behind its length, and what follows it.
func cut(b []byte) (text, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	end := size + int(n)
	return b[size:end:end], b[end:], true
}
