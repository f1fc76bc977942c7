package hub

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/iotdm/iotdm/hub/query"
)

// A position is where a page of a query's result begins. As a continuation it
// holds all that the hub needs to know, so that the hub need not remember it.
type position struct {
	query uint64 // which query it belongs to
	left  int    // how many rows of TOP are left; 0 without TOP
	after string // name of the last row, or key of the last group, before
}

// positionFormat is the first byte of a continuation, before it is encoded.
const positionFormat = 1

// maxPosition bounds a continuation: two ids of 128 characters, and some
// numbers, in base64.
const maxPosition = 400

// parsePosition reads what String returned. Empty is the beginning.
func parsePosition(q *query.Query, continuation string) (position, error) {
	hash := sha256.Sum256([]byte(q.String()))
	at := position{query: binary.BigEndian.Uint64(hash[:]), left: q.Top()}
	if continuation == "" {
		return at, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(continuation)
	if err != nil || len(continuation) > maxPosition || len(b) < 10 ||
		b[0] != positionFormat || binary.BigEndian.Uint64(b[1:]) != at.query {
		return at, errForeignPosition
	}
	left, n := binary.Uvarint(b[9:])
	if n <= 0 || left > uint64(q.Top()) || (left == 0) != (q.Top() == 0) || len(b) == 9+n {
		return at, errForeignPosition
	}
	at.left, at.after = int(left), string(b[9+n:])
	return at, nil
}

var errForeignPosition = ErrArgumentInvalid.With("the continuation token is not one of this query")

// String returns the continuation: characters that a header may have.
func (at position) String() string {
	b := append(make([]byte, 0, 32+len(at.after)), positionFormat)
	b = binary.BigEndian.AppendUint64(b, at.query)
	b = binary.AppendUvarint(b, uint64(at.left))
	return base64.RawURLEncoding.EncodeToString(append(b, at.after...))
}
