// Package store keeps the hub's durable state: an ordered map from byte string keys to byte string values, in one
// folder that one process owns.
//
// A change is made by [DB.Update] and is on disk, fsynced, before Update returns. Updates that name the same lock run
// one after the other, so that a function can read, decide and write without losing another's change; updates under
// different names run side by side and share one fsync.
//
//	db, err := store.Open(dir, logger)
//	...
//	err = db.Update("device-1", func(tx *store.Tx) error {
//		old, err := tx.Get(key)
//		...
//		tx.Set(key, value)
//		tx.OnCommit(func() { notify(value) })
//		return nil
//	})
//
// The engine is a log-structured merge tree, github.com/cockroachdb/pebble. Its data may be larger than memory, and
// opening reads only the tail of its log.
package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

var (
	// ErrNotFound means that no value is stored under the key.
	ErrNotFound = errors.New("not found")

	// ErrFull means that the disk has too little space left for a change. See [DB.Update].
	ErrFull = errors.New("disk full")

	// ErrClosed means that the DB was closed before the call.
	ErrClosed = errors.New("store closed")

	// ErrLocked means that the folder is open elsewhere, as a rule in another process.
	ErrLocked = errors.New("folder is in use by another process")

	// ErrStop, returned by the function given to [DB.Scan], ends the scan without an error.
	ErrStop = errors.New("stop")
)

// A DB is an open store. It is safe for concurrent use.
type DB struct {
	engine    *pebble.DB
	disk      *disk
	committer *committer
	locks     *lockSet

	mu      sync.RWMutex // guards closed, and running going up; held for moments only
	closed  bool
	running sync.WaitGroup // calls that use engine
}

// Open opens the store in the folder dir and makes both if they are missing. It logs when the disk fails or fills up
// and when it recovers, and at debug level what the engine says; a nil logger discards that. The error wraps [ErrLocked] if dir is open elsewhere and [ErrFull] if the disk has no
// space for opening it.
func Open(dir string, logger *slog.Logger) (*DB, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(abs, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return open(vfs.Default, abs, logger)
}

// OpenMemory opens an empty store that lives in memory and is gone after Close.
func OpenMemory(logger *slog.Logger) (*DB, error) { return open(vfs.NewMem(), "", logger) }

func open(fsys vfs.FS, dir string, logger *slog.Logger) (*DB, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	d := newDisk(fsys, dir, logger)
	var engine *pebble.DB
	opened := make(chan error, 1)
	go func() {
		var err error
		engine, err = pebble.Open(dir, engineOptions(d, logger))
		opened <- err
	}()
	// On a full disk the engine would try for ever to write what its log holds.
	if err := d.await(opened); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return &DB{engine: engine, disk: d, committer: startCommitter(engine, d), locks: newLockSet()}, nil
}

// Close waits for running calls, then closes the store. Later calls return [ErrClosed]; closing again does nothing.
// If the disk doesn't let it finish, Close leaves the store as a crash would, with every acknowledged change in it,
// and returns the reason.
func (db *DB) Close() error {
	db.mu.Lock()
	again := db.closed
	db.closed = true
	db.mu.Unlock()
	if again {
		return nil
	}
	closed := make(chan error, 1)
	go func() {
		db.running.Wait()
		db.committer.close()
		closed <- db.engine.Close()
	}()
	if err := db.disk.await(closed); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// enter holds the engine open until db.running.Done is called.
func (db *DB) enter() error {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if db.closed {
		return ErrClosed
	}
	db.running.Add(1)
	return nil
}

// Get returns a copy of the value of key, or [ErrNotFound]. A value is visible a moment before it is on disk.
func (db *DB) Get(key []byte) ([]byte, error) {
	if err := db.enter(); err != nil {
		return nil, err
	}
	defer db.running.Done()
	return db.get(key)
}

func (db *DB) get(key []byte) ([]byte, error) {
	v, closer, err := db.engine.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	defer closer.Close()
	return append(make([]byte, 0, len(v)), v...), nil
}

// Scan calls fn for each key from start (nil: the first) up to but not including end (nil: past the last), in order.
// All calls see the store as it was at one instant. The slices are valid only until fn returns and must not be
// changed. An error of fn ends the scan and is returned, except [ErrStop], which is not.
func (db *DB) Scan(start, end []byte, fn func(key, value []byte) error) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.running.Done()
	return db.scan(start, end, fn)
}

// PrefixEnd returns the first key behind all that start with prefix, which ends a scan of these: each key from prefix
// up to it starts with prefix. It is nil if there is no such key, since the prefix has no byte below 0xff.
func PrefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

func (db *DB) scan(start, end []byte, fn func(key, value []byte) error) error {
	it, err := db.engine.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return fmt.Errorf("scan store: %w", err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("scan store: %w", err)
		}
		if err := fn(it.Key(), v); errors.Is(err, ErrStop) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("scan store: %w", err)
	}
	return nil
}

// keys returns at most limit keys from start up to but not including end.
func (db *DB) keys(start, end []byte, limit int) (keys [][]byte, err error) {
	err = db.scan(start, end, func(k, _ []byte) error {
		if keys = append(keys, bytes.Clone(k)); len(keys) == limit {
			return ErrStop
		}
		return nil
	})
	return keys, err
}
