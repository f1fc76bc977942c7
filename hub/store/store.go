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
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/semaphore"
)

var (
	// ErrNotFound means that no value is stored under the key.
	ErrNotFound = errors.New("not found")

	// ErrFull means that the disk has too little space left for a change. See [DB.Update].
	ErrFull = errors.New("disk full")

	// ErrStalled means that the disk does not take changes for another reason: it has failed, or does not answer.
	ErrStalled = errors.New("the disk does not take changes")

	// ErrClosed means that the DB was closed before the call.
	ErrClosed = errors.New("store closed")

	// ErrLocked means that the folder is open elsewhere, as a rule in another process.
	ErrLocked = errors.New("folder is in use by another process")

	// ErrDamaged means that a file of the store does not hold what was written to it. The error names the file.
	ErrDamaged = errors.New("the store is damaged")

	// ErrStop, returned by the function given to [DB.Scan], ends the scan without an error.
	ErrStop = errors.New("stop")
)

// A DB is an open store. It is safe for concurrent use.
type DB struct {
	fs        vfs.FS
	dir       string
	logger    *slog.Logger
	lock      io.Closer // on the folder
	locks     *lockSet
	turns     *semaphore.Weighted // of Updates, and all of them of a Replace
	counts    counts
	listeners listeners
	replica   *Replica // nil if the store is not replicated

	mu     sync.RWMutex // guards closed and engine, and the users of that going up; held for moments only
	closed bool
	engine *engine

	stop     context.CancelFunc // ends the wait for space
	reopened chan struct{}      // closed when nobody waits for space, or is busy with what followed from it
}

// An engine is the open engine of a DB. One that was opened for reading only has no committer.
type engine struct {
	*pebble.DB
	disk      *disk
	committer *committer
	reserved  bool           // keys that begin with 0 are not for callers
	users     sync.WaitGroup // calls that use it
}

// Open opens the store in the folder dir and makes both if they are missing. It logs when the disk fails or fills up
// and when it recovers, and at debug level what the engine says; a nil logger discards that. The error wraps
// [ErrLocked] if dir is open elsewhere.
//
// On a disk that is full, or takes no changes for another reason, a store that was there before is opened for reading:
// every change is refused as [DB.Update] says, until there is space. If there was none, the error wraps [ErrFull] or
// [ErrStalled].
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
	return openAs(fsys, dir, logger, nil)
}

// openAs opens the copy of a replica, if that is not nil.
func openAs(fsys vfs.FS, dir string, logger *slog.Logger, r *Replica) (*DB, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	lock, err := lockFolder(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	db := &DB{fs: fsys, dir: dir, logger: logger, lock: lock, locks: newLockSet(), turns: semaphore.NewWeighted(allTurns), stop: func() {}, reopened: make(chan struct{}), replica: r}
	if err := db.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", marked(err)), lock.Close())
	}
	if err := db.checkKind(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), db.Close())
	}
	return db, nil
}

// checkKind returns an error if the store is one node's copy of a replicated one and was not opened as that, or the
// other way round.
func (db *DB) checkKind() error {
	e := db.engine
	_, err := e.get(keyApplied)
	switch {
	case err == nil && db.replica == nil:
		return fmt.Errorf("%w is in %s: it can be opened only as that", ErrReplicated, db.dir)
	case err == nil && db.replica != nil:
	case !errors.Is(err, ErrNotFound):
		return err
	case db.replica != nil:
		if keys, err := e.keys(nil, nil, 1); err != nil || len(keys) > 0 {
			return errors.Join(err, fmt.Errorf("%w is wanted, and %s holds the store of a hub that is none", ErrReplicated, db.dir))
		}
	}
	e.reserved = db.replica != nil
	return nil
}

func (db *DB) open() (err error) {
	if db.engine, err = db.openEngine(nil); err == nil || db.replica != nil {
		close(db.reopened)
		return err
	}
	if !errors.Is(err, ErrFull) && !errors.Is(err, ErrStalled) {
		return err
	}
	reader, readErr := db.openReader(err)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	db.engine = reader
	db.logger.Error("the store is open for reading only; changes are refused until there is space", "err", err)
	ctx, stop := context.WithCancel(context.Background())
	db.stop = stop
	go db.awaitSpace(ctx)
	return nil
}

// openEngine opens the engine to read and write. What that removes stays until keep is closed, if it isn't nil.
func (db *DB) openEngine(keep <-chan struct{}) (*engine, error) {
	d := newDisk(db.fs, db.dir, db.logger)
	d.counts = &db.counts
	d.keep = keep
	if err := d.room(0); err != nil {
		return nil, err
	}
	var opened *pebble.DB
	done := make(chan error, 1)
	go func() {
		var err error
		opened, err = pebble.Open(db.dir, engineOptions(d, db.logger))
		done <- err
	}()
	// On a full disk the engine would try for ever to write what its log holds.
	if err := d.await(done); err != nil {
		return nil, err
	}
	return &engine{DB: opened, disk: d, committer: startCommitter(opened, d)}, nil
}

// openReader opens the engine for reading, which writes nothing. cause is why changes are refused.
func (db *DB) openReader(cause error) (*engine, error) {
	d := newDisk(db.fs, db.dir, db.logger)
	d.counts = &db.counts
	d.refuse(cause)
	opts := engineOptions(d, db.logger)
	opts.ReadOnly = true
	opened, err := pebble.Open(db.dir, opts)
	if err != nil {
		return nil, err
	}
	return &engine{DB: opened, disk: d}, nil
}

// awaitSpace opens the engine to write as soon as there is space.
func (db *DB) awaitSpace(ctx context.Context) {
	defer close(db.reopened)
	tick := time.NewTicker(reopenInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		old := make(chan struct{})
		writer, err := db.openEngine(old)
		if err != nil {
			db.logger.Debug("the store cannot be opened to write", "err", err)
			continue
		}
		db.mu.Lock()
		reader := db.engine
		db.engine = writer
		db.mu.Unlock()
		db.logger.Info("the store can write again")
		reader.users.Wait() // what they read must not be removed before
		if err := reader.Close(); err != nil {
			db.logger.Debug("closing the store that was open for reading", "err", err)
		}
		close(old)
		return
	}
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
	if db.replica != nil {
		db.replica.close()
	}
	db.stop()
	<-db.reopened
	e := db.engine // which changes no more
	if err := errors.Join(e.end(), db.lock.Close()); err != nil {
		return fmt.Errorf("close store: %w; every change that was acknowledged is kept", err)
	}
	return nil
}

// end waits for running calls and closes e, as far as the disk lets it.
func (e *engine) end() error {
	if e.committer == nil {
		e.users.Wait()
		return e.Close()
	}
	left, closed := make(chan error, 1), make(chan error, 1)
	go func() {
		e.users.Wait()
		left <- nil
	}()
	if err := e.disk.await(left); err != nil {
		return err
	}
	defer e.disk.watch()()
	go func() {
		e.committer.close()
		closed <- e.Close()
	}()
	return e.disk.await(closed)
}

// enter holds the engine open until its users are told that this one is done.
func (db *DB) enter() (*engine, error) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if db.closed {
		return nil, ErrClosed
	}
	db.engine.users.Add(1)
	return db.engine, nil
}

// Get returns a copy of the value of key, or [ErrNotFound]. A value is visible a moment before it is on disk.
func (db *DB) Get(key []byte) ([]byte, error) {
	e, err := db.enter()
	if err != nil {
		return nil, err
	}
	defer e.users.Done()
	if e.reserved && isReserved(key) {
		return nil, ErrNotFound
	}
	return e.get(key)
}

func (e *engine) get(key []byte) ([]byte, error) {
	v, closer, err := e.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read store: %w", marked(err))
	}
	defer closer.Close()
	return append(make([]byte, 0, len(v)), v...), nil
}

// Scan calls fn for each key from start (nil: the first) up to but not including end (nil: past the last), in order.
// All calls see the store as it was at one instant. The slices are valid only until fn returns and must not be
// changed. An error of fn ends the scan and is returned, except [ErrStop], which is not.
func (db *DB) Scan(start, end []byte, fn func(key, value []byte) error) error {
	e, err := db.enter()
	if err != nil {
		return err
	}
	defer e.users.Done()
	return e.scan(start, end, fn)
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

func (e *engine) scan(start, end []byte, fn func(key, value []byte) error) error {
	return scan(e.DB, e.visible(start), end, fn)
}

// visible returns where a scan for a caller begins.
func (e *engine) visible(start []byte) []byte {
	if e.reserved && bytes.Compare(start, firstKey) < 0 {
		return firstKey
	}
	return start
}

func scan(from pebble.Reader, start, end []byte, fn func(key, value []byte) error) error {
	it, err := from.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return fmt.Errorf("scan store: %w", marked(err))
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("scan store: %w", marked(err))
		}
		if err := fn(it.Key(), v); errors.Is(err, ErrStop) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("scan store: %w", marked(err))
	}
	return nil
}

// marked marks err with [ErrDamaged] if that is what it is about.
func marked(err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", ErrDamaged, &engineError{err})
	}
	return err
}

// An engineError is one of the engine's, whose text may have several lines.
type engineError struct{ err error }

func (e *engineError) Unwrap() error { return e.err }
func (e *engineError) Error() string {
	text, _, _ := strings.Cut(e.err.Error(), "\n")
	return strings.TrimPrefix(text, "pebble: ")
}

// keys returns at most limit keys from start up to but not including end.
func (e *engine) keys(start, end []byte, limit int) (keys [][]byte, err error) {
	err = e.scan(start, end, func(k, _ []byte) error {
		if keys = append(keys, bytes.Clone(k)); len(keys) == limit {
			return ErrStop
		}
		return nil
	})
	return keys, err
}
