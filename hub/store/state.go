package store

import (
	"encoding/binary"
	"slices"
	"time"
)

// stateFormat is the first byte of the records that a replica keeps for itself.
const stateFormat = 1

// A replicaState is what a replica has read of the log, beside the keys and the
// members. It is equal on all nodes that have read as far.
type replicaState struct {
	log       logID
	pos       uint64 // the last position that is applied; 0: none
	prev      [hashSize]byte
	hash      [hashSize]byte // over all groups up to pos; prev is that of the position before
	at        int64          // when the log took the group at pos, in Unix nanoseconds
	senders   []sender       // the members, in the order of their epochs
	snapshots []snapshotMark // the last ones, in the order of their positions
	swept     uint64         // locks that were changed last before it may be forgotten
}

// A sender is what a replica knows of a member's groups.
type sender struct {
	epoch  uint64
	heard  uint64 // the position of its last one
	number uint64 // of its last one
}

// A snapshotMark says that there was a snapshot at a position.
type snapshotMark struct {
	pos uint64
	at  int64 // when the log heard of it, in Unix nanoseconds
}

// sender returns what is known of a member, or nil if it is none.
func (s *replicaState) sender(epoch uint64) *sender {
	for i := range s.senders {
		if s.senders[i].epoch == epoch {
			return &s.senders[i]
		}
	}
	return nil
}

// note notes a snapshot.
func (s *replicaState) note(m snapshotMark) {
	const kept = 16
	if n := len(s.snapshots); n > 0 && m.pos <= s.snapshots[n-1].pos {
		return
	}
	s.snapshots = append(s.snapshots, m)
	if n := len(s.snapshots); n > kept {
		s.snapshots = slices.Clone(s.snapshots[n-kept:])
	}
}

func (s *replicaState) encode() []byte {
	b := append(make([]byte, 0, 256), stateFormat)
	b = append(b, s.log[:]...)
	b = binary.AppendUvarint(b, s.pos)
	b = append(append(b, s.prev[:]...), s.hash[:]...)
	b = binary.AppendUvarint(b, uint64(s.at))
	b = binary.AppendUvarint(b, uint64(len(s.senders)))
	for _, m := range s.senders {
		b = binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(b, m.epoch), m.heard), m.number)
	}
	b = binary.AppendUvarint(b, uint64(len(s.snapshots)))
	for _, m := range s.snapshots {
		b = binary.AppendUvarint(binary.AppendUvarint(b, m.pos), uint64(m.at))
	}
	return binary.AppendUvarint(b, s.swept)
}

func decodeState(b []byte) (s replicaState, err error) {
	r := reader{b: b}
	if r.byte() != stateFormat {
		r.fail()
	}
	copy(s.log[:], r.take(len(s.log)))
	s.pos = r.uvarint()
	copy(s.prev[:], r.take(hashSize))
	copy(s.hash[:], r.take(hashSize))
	s.at = int64(r.uvarint())
	for range r.count() {
		s.senders = append(s.senders, sender{r.uvarint(), r.uvarint(), r.uvarint()})
	}
	for range r.count() {
		s.snapshots = append(s.snapshots, snapshotMark{r.uvarint(), int64(r.uvarint())})
	}
	s.swept = r.uvarint()
	return s, r.end()
}

// end returns the error of a reader that should have read everything.
func (r *reader) end() error {
	if len(r.b) > 0 {
		r.fail()
	}
	return r.err
}

func memberKey(epoch uint64) []byte {
	return binary.BigEndian.AppendUint64(slices.Clone(prefixMember), epoch)
}

func (m *Member) encode() []byte {
	b := appendBytes([]byte{stateFormat}, m.Name)
	return appendBytes(binary.AppendUvarint(b, uint64(m.Joined.UnixNano())), m.About)
}

func decodeMember(key, value []byte) (m Member, err error) {
	r := reader{b: value}
	if r.byte() != stateFormat || len(key) != len(prefixMember)+8 {
		r.fail()
		return m, r.err
	}
	m.Epoch = binary.BigEndian.Uint64(key[len(prefixMember):])
	m.Name = string(r.bytes())
	m.Joined = time.Unix(0, int64(r.uvarint()))
	m.About = slices.Clone(r.bytes())
	return m, r.end()
}
