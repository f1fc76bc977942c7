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
// The engine is a log-structured merge tree, github.com/cockroachdb/pebble. Its data is larger than memory by design:
// opening reads only the tail of the log.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

var (
	// ErrNotFound means that no value is stored under the key.
	ErrNotFound = errors.New("not found")

	// ErrFull means that the disk has too little space left for a write. Nothing was written.
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
	engine *pebble.DB
	lock   *pebble.Lock
	locks  keyLocks

	mu      sync.RWMutex // guards closed, and running going up; held for moments only
	closed  bool
	running sync.WaitGroup // calls that use engine
}

// Open opens the store in the folder dir and makes both if they are missing. The engine's own log goes to logger at
// debug level; nil discards it. The error wraps [ErrLocked] if dir is open elsewhere.
func Open(dir string, logger *slog.Logger) (*DB, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return open(vfs.Default, dir, logger)
}

// OpenMemory opens an empty store that lives in memory and is gone after Close.
func OpenMemory(logger *slog.Logger) (*DB, error) {
	return open(vfs.NewMem(), "", logger)
}

func open(fsys vfs.FS, dir string, logger *slog.Logger) (*DB, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	lock, err := pebble.LockDirectory(dir, fsys)
	var pathErr *fs.PathError
	switch {
	case err != nil && (errors.As(err, &pathErr) || errors.Is(err, fs.ErrPermission)):
		return nil, fmt.Errorf("open store: %w", err)
	case err != nil:
		return nil, fmt.Errorf("open store %s: %w", dir, ErrLocked)
	}
	opts := &pebble.Options{
		FS:                          fsys,
		Lock:                        lock,
		Logger:                      engineLog{logger},
		FormatMajorVersion:          pebble.FormatValueSeparation,
		CacheSize:                   64 << 20,
		MemTableSize:                16 << 20,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, 2 },
	}
	for i := range opts.Levels {
		opts.Levels[i].BlockSize = 32 << 10
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	engine, err := pebble.Open(dir, opts)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return &DB{engine: engine, lock: lock}, nil
}

// Close waits for running calls, then closes the store. Later calls return [ErrClosed]; closing again does nothing.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return nil
	}
	db.closed = true
	db.mu.Unlock()
	db.running.Wait()
	err := errors.Join(db.engine.Close(), db.lock.Close())
	if err != nil {
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

// Get returns a copy of the value of key, or [ErrNotFound].
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

// Scan calls fn for each key from start (included) to end (excluded; nil means the last key) in order. All calls see
// the store as it was at one instant. The slices are valid only until fn returns and must not be changed. Scan returns
// the error of fn, which ends it, or nil if that is [ErrStop].
func (db *DB) Scan(start, end []byte, fn func(key, value []byte) error) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.running.Done()
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

// engineLog passes the engine's log on. The engine says at every flush what an operator never needs to read.
type engineLog struct{ *slog.Logger }

func (l engineLog) Infof(format string, args ...any) {
	if l.Enabled(context.Background(), slog.LevelDebug) {
		l.Debug(fmt.Sprintf(format, args...))
	}
}

func (l engineLog) Errorf(format string, args ...any) { l.Infof(format, args...) }

func (l engineLog) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
