package store

import (
	"bytes"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// A Tx is the set of changes one [DB.Update] is making. It must be used only by the function it is given to, and only
// until that returns.
type Tx struct {
	db       *DB
	batch    *pebble.Batch
	writes   map[string][]byte // what batch holds, for Get; nil value: deleted
	dropped  [][]byte          // prefixes deleted; keys in writes were written later
	onCommit []func()
}

// Update runs fn, writes its changes as one atomic step, and returns when they are on disk. While it runs no other
// Update with the same lock name does. If fn returns an error, nothing is written and Update returns that error. The
// error is [ErrFull] if the disk is full and [ErrClosed] after Close.
//
// A call of Update from within fn waits for itself if it names the same lock.
func (db *DB) Update(lock string, fn func(tx *Tx) error) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.running.Done()
	defer db.locks.acquire(lock)()

	tx := Tx{db: db, batch: db.engine.NewBatch()}
	defer tx.batch.Close()
	if err := fn(&tx); err != nil {
		return err
	}
	if !tx.batch.Empty() {
		if err := tx.batch.Commit(pebble.Sync); err != nil {
			return fmt.Errorf("write store: %w", err)
		}
	}
	for _, f := range tx.onCommit {
		f()
	}
	return nil
}

// Get returns a copy of the value of key as this Tx has left it, or [ErrNotFound].
func (tx *Tx) Get(key []byte) ([]byte, error) {
	if v, ok := tx.writes[string(key)]; ok {
		if v == nil {
			return nil, ErrNotFound
		}
		return bytes.Clone(v), nil
	}
	for _, p := range tx.dropped {
		if bytes.HasPrefix(key, p) {
			return nil, ErrNotFound
		}
	}
	return tx.db.get(key)
}

// Set stores value under key. It keeps neither slice.
func (tx *Tx) Set(key, value []byte) {
	// The batch has no reason to fail: it is an append to memory.
	if err := tx.batch.Set(key, value, nil); err != nil {
		panic(err)
	}
	tx.note(key, append(make([]byte, 0, len(value)), value...))
}

// Delete removes key if it is there.
func (tx *Tx) Delete(key []byte) {
	if err := tx.batch.Delete(key, nil); err != nil {
		panic(err)
	}
	tx.note(key, nil)
}

func (tx *Tx) note(key, value []byte) {
	if tx.writes == nil {
		tx.writes = map[string][]byte{}
	}
	tx.writes[string(key)] = value
}

// DeletePrefix removes every key that starts with prefix, which must not be empty. Keys that other Updates add
// meanwhile go too: the caller's lock must cover them.
func (tx *Tx) DeletePrefix(prefix []byte) {
	if err := tx.batch.DeleteRange(prefix, prefixEnd(prefix), nil); err != nil {
		panic(err)
	}
	for k := range tx.writes {
		if bytes.HasPrefix([]byte(k), prefix) {
			delete(tx.writes, k)
		}
	}
	tx.dropped = append(tx.dropped, bytes.Clone(prefix))
}

// OnCommit has f run after the changes are on disk, before Update returns and releases its lock. Functions run in the
// order they were given; none runs if nothing is written because of an error.
func (tx *Tx) OnCommit(f func()) { tx.onCommit = append(tx.onCommit, f) }

// prefixEnd returns the first key after all that start with prefix.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	panic("store: a prefix needs a byte below 0xff")
}
