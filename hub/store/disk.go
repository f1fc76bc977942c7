package store

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// maxReserve is the free space below which Updates are refused, so that the engine can still sort what it has.
	// On a small file system it is a tenth of the whole.
	maxReserve = 64 << 20

	// The free space is looked up again after so long, or so many bytes written.
	roomInterval = 250 * time.Millisecond
	roomBytes    = 4 << 20

	// retryInterval is how often an operation that found the disk full is tried again.
	retryInterval = 200 * time.Millisecond
)

// A disk is the file system under the engine. It keeps the engine from ever seeing that the disk is full.
//
// The engine takes an error from its log or its manifest for the end of the process: it calls Fatalf, or panics with
// its locks held. So Updates are refused while little space is left. That is not enough where others fill the disk or
// a quota ends it, so an operation that finds no space is tried again until it succeeds. Meanwhile the disk is
// stalled: the [committer] refuses new changes and lets go of those in flight.
//
// Other errors can't be helped by waiting: after a failed fsync nobody knows what is on disk. Then the operation never
// returns, the disk stays stalled, and reads alone go on until the store is opened again.
//
// The file operations themselves are in fs.go.
type disk struct {
	vfs.FS
	dir    string
	logger *slog.Logger

	// What room found out; used by the committer alone.
	roomTime time.Time
	roomLeft int
	roomErr  error

	// What Stats tells.
	stallCount, slowed, damaged, refused atomic.Uint64
	onSync                               atomic.Pointer[func(time.Duration)]

	mu      sync.Mutex    // guards what follows
	stalls  int           // operations being retried
	broken  bool          // there is no way out of the stall
	cause   error         // of the stall
	stalled chan struct{} // closed while stalls > 0 or broken
	killed  chan struct{} // closed by kill
	lock    io.Closer     // the lock on the folder
}

func newDisk(fsys vfs.FS, dir string, logger *slog.Logger) *disk {
	return &disk{FS: fsys, dir: dir, logger: logger, stalled: make(chan struct{}), killed: make(chan struct{})}
}

// room returns nil if size bytes may be written. Most calls cost no system call; while the disk is full none costs
// more than one in a [roomInterval].
func (d *disk) room(size int) error {
	if err := d.err(); err != nil {
		return err
	}
	now := time.Now()
	if now.Sub(d.roomTime) >= roomInterval || d.roomErr == nil && d.roomLeft < size {
		d.roomTime, d.roomLeft, d.roomErr = now, max(roomBytes, size), nil
		// Memory has no limit to ask for, and a file system that can't tell has to be taken as it comes.
		if use, err := d.GetDiskUsage(d.dir); err == nil {
			keep := min(maxReserve, use.TotalBytes/10)
			if use.AvailBytes < keep+uint64(size) {
				d.roomErr = fmt.Errorf("%w: less than %d MiB left for %s", ErrFull, keep>>20, d.dir)
			}
		}
	}
	if d.roomErr == nil {
		d.roomLeft -= size
	}
	return d.roomErr
}

// stall returns a channel that is closed while the disk is stalled.
func (d *disk) stall() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stalled
}

// err returns why the disk is stalled, or nil if it isn't.
func (d *disk) err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stalls > 0 || d.broken {
		return d.cause
	}
	return nil
}

// await returns what done delivers, or kills the disk if it stalls before.
func (d *disk) await(done <-chan error) error {
	for {
		select {
		case err := <-done:
			return err
		case <-d.stall():
			if err := d.err(); err != nil {
				return errors.Join(err, d.kill())
			}
		}
	}
}

// kill ends all writing to the disk and releases the lock on its folder. What is stalled never returns, and so the
// goroutines and the memory of the engine are never freed.
func (d *disk) kill() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.killed)
	if d.lock == nil {
		return nil
	}
	return d.lock.Close()
}

// park does not return if the disk has been killed.
func (d *disk) park() {
	select {
	case <-d.killed:
		select {}
	default:
	}
}

// pause waits for the next try. It does not return if the disk is killed.
func (d *disk) pause() {
	select {
	case <-time.After(retryInterval):
	case <-d.killed:
		select {}
	}
}

// retry runs op until it succeeds. It returns only then: an error for which passes is false breaks the disk.
func (d *disk) retry(op func() error, passes func(error) bool) {
	d.park()
	stalled := false
	for err := op(); err != nil; err = op() {
		if !passes(err) {
			d.breakDown(err)
			select {}
		}
		if !stalled {
			stalled = true
			d.begin(err)
			defer d.end()
		}
		d.pause()
	}
}

func (d *disk) begin(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stalls++; d.stalls > 1 || d.broken {
		return
	}
	close(d.stalled)
	d.stallCount.Add(1)
	d.cause = fmt.Errorf("write store: %w", err)
	if isFull(err) {
		d.cause = fmt.Errorf("%w: no space left for %s", ErrFull, d.dir)
	}
	d.logger.Error("the store cannot write; changes are refused until it can", "err", err)
}

func (d *disk) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stalls--; d.stalls > 0 || d.broken {
		return
	}
	d.stalled = make(chan struct{})
	d.logger.Info("the store can write again")
}

func (d *disk) breakDown(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken {
		return
	}
	if d.stalls == 0 {
		close(d.stalled)
		d.stallCount.Add(1)
	}
	d.broken = true
	d.cause = fmt.Errorf("write store, which must be opened again: %w", err)
	if isFull(err) {
		d.cause = fmt.Errorf("%w: %w", ErrFull, d.cause)
	}
	d.logger.Error("the store cannot write; changes are refused until it is opened again", "err", err)
}

// isFull reports whether err may go away when files are removed.
func isFull(err error) bool { return vfs.IsNoSpaceError(err) || errors.Is(err, syscall.EDQUOT) }
