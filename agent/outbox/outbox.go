// Package outbox keeps a device's messages on disk until the hub has taken
// them. A message is durable before its source is told so, and leaves only
// after the hub's PUBACK: it survives restarts, kill -9, power cuts and days
// without a network.
//
//	box, err := outbox.Open(dir, outbox.Options{})
//	...
//	go box.Send(ctx, client) // for as long as the device runs
//	...
//	err = box.Add(mqttdevice.Message{Payload: data})
//
// Messages are sent in the order they were added, each at least once. Every
// message has a message id, by which a receiver drops what came twice, and the
// time it was added as iothub-creation-time-utc.
//
// The outbox is bounded. When it is full the oldest messages make room, a
// segment of the file at a time (1/32 of the bound, or 1 MiB if that is less),
// and are counted: to whom a machine was out of sight for days, what it does
// now is worth more than what it did first. A full disk is another matter: Add
// then fails, what is there stays, and sending it needs no space.
//
// The storage is a row of files that are only appended to, and a position that
// is overwritten in place. A database that copies on write (bbolt) or appends
// even its deletions (pebble) needs space to delete, and neither gives any back
// at once; the queue libraries there are fsync each message by itself, or never.
package outbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/iotdm/iotdm/mqttdevice"
)

// Options configure Open. The zero value works.
type Options struct {
	// MaxBytes bounds the messages on disk, give or take the batch being
	// written; at least MinBytes. 0 is 128 MiB: a message of 500 bytes a
	// second for three days.
	MaxBytes int64

	// Logger hears of what was dropped and what was found damaged. Nil discards.
	Logger *slog.Logger

	// Now is the clock that dates messages. Nil is time.Now.
	Now func() time.Time

	// OnDropped, if set, is called after messages were dropped to make room,
	// with how many that have been since the outbox was made. It must not
	// block, and must not call the outbox.
	OnDropped func(total uint64)

	sync func(*os.File) error // for tests; nil is syncData
}

const (
	defaultMaxBytes = 128 << 20

	// MinBytes is the least Options.MaxBytes.
	MinBytes = 1 << 20

	segmentsPerBox = 32
	minSegment     = 32 << 10
	maxSegment     = 1 << 20
	maxPending     = 256 << 10 // bytes that wait for the fsync under way

	fileMode   = 0o600
	folderMode = 0o700
)

var (
	// ErrClosed means that the outbox was closed before the call.
	ErrClosed = errors.New("the outbox is closed")

	// ErrInUse means that another process has the outbox open.
	ErrInUse = errors.New("in use by another process")
)

// A Box is an open outbox. Its methods may be called concurrently.
type Box struct {
	dir          string
	maxBytes     int64
	segmentBytes int64
	logger       *slog.Logger
	now          func() time.Time
	onDropped    func(uint64)
	sync         func(*os.File) error // makes content durable
	lock         *flock.Flock
	prefix       string // of the message ids this process makes

	mu       sync.Mutex // guards what follows; never held over I/O
	work     sync.Cond  // the committer waits here for next
	room     sync.Cond  // adders wait here while next is full
	next     *batch     // what the next commit writes
	made     uint64     // message ids
	segments []segment  // oldest first
	broken   bool       // the last segment is not written to any more
	first    uint64     // the oldest message that was neither sent nor dropped
	end      uint64     // follows the newest durable message
	skipped  uint64     // damage before this message is counted
	holes    []hole     // damage that is not over yet; in order
	sent     uint64
	dropped  uint64
	damaged  uint64
	grown    chan struct{} // closed when end grows or the outbox closes; nil when nobody waits
	closed   bool

	closing context.Context // ends when Close begins
	close   context.CancelFunc
	done    chan struct{} // closed when the committer has ended
	sending sync.Mutex    // held by Send

	state state // has a lock of its own, which is taken before mu

	spooled struct { // a file that is taken in part; of Collect alone
		file  string
		taken int // messages
	}

	active *os.File // the last segment, of the committer alone; nil before the next one is made
}

// A batch is what one fsync makes durable.
type batch struct {
	buf   []byte // records whose sequence and checksum are still to be filled in
	count uint64
	done  chan struct{} // closed when err is known
	err   error
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// Open opens the outbox in the folder dir and makes both if they are missing.
// One process at a time has it open; for another the error wraps [ErrInUse].
func Open(dir string, opt Options) (*Box, error) {
	if opt.MaxBytes == 0 {
		opt.MaxBytes = defaultMaxBytes
	}
	if opt.MaxBytes < MinBytes {
		return nil, fmt.Errorf("outbox: %d bytes are less than %d", opt.MaxBytes, MinBytes)
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.OnDropped == nil {
		opt.OnDropped = func(uint64) {}
	}
	if opt.sync == nil {
		opt.sync = syncData
	}
	b := &Box{
		dir: dir, maxBytes: opt.MaxBytes,
		segmentBytes: min(max(opt.MaxBytes/segmentsPerBox, minSegment), maxSegment),
		logger:       opt.Logger, now: opt.Now, onDropped: opt.OnDropped, sync: opt.sync,
		prefix: rand.Text()[:10] + "-",
		done:   make(chan struct{}),
	}
	b.closing, b.close = context.WithCancel(context.Background())
	b.work.L, b.room.L = &b.mu, &b.mu
	b.next = newBatch()
	if err := b.open(); err != nil {
		b.closeFiles()
		return nil, fmt.Errorf("outbox %s: %w", dir, plain(err))
	}
	go b.run()
	return b, nil
}

func (b *Box) open() error {
	if err := makeFolder(b.dir); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(b.dir, "lock"), flock.SetPermissions(fileMode))
	switch held, err := lock.TryLock(); {
	case err != nil:
		return err
	case !held:
		return fmt.Errorf("%w, which holds %s", ErrInUse, lock.Path())
	}
	b.lock = lock
	return b.recover()
}

// makeFolder makes dir durable with those above it that are missing.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := makeFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, folderMode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncFolder(filepath.Dir(dir))
}

// Close makes what was added durable, tells its sources, ends Send and lets
// another process open the outbox. Closing again does nothing.
func (b *Box) Close() error {
	b.mu.Lock()
	again := b.closed
	b.closed = true
	b.close()
	b.work.Signal()
	b.room.Broadcast()
	b.wake()
	b.mu.Unlock()
	<-b.done
	if again {
		return nil
	}
	b.sending.Lock() // for good
	err := b.storeState(true)
	b.closeFiles()
	if err != nil {
		return fmt.Errorf("close outbox %s: %w", b.dir, plain(err))
	}
	return nil
}

func (b *Box) closeFiles() {
	b.closeActive()
	b.state.close()
	if b.lock != nil {
		_ = b.lock.Close() // the process's end would release it too
	}
}

// Add puts messages behind those that are there, and returns when they are
// durable. They get a message id if they have none, and the time of now unless
// they have one. A message that no hub would take is refused, and none is added.
//
// On another error, such as a full disk, none of them was added, unless the
// machine dies before the next Add: then they may be there after all.
func (b *Box) Add(messages ...mqttdevice.Message) error {
	if len(messages) == 0 {
		return nil
	}
	records := make([][]byte, len(messages))
	for i, m := range messages {
		b.complete(&m)
		if err := m.Validate(); err != nil {
			return err
		}
		var err error
		if records[i], err = encodeMessage(m); err != nil {
			return err
		}
	}
	b.mu.Lock()
	for len(b.next.buf) >= maxPending && !b.closed {
		b.room.Wait()
	}
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	mine := b.next
	for _, r := range records {
		mine.buf = appendRecord(mine.buf, r)
	}
	mine.count += uint64(len(records))
	b.work.Signal()
	b.mu.Unlock()
	<-mine.done
	return mine.err
}

// complete gives m what a message in the outbox has.
func (b *Box) complete(m *mqttdevice.Message) {
	if m.ID == "" {
		b.mu.Lock()
		b.made++
		m.ID = fmt.Sprint(b.prefix, b.made)
		b.mu.Unlock()
	}
	if m.Created.IsZero() {
		m.Created = b.now()
	}
}

// Stats are numbers of messages. All but Queued count from when the outbox was
// made.
type Stats struct {
	Queued  uint64 `json:"queued"`  // durable and not acknowledged by the hub
	Bytes   int64  `json:"bytes"`   // on disk
	Sent    uint64 `json:"sent"`    // acknowledged by the hub
	Dropped uint64 `json:"dropped"` // to make room
	Damaged uint64 `json:"damaged"` // found unreadable, and skipped
}

// Stats returns the present numbers.
func (b *Box) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Stats{Queued: b.end - b.first, Bytes: b.bytes(), Sent: b.sent, Dropped: b.dropped, Damaged: b.damaged}
}

// wake tells a waiting reader to look again. The caller holds b.mu.
func (b *Box) wake() {
	if b.grown != nil {
		close(b.grown)
		b.grown = nil
	}
}

// plain words a file error without the name of the system call.
func plain(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w; free some space, or let the device connect and send what is there", err)
	}
	return err
}
