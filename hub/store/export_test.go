package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// OpenFS is Open on another file system.
var OpenFS = open

// OpenReplicaFS is OpenReplica on another file system.
var OpenReplicaFS = openReplica

// Flush has the engine write what it holds in memory to a file of its own.
func Flush(db *DB) error { return db.engine.Flush() }

// StateHash returns a hash over all that a replica holds, with what it keeps for
// itself.
func StateHash(db *DB) (hash [sha256.Size]byte, err error) {
	h := sha256.New()
	err = db.engine.scanAll(nil, nil, func(key, value []byte) error {
		for _, b := range [][]byte{key, value} {
			h.Write(binary.AppendUvarint(nil, uint64(len(b))))
			h.Write(b)
		}
		return nil
	})
	return [sha256.Size]byte(h.Sum(nil)), err
}

// Epoch returns that of the last Join.
func Epoch(r *Replica) uint64 {
	m, err := r.membership()
	if err != nil {
		return 0
	}
	return m.epoch
}

// Recode decodes a group and encodes it again.
func Recode(b []byte) ([]byte, error) {
	g, err := decodeGroup(b)
	if err != nil {
		if !errors.Is(err, errMalformed) && !errors.Is(err, ErrNewerLog) {
			panic(err)
		}
		return nil, err
	}
	return g.encode(0), nil
}

// LastKind is the highest kind of a step.
const LastKind = kindSweep

// Kinds returns the kinds of the steps of a group.
func Kinds(b []byte) (kinds []byte) {
	g, err := decodeGroup(b)
	if err != nil {
		return nil
	}
	for _, s := range g.steps {
		kinds = append(kinds, s.append(nil)[0])
	}
	return kinds
}

// Everything calls fn with all that a replica holds, with what it keeps for itself.
func Everything(db *DB, fn func(key, value []byte) error) error {
	return db.engine.scanAll(nil, nil, fn)
}

// ErrMalformed is what Recode returns of what is no group.
var ErrMalformed = errMalformed

// CountLocks returns of how many locks a replica knows when they were changed.
func CountLocks(db *DB) (n int, err error) {
	err = db.engine.scanAll(prefixLock, PrefixEnd(prefixLock), func(_, _ []byte) error { n++; return nil })
	return n, err
}
