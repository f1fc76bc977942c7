package store

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
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

	// reopenInterval is how often a store that is open for reading looks whether it can be opened to write.
	reopenInterval = time.Second

	// patience is how long the engine may take for a group of changes before their Updates are let go: as when the
	// disk does not answer, or the engine waits for a compaction that finds no space.
	patience = 10 * time.Second
)

// A disk is the file system under the engine. It keeps the engine from ever seeing that the disk is full.
//
// The engine takes an error from its log or its manifest for the end of the process: it calls Fatalf, or panics with
// its locks held. So Updates are refused while little space is left. That is not enough where others fill the disk or
// a quota ends it, so an operation that finds no space is tried again until it succeeds. Meanwhile the disk is
// stalled: the [committer] refuses new changes and lets go of those in flight.
//
// Other errors can't be helped by waiting: after a failed fsync nobody knows what is on disk. Then the operation never
// returns, the disk stays stalled, and reads alone go on until the store is opened again. The same is done, for as long
// as it lasts, when the disk does not answer: see patience.
//
// The file operations themselves are in fs.go.
type disk struct {
	vfs.FS
	dir    string
	logger *slog.Logger
	keep   <-chan struct{} // what is removed stays until this is closed; nil is at once

	// What room found out; used by the committer alone.
	roomTime time.Time
	roomLeft int
	roomErr  error

	counts *counts // for Stats

	mu      sync.Mutex    // guards what follows
	stalls  int           // operations being retried, or that take too long
	changes int           // operations under way that change the disk
	broken  bool          // there is no way out of the stall
	cause   error         // of the stall
	stalled chan struct{} // closed while stalls > 0, and by breakDown
	killed  chan struct{} // closed by kill
	quiet   chan struct{} // closed when killed and no operation is under way that changes the disk
}

func newDisk(fsys vfs.FS, dir string, logger *slog.Logger) *disk {
	return &disk{FS: fsys, dir: dir, logger: logger, counts: new(counts), stalled: make(chan struct{}), killed: make(chan struct{}), quiet: make(chan struct{})}
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

// err returns why the disk is stalled or refuses changes, or nil.
func (d *disk) err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stalls > 0 || d.broken {
		return d.cause
	}
	return nil
}

// await returns what done delivers, or kills the disk if it stalls before. An operation that does not answer at all may
// still change the disk later: then the error says so.
func (d *disk) await(done <-chan error) error {
	for {
		select {
		case err := <-done:
			return err
		case <-d.stall():
			err := d.err()
			if err == nil { // over already
				continue
			}
			d.kill()
			select {
			case <-d.quiet:
				return err
			case <-time.After(patience):
				return fmt.Errorf("%w; the disk is still busy", err)
			}
		}
	}
}

// watch stalls the disk if what begins now is not done in time.
func (d *disk) watch() (done func()) {
	late := make(chan struct{})
	t := time.AfterFunc(patience, func() {
		d.begin(fmt.Errorf("no answer for %v", patience))
		close(late)
	})
	return func() {
		if !t.Stop() {
			<-late
			d.end()
		}
	}
}

// refuse has the disk refuse all changes, for good. It is not stalled: no change is on its way, so whoever has a turn or
// a lock gives it back soon.
func (d *disk) refuse(cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken, d.cause = true, cause
}

// kill ends all writing to the disk. What is stalled never returns, and so the goroutines and the memory of the engine
// are never freed.
func (d *disk) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.killed)
	if d.changes == 0 {
		close(d.quiet)
	}
}

// change runs op, which may change the disk. It does not return if the disk has been killed.
func (d *disk) change(op func() error) error {
	d.mu.Lock()
	select {
	case <-d.killed:
		d.mu.Unlock()
		select {}
	default:
	}
	d.changes++
	d.mu.Unlock()
	err := op()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changes--; d.changes == 0 {
		select {
		case <-d.killed:
			close(d.quiet)
		default:
		}
	}
	return err
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
	stalled := false
	for err := d.change(op); err != nil; err = d.change(op) {
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
	d.counts.stalls.Add(1)
	d.cause = fmt.Errorf("write store: %w: %w", ErrStalled, err)
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
		d.counts.stalls.Add(1)
	}
	d.broken = true
	d.cause = fmt.Errorf("write store, which must be opened again: %w: %w", ErrStalled, err)
	if isFull(err) {
		d.cause = fmt.Errorf("%w: %w", ErrFull, d.cause)
	}
	d.logger.Error("the store cannot write; changes are refused until the hub is started again", "err", err)
}

// isFull reports whether err may go away when files are removed.
func isFull(err error) bool { return vfs.IsNoSpaceError(err) || errors.Is(err, syscall.EDQUOT) }
