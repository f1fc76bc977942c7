package store

import (
	"bytes"
	"context"

	"github.com/cockroachdb/pebble/v2"
)

// A Tx is the set of changes one [DB.Update] is making. It must be used only by the function it is given to, and only
// until that returns.
type Tx struct {
	engine *engine
	writes []write
	size   int

	last     map[string]int // index in writes of the last one for a key; nil while writes are few
	ranges   []int          // those of writes that delete a range, once last is set
	onCommit []func()
	told     []told
}

// A write is one change: a value for key, or if deleted is set the end of key, or of all keys from key to end.
type write struct {
	key, value, end []byte
	deleted         bool
}

func (w write) apply(b *pebble.Batch) error {
	switch {
	case w.end != nil:
		return b.DeleteRange(w.key, w.end, nil)
	case w.deleted:
		return b.Delete(w.key, nil)
	}
	return b.Set(w.key, w.value, nil)
}

// covers reports whether w says what key holds.
func (w write) covers(key []byte) bool {
	if w.end != nil {
		return bytes.Compare(key, w.key) >= 0 && bytes.Compare(key, w.end) < 0
	}
	return bytes.Equal(key, w.key)
}

// Update runs fn, writes its changes as one atomic step, and returns when they are on disk. While it runs no other
// Update with the same lock name does. If fn returns an error, nothing is written and Update returns that error. An
// Update that writes nothing needs no disk.
//
// The error wraps [ErrFull] if the disk is full. As a rule nothing is written then. But an Update that was on its way
// to the disk when the disk filled up is not kept waiting: it may yet be written when there is space, and if so its
// OnCommit functions run then and its lock is held until then, which other Updates with that lock are told by the same
// error. The same goes for other failures of the disk, with [ErrStalled]: of one that does not answer until it does,
// of one that fails until the store is opened again. So either error means that the change has to be made again, and
// not that it was not made.
//
// On a replicated store the change goes through the log, and Update returns when a majority has it and this node has
// applied it. If another node has changed something under the lock since fn read it, fn is run again, so that it must
// leave no trace but through tx; so it is after an error of fn that may come of what this node did not know. The error wraps [ErrNoLog] if the log does not answer for 10 s, which says the same as
// ErrFull; [ErrFenced] if this node is no member, and then nothing is written; [ErrTooLarge]; or it is that of
// [Replica.Err].
//
// A call of Update from within fn, or from an OnCommit function, may wait for itself.
func (db *DB) Update(lock string, fn func(tx *Tx) error) (err error) {
	defer func() { db.counts.result(err) }()
	if db.replica != nil {
		return db.replica.update(lock, fn)
	}
	e, err := db.enter()
	if err != nil {
		return err
	}
	unlock, err := db.begin(lock, e)
	if err != nil {
		e.users.Done()
		return err
	}
	tx := &Tx{engine: e}
	finish := func(err error) {
		defer e.users.Done()
		defer unlock()
		if err != nil {
			return
		}
		db.listeners.tell(tx.writes, tx.told, 0, 0, true)
		tx.committed()
	}
	returned := false
	defer func() {
		if !returned { // fn panicked
			unlock()
			e.users.Done()
		}
	}()
	err = fn(tx)
	returned = true
	if err == nil && len(tx.writes) > 0 && e.committer == nil {
		err = e.disk.err()
	}
	if err != nil || len(tx.writes) == 0 {
		finish(err)
		return err
	}
	return e.committer.commit(tx.writes, tx.size, finish)
}

// begin waits for the turn of an Update and for its lock, and returns what gives both back.
func (db *DB) begin(lock string, e *engine) (end func(), err error) {
	if err := db.takeTurns(context.Background(), 1, e); err != nil {
		return nil, err
	}
	unlock, err := db.locks.acquire(lock, e.disk)
	if err != nil {
		db.turns.Release(1)
		return nil, err
	}
	return func() {
		unlock()
		db.turns.Release(1)
	}, nil
}

// Get returns a copy of the value of key as this Tx has left it, or [ErrNotFound].
func (tx *Tx) Get(key []byte) ([]byte, error) {
	w, ok := tx.lastWrite(key)
	switch {
	case !ok && tx.engine.reserved && isReserved(key):
		return nil, ErrNotFound
	case !ok:
		return tx.engine.get(key)
	case w.deleted:
		return nil, ErrNotFound
	}
	return append(make([]byte, 0, len(w.value)), w.value...), nil
}

// lastWrite returns the last write that says what key holds.
func (tx *Tx) lastWrite(key []byte) (w write, ok bool) {
	const few = 8 // so many are looked through faster than a map is made
	if len(tx.writes) > few && tx.last == nil {
		tx.last = map[string]int{}
		for i, w := range tx.writes {
			tx.index(i, w)
		}
	}
	if tx.last == nil {
		for i := len(tx.writes) - 1; i >= 0; i-- {
			if tx.writes[i].covers(key) {
				return tx.writes[i], true
			}
		}
		return write{}, false
	}
	i, ok := tx.last[string(key)]
	for _, r := range tx.ranges {
		if tx.writes[r].covers(key) && (!ok || r > i) {
			i, ok = r, true
		}
	}
	if !ok {
		return write{}, false
	}
	return tx.writes[i], true
}

func (tx *Tx) index(i int, w write) {
	if w.end != nil {
		tx.ranges = append(tx.ranges, i)
	} else {
		tx.last[string(w.key)] = i
	}
}

// Set stores value under key. It keeps neither slice.
func (tx *Tx) Set(key, value []byte) {
	buf := make([]byte, len(key)+len(value))
	n := copy(buf, key)
	copy(buf[n:], value)
	tx.add(write{key: buf[:n:n], value: buf[n:]})
}

// Delete removes key if it is there.
func (tx *Tx) Delete(key []byte) { tx.add(write{key: bytes.Clone(key), deleted: true}) }

// DeletePrefix removes every key that starts with prefix, which must hold a byte below 0xff. The caller's lock must
// cover all of them: of keys that others add meanwhile some may stay.
func (tx *Tx) DeletePrefix(prefix []byte) {
	// The engine's range deletions slow down every read until they are compacted, so a few keys go one by one.
	const few = 256
	end := PrefixEnd(prefix)
	if end == nil {
		panic("store: a prefix needs a byte below 0xff")
	}
	keys, err := tx.engine.keys(prefix, end, few)
	if err != nil || len(keys) == few || len(tx.writes) > few {
		tx.add(write{key: bytes.Clone(prefix), end: end, deleted: true})
		return
	}
	for _, w := range tx.writes {
		if !w.deleted && bytes.HasPrefix(w.key, prefix) {
			keys = append(keys, w.key)
		}
	}
	for _, k := range keys {
		tx.add(write{key: k, deleted: true})
	}
}

func (tx *Tx) add(w write) {
	if tx.last != nil {
		tx.index(len(tx.writes), w)
	}
	tx.writes = append(tx.writes, w)
	tx.size += len(w.key) + len(w.value) + len(w.end)
}

// OnCommit has f run after the changes are on disk, before Update returns and releases its lock. Functions run in the
// order they were given; none runs if nothing is written because of an error.
func (tx *Tx) OnCommit(f func()) { tx.onCommit = append(tx.onCommit, f) }
