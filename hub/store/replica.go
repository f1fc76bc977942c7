package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/iotdm/iotdm/internal/wait"
)

var (
	// ErrNoLog means that the log of a replicated store does not answer. See [DB.Update].
	ErrNoLog = errors.New("the log of the cluster does not answer")

	// ErrFenced means that this node is no member of the cluster: it has not joined, has left, or was expelled. Its
	// changes are not taken.
	ErrFenced = errors.New("this node is not a member of the cluster")

	// ErrReplaced means that another process has joined under the name of this node. It wraps ErrFenced.
	ErrReplaced = fmt.Errorf("%w any more: another one has joined under its name", ErrFenced)

	// ErrTooLarge means that an Update changes more than a group of a log can hold.
	ErrTooLarge = errors.New("the change is too large for the log of the cluster")

	// ErrNoState means that a log has not begun: see [StartLog].
	ErrNoState = errors.New("the log of the cluster has not begun")

	// ErrBegun means that a log that should be empty is not.
	ErrBegun = errors.New("the log of the cluster has begun already")

	// ErrOtherLog means that the log is not the one that this node has followed.
	ErrOtherLog = errors.New("the log belongs to another cluster")

	// ErrNewerLog means that a newer program writes the log in a form that this one does not know.
	ErrNewerLog = errors.New("the log of the cluster is written by a newer version")

	// ErrReplicated means that a store is one node's copy of a replicated one, or that it should be and is not.
	ErrReplicated = errors.New("the store of a node of a cluster")
)

// ReplicaOptions are those of OpenReplica.
type ReplicaOptions struct {
	Dir       string    // of the copy; "" keeps it in memory
	Log       Log       // what all nodes append to
	Snapshots Snapshots // for who comes late
	Name      string    // of this node: a second one of the name replaces the first
	About     []byte    // what other nodes should know of this one, such as its address; up to maxAbout bytes
	Logger    *slog.Logger
}

const (
	// logPatience is how long a call waits for the log.
	logPatience = 10 * time.Second

	// answerPatience is how long the log may take for an answer before it is asked again.
	answerPatience = 800 * time.Millisecond

	// retryPause is how long the log is left alone after an error.
	retryPause = 50 * time.Millisecond

	maxName  = 128
	maxAbout = 16 << 10
)

// A Replica is one node's copy of a replicated store. It follows the log from
// when it is opened, so that its DB can be read; the DB takes changes once the
// node has joined. It is safe for concurrent use.
//
// The copy is written without fsync: the log is what is durable. After a crash
// it is what it was at some position, and goes on from there.
type Replica struct {
	db        *DB
	log       Log
	snapshots Snapshots
	name      string
	about     []byte
	logger    *slog.Logger

	stop     context.CancelFunc // ends following
	ctx      context.Context    // ends with stop
	wg       sync.WaitGroup     // every goroutine of the replica
	done     chan struct{}      // closed when it has failed, or was closed
	applier  applier            // of the goroutine that follows alone
	telling  sync.Mutex         // held while a group is applied and told of; before mu
	watchers watchers           // of members
	asking   asking             // what Barrier has under way
	saving   sync.Mutex         // one Snapshot at a time
	roomy    sync.Mutex         // one question to the disk at a time

	mu      sync.Mutex // guards what follows; never held over the log or the engine
	err     error      // why it is done
	id      logID
	at      time.Time // when the log took the last group
	applied chained
	members []Member // in the order of their epochs; replaced, never changed
	waiting map[*waiter]struct{}
	joins   map[[16]byte]chan joined
	self    *membership // the last one; nil before the first
}

// OpenReplica opens a node's copy of the store that the log makes up, or begins
// one with the newest snapshot or the first group. It returns as soon as the
// copy can be read, which may be older than what is in the log: see [DB.Barrier].
//
// Errors: ErrNoLog, ErrNoState, ErrLogWentBack, ErrOtherLog, ErrNewerLog,
// ErrReplicated if the folder holds a store that is not replicated, and those of
// [Open]. It waits for the log as long as a call does.
func OpenReplica(o ReplicaOptions) (*Replica, error) {
	if o.Dir == "" {
		return openReplica(vfs.NewMem(), "", o)
	}
	abs, err := filepath.Abs(o.Dir)
	if err == nil {
		err = os.MkdirAll(abs, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return openReplica(vfs.Default, abs, o)
}

func openReplica(fsys vfs.FS, dir string, o ReplicaOptions) (*Replica, error) {
	if o.Name == "" || len(o.Name) > maxName || len(o.About) > maxAbout {
		return nil, fmt.Errorf("a node needs a name of 1 to %d bytes, and no more than %d about it", maxName, maxAbout)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r := newReplica(o)
	db, err := openAs(fsys, dir, o.Logger, r)
	if err != nil {
		r.stop()
		return nil, err
	}
	r.db = db
	if err := errors.Join(db.engine.removeTables(dir), r.begin()); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	r.wg.Go(r.follow)
	return r, nil
}

func newReplica(o ReplicaOptions) *Replica {
	r := &Replica{
		log: o.Log, snapshots: o.Snapshots, name: o.Name, about: o.About, logger: o.Logger,
		done: make(chan struct{}), waiting: map[*waiter]struct{}{}, joins: map[[16]byte]chan joined{},
	}
	r.asking.r = r
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

// begin finds out where to go on in the log.
func (r *Replica) begin() error {
	ctx, cancel := r.patience()
	defer cancel()
	first, end, err := r.bounds(ctx)
	if err != nil {
		return err
	}
	if err := r.applier.load(r.db.engine); err != nil {
		return err
	}
	s := &r.applier.state
	switch {
	case s.pos == 0 && first == end:
		return ErrNoState
	case s.pos == 0 || s.pos+1 < first:
		if err := r.restore(ctx, first); err != nil {
			return err
		}
	}
	r.applier.first = first
	r.applier.check = r.applier.check && s.pos >= first
	// Whoever asks one that led the log until a moment ago may get an old answer.
	for s.pos >= end {
		if first < end {
			if err := r.compareLogs(ctx, end-1); err != nil {
				return err
			}
		}
		if wait.For(ctx, retryPause) != nil {
			return fmt.Errorf("%w: it ends at %d, and this node has read up to %d", ErrLogWentBack, end-1, s.pos)
		}
		if _, end, err = r.bounds(ctx); err != nil {
			return err
		}
	}
	r.publish()
	return nil
}

// identify has an empty copy know which log it follows before it has applied
// anything: whoever opens it may ask at once. It reports whether the log goes on
// from a snapshot.
func (r *Replica) identify(ctx context.Context, first uint64) (stocked bool, err error) {
	for {
		asked, cancel := context.WithTimeout(ctx, answerPatience)
		err := r.log.Follow(asked, first, func(_ uint64, _ time.Time, data []byte) error {
			g, err := decodeGroup(data)
			switch {
			case errors.Is(err, ErrNewerLog):
				return err
			case err != nil:
				return fmt.Errorf("%w: it does not begin as one", ErrOtherLog)
			}
			r.applier.state.log = g.log
			stocked = !g.beginsEmpty()
			return errIdentified
		})
		cancel()
		if errors.Is(err, errIdentified) {
			return stocked, nil
		}
		if isFatal(err) {
			return false, err
		}
		if wait.For(ctx, retryPause) != nil {
			return false, r.noLog(ctx, err)
		}
	}
}

var errIdentified = errors.New("the log is identified")

// compareLogs reads the group at a position, and returns ErrOtherLog if it is of
// another log than this node's.
func (r *Replica) compareLogs(ctx context.Context, pos uint64) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	err := r.log.Follow(ctx, pos, func(_ uint64, _ time.Time, data []byte) error {
		if g, err := decodeGroup(data); err == nil && g.log != r.applier.state.log {
			return ErrOtherLog
		}
		return errors.New("the same")
	})
	if errors.Is(err, ErrOtherLog) {
		return err
	}
	return nil // or it cannot be found out now
}

// bounds asks the log until it answers.
func (r *Replica) bounds(ctx context.Context) (first, end uint64, err error) {
	err = ask(ctx, func(ctx context.Context) error {
		first, end, err = r.log.Bounds(ctx)
		return err
	})
	if err != nil {
		return 0, 0, r.noLog(ctx, err)
	}
	return first, end, nil
}

// ask asks the log again and again, until it answers or ctx ends.
func ask(ctx context.Context, fn func(context.Context) error) error {
	for {
		asked, cancel := context.WithTimeout(ctx, answerPatience)
		err := fn(asked)
		cancel()
		if err == nil || wait.For(ctx, retryPause) != nil {
			return err
		}
	}
}

// patience is the context of a call that waits for the log.
func (r *Replica) patience() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(r.ctx, logPatience, ErrNoLog)
}

// start runs fn in a goroutine, unless the replica is done.
func (r *Replica) start(fn func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.wg.Go(fn)
	}
	return r.err
}

// noLog is the error of who has waited for the log in vain.
func (r *Replica) noLog(ctx context.Context, err error) error {
	if done := r.Err(); done != nil {
		return done
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, ErrNoLog) {
		return cause
	}
	if err == nil {
		return ErrNoLog
	}
	return fmt.Errorf("%w: %w", ErrNoLog, err)
}

// follow applies the log until the replica is closed or fails.
func (r *Replica) follow() {
	for {
		err := r.log.Follow(r.ctx, r.applier.next(), r.apply)
		switch {
		case r.ctx.Err() != nil:
			return
		case errors.Is(err, ErrTrimmed) && r.applier.check:
			r.applier.check = false // it was there a moment ago
			continue
		case errors.Is(err, ErrTrimmed):
			r.fail(fmt.Errorf("%w as this node needs, to position %d: start it again, and it begins with a snapshot", ErrTrimmed, r.applier.next()))
			return
		case isFatal(err):
			r.fail(err)
			return
		}
		r.logger.Warn("the log of the cluster cannot be followed; trying again", "err", err)
		if wait.For(r.ctx, retryPause) != nil {
			return
		}
	}
}

// isFatal reports whether a replica cannot go on after err.
func isFatal(err error) bool {
	for _, fatal := range []error{ErrLogWentBack, ErrOtherLog, ErrNewerLog, ErrNoState, ErrDamaged, errApply} {
		if errors.Is(err, fatal) {
			return true
		}
	}
	return false
}

// fail ends the replica, which can still be read.
func (r *Replica) fail(err error) {
	defer r.stop()
	r.mu.Lock()
	if r.err != nil {
		r.mu.Unlock()
		return
	}
	r.err = err
	self := r.self
	close(r.done)
	r.mu.Unlock()
	if !errors.Is(err, ErrClosed) {
		r.logger.Error("this node has stopped following the cluster", "err", err)
	}
	if self != nil {
		self.end(err)
	}
}

// DB returns the store, which is closed by closing the Replica, and the other
// way round. Its Updates go through the log: see [DB.Update].
func (r *Replica) DB() *DB { return r.db }

// Name returns the name of the node.
func (r *Replica) Name() string { return r.name }

// LogID returns what the log is called, which no other log is.
func (r *Replica) LogID() string { return fmt.Sprintf("%x", r.logID()) }

// Done is closed when the replica has failed, or was closed.
func (r *Replica) Done() <-chan struct{} { return r.done }

// Err returns why the replica is done, or nil if it is not. It wraps
// ErrLogWentBack, ErrOtherLog, ErrNewerLog, ErrTrimmed or ErrDamaged, or is
// ErrClosed.
func (r *Replica) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Applied returns the last position that this node has applied, a hash over all
// groups up to it, which is equal on all nodes, and when the log took it.
func (r *Replica) Applied() (pos uint64, hash [32]byte, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied.pos, r.applied.hash, r.at
}

// Close ends following and closes the DB. It does not leave the cluster. Closing
// again does nothing.
func (r *Replica) Close() error { return r.db.Close() }

// close ends everything that uses the DB.
func (r *Replica) close() {
	r.fail(ErrClosed)
	r.wg.Wait()
}
