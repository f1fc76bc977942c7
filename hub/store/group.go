package store

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// groupFormat is the first byte of a group. A replica that meets a higher one
// stops: it cannot know what the others make of it.
const groupFormat = 1

// maxGroupSize is what a group may take in bytes. A Log has to take so much.
const maxGroupSize = 768 << 10

// groupHeader is more than what a group takes besides its steps.
const groupHeader = 256

// A group is what a replica appends to the log in one piece. All replicas read
// all groups, in one order, and decide alike what comes of each.
type group struct {
	log    logID
	epoch  uint64 // of the member that sent it; 0 for one that has still to become one
	number uint64 // counts the groups of an epoch, from 1
	seen   chained
	steps  []step
}

// beginsEmpty reports whether this is the first group of a log that begins with
// nothing.
func (g *group) beginsEmpty() bool {
	if len(g.steps) == 0 {
		return false
	}
	b, ok := g.steps[0].(*begin)
	return ok && !b.stocked
}

// A logID tells logs apart. It is drawn when a log begins.
type logID [16]byte

// chained is a position, with the hash over all groups up to it.
type chained struct {
	pos  uint64
	hash [hashSize]byte
}

// A step is one thing that a group does.
type step interface{ append(b []byte) []byte }

// A changeSet is what one Update does, if nothing under its lock has changed
// since the position that it expects.
type changeSet struct {
	lock     string
	expected uint64 // where the lock was changed last; 0: never, or so long ago that it was swept
	base     uint64 // if that is 0: what was applied when it was looked up
	writes   []write
	told     []told
}

// A begin is the first step of a log.
type begin struct {
	stocked bool // the log begins with the snapshot at its position
}

// A join makes its sender a member, whose epoch is the position. One of the
// same name ends.
type join struct {
	name     string
	expected uint64 // where a member of the name came or went last; 0: never
	token    [16]byte
	about    []byte
}

// A leave ends the epoch of its sender.
type leave struct{}

// An expel ends another epoch, unless that has been heard of meanwhile.
type expel struct {
	epoch uint64
	heard uint64 // the position of its last group
}

// A stored says that there is a snapshot at a position.
type stored struct{ pos uint64 }

// A sweep forgets the locks from one name up to another that were changed last
// before a position.
type sweep struct {
	from, to string
	before   uint64
}

// The kinds of steps, of the writes of a changeSet.
const (
	kindChanges byte = iota + 1
	kindBegin
	kindJoin
	kindLeave
	kindExpel
	kindStored
	kindSweep
)

const (
	writeSet byte = iota + 1
	writeDelete
	writeDeleteRange
)

// encode writes g, whose steps take about size bytes.
func (g *group) encode(size int) []byte {
	b := append(make([]byte, 0, groupHeader+size), groupFormat)
	b = append(b, g.log[:]...)
	b = binary.AppendUvarint(b, g.epoch)
	b = binary.AppendUvarint(b, g.number)
	b = binary.AppendUvarint(b, g.seen.pos)
	b = append(b, g.seen.hash[:]...)
	for _, s := range g.steps {
		b = s.append(b)
	}
	return b
}

func appendBytes[T ~string | ~[]byte](b []byte, v T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func (c *changeSet) append(b []byte) []byte {
	b = appendBytes(append(b, kindChanges), c.lock)
	b = binary.AppendUvarint(b, c.expected)
	if c.expected == 0 {
		b = binary.AppendUvarint(b, c.base)
	}
	b = binary.AppendUvarint(b, uint64(len(c.writes)))
	for _, w := range c.writes {
		switch {
		case w.end != nil:
			b = appendBytes(appendBytes(append(b, writeDeleteRange), w.key), w.end)
		case w.deleted:
			b = appendBytes(append(b, writeDelete), w.key)
		default:
			b = appendBytes(appendBytes(append(b, writeSet), w.key), w.value)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(c.told)))
	for _, t := range c.told {
		b = appendBytes(appendBytes(b, t.kind), t.data)
	}
	return b
}

// size is about what c takes in a group.
func (c *changeSet) size() int {
	const each = 12
	n := len(c.lock) + 3*each
	for _, w := range c.writes {
		n += len(w.key) + len(w.value) + len(w.end) + each
	}
	for _, t := range c.told {
		n += len(t.kind) + len(t.data) + each
	}
	return n
}

func (s *begin) append(b []byte) []byte {
	stocked := byte(0)
	if s.stocked {
		stocked = 1
	}
	return append(b, kindBegin, stocked)
}

func (s *join) append(b []byte) []byte {
	b = binary.AppendUvarint(appendBytes(append(b, kindJoin), s.name), s.expected)
	return appendBytes(append(b, s.token[:]...), s.about)
}

func (leave) append(b []byte) []byte { return append(b, kindLeave) }

func (s *expel) append(b []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(b, kindExpel), s.epoch), s.heard)
}

func (s *stored) append(b []byte) []byte { return binary.AppendUvarint(append(b, kindStored), s.pos) }

func (s *sweep) append(b []byte) []byte {
	b = appendBytes(appendBytes(append(b, kindSweep), s.from), s.to)
	return binary.AppendUvarint(b, s.before)
}

// errMalformed means that bytes are no group, or no record of a replica.
var errMalformed = errors.New("malformed")

// decodeGroup reads what encode wrote. The group shares the bytes. The error
// wraps ErrNewerLog or errMalformed.
func decodeGroup(b []byte) (*group, error) {
	r := reader{b: b}
	if format := r.byte(); r.err == nil && format > groupFormat {
		return nil, fmt.Errorf("%w: its format is %d, and this program knows %d", ErrNewerLog, format, groupFormat)
	} else if format == 0 {
		r.fail()
	}
	g := &group{}
	copy(g.log[:], r.take(len(g.log)))
	g.epoch, g.number = r.uvarint(), r.uvarint()
	g.seen.pos = r.uvarint()
	copy(g.seen.hash[:], r.take(hashSize))
	for r.err == nil && len(r.b) > 0 {
		g.steps = append(g.steps, r.step())
	}
	if r.err != nil {
		return nil, r.err
	}
	return g, nil
}

func (r *reader) step() step {
	switch r.byte() {
	case kindChanges:
		return r.changeSet()
	case kindBegin:
		stocked := r.byte()
		if stocked > 1 {
			r.fail()
		}
		return &begin{stocked == 1}
	case kindJoin:
		s := &join{name: string(r.bytes()), expected: r.uvarint()}
		copy(s.token[:], r.take(len(s.token)))
		s.about = r.bytes()
		return s
	case kindLeave:
		return leave{}
	case kindExpel:
		return &expel{r.uvarint(), r.uvarint()}
	case kindStored:
		return &stored{r.uvarint()}
	case kindSweep:
		return &sweep{string(r.bytes()), string(r.bytes()), r.uvarint()}
	}
	r.fail()
	return nil
}

func (r *reader) changeSet() *changeSet {
	c := &changeSet{lock: string(r.bytes()), expected: r.uvarint()}
	if c.expected == 0 {
		c.base = r.uvarint()
	}
	for range r.count() {
		var w write
		switch kind := r.byte(); kind {
		case writeSet:
			w.key, w.value = r.bytes(), r.bytes()
		case writeDelete:
			w.key, w.deleted = r.bytes(), true
		case writeDeleteRange:
			w.key, w.end, w.deleted = r.bytes(), r.bytes(), true
			if string(w.key) > string(w.end) {
				r.fail()
			}
		default:
			r.fail()
		}
		if len(w.key) == 0 || isReserved(w.key) {
			r.fail()
		}
		if r.err != nil {
			return c
		}
		c.writes = append(c.writes, w)
	}
	for range r.count() {
		if r.err != nil {
			return c
		}
		c.told = append(c.told, told{string(r.bytes()), r.bytes()})
	}
	return c
}

// A reader takes fields off bytes. After an error all are zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = errMalformed
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail()
		return nil
	}
	taken := r.b[:n:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 { // what is longer than it need be is another group's bytes
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes never returns nil but after an error.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	return r.take(int(n))
}

// count returns a number of things, each of which takes a byte at least.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}
