package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/wait"
)

// timing is how long what takes.
type timing struct {
	beat time.Duration // between signs of life

	// cutOff and silent are for how long a node goes on without a sign of life that
	// came into the log: without a connection to NATS, which it has not got again for
	// searched, and with one. An election of NATS silences all nodes for up to about
	// 11 s.
	cutOff, searched, silent time.Duration

	// missed is in how many different seconds others were heard of, and one not,
	// until the leader expels that. The next in order waits for late more, and so on.
	missed, late int
}

var usual = timing{beat: time.Second, cutOff: 4 * time.Second, searched: 2 * time.Second, silent: 20 * time.Second, missed: 6, late: 2}

// Why a membership has ended, besides the errors of store.Replica.
var (
	ErrQuiet = errors.New("this node has not reached the others for too long")
	ErrLeft  = errors.New("this node has left")
)

// A Membership is one time that this node is a member. It implements hub.Peers.
type Membership struct {
	*Cluster
	epoch uint64

	ctx     context.Context // ends when the membership does
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup
	leaving atomic.Bool
	sub     *nats.Subscription
	calls   atomic.Uint64 // how many questions this node has asked
	heard   *heard

	mu       sync.Mutex // guards what follows
	verbs    map[string]*verb
	lastBeat time.Time // when the last one began that came into the log
}

// newMembership begins what a member does.
func (c *Cluster) newMembership(epoch uint64) (*Membership, error) {
	m := &Membership{Cluster: c, epoch: epoch, verbs: make(map[string]*verb), heard: newHeard(), lastBeat: time.Now()}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	if err := m.listen(); err != nil {
		m.cancel(err)
		return nil, err
	}
	m.wg.Go(m.beat)
	m.wg.Go(m.watch)
	m.wg.Go(m.expel)
	m.wg.Go(m.keepSnapshots)
	return m, nil
}

// Alone reports whether there is no other member.
func (m *Membership) Alone() bool { return len(m.replica.Members()) == 1 }

// Lost is closed when the membership has ended. What the node still serves then
// does not count any more.
func (m *Membership) Lost() <-chan struct{} { return m.ctx.Done() }

// Why returns why the membership has ended, or nil. ErrQuiet and store.ErrFenced
// mean that the node may join again; ErrLeft that it wanted to. After others, such as
// store.ErrReplaced and store.ErrLogWentBack, it must not.
func (m *Membership) Why() error {
	if m.ctx.Err() == nil {
		return nil
	}
	return m.explain(context.Cause(m.ctx))
}

// MayJoinAgain reports whether a node may join again whose membership ended so.
func MayJoinAgain(why error) bool {
	return errors.Is(why, ErrQuiet) || errors.Is(why, store.ErrFenced) && !errors.Is(why, store.ErrReplaced)
}

// Leave ends the membership, which the others hear of at once if NATS answers.
func (m *Membership) Leave(ctx context.Context) error {
	m.leaving.Store(true)
	if m.ctx.Err() != nil {
		m.end(ErrLeft)
		return nil
	}
	err := m.replica.Leave(ctx)
	m.end(ErrLeft)
	return err
}

// end ends the membership, and waits for its goroutines.
func (m *Membership) end(why error) {
	m.cancel(why)
	_ = m.sub.Unsubscribe()
	m.wg.Wait()
}

// beat tells the others that this node is there.
func (m *Membership) beat() {
	for {
		began := time.Now()
		ctx, cancel := context.WithTimeout(m.ctx, m.timing.silent)
		err := m.replica.Beat(ctx)
		cancel()
		if err == nil {
			m.mu.Lock()
			m.lastBeat = began
			m.mu.Unlock()
		}
		if !pause(m.ctx, m.timing.beat-min(time.Since(began), m.timing.beat/2)) {
			return
		}
	}
}

// watch ends the membership when it does not count any more.
func (m *Membership) watch() {
	tick := time.NewTicker(m.timing.beat / 5)
	defer tick.Stop()
	connected := time.Now()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.replica.Done():
			m.cancel(m.replica.Err())
			return
		case <-m.replica.Fenced():
			if m.leaving.Load() {
				m.cancel(ErrLeft)
			}
			m.cancel(m.replica.WhyFenced())
			return
		case <-tick.C:
		}
		if m.conn.IsConnected() {
			connected = time.Now()
		}
		m.mu.Lock()
		since := time.Since(m.lastBeat)
		m.mu.Unlock()
		if since > m.timing.silent || since > m.timing.cutOff && time.Since(connected) > m.timing.searched {
			why := fmt.Errorf("%w: for %v", ErrQuiet, since.Round(100*time.Millisecond))
			m.cancel(why)
			m.replica.Quit(why)
			return
		}
	}
}

// expel has members that have died be none, when it is this node's turn to.
func (m *Membership) expel() {
	for pause(m.ctx, m.timing.beat) {
		members := m.replica.Members()
		place := slices.IndexFunc(members, func(o store.Member) bool { return o.Epoch == m.epoch })
		if place < 0 {
			continue
		}
		for _, o := range members {
			if o.Epoch == m.epoch || o.Silent < m.timing.missed+place*m.timing.late {
				continue
			}
			m.log.Warn("a node is silent, and is no member any more", "name", o.Name, "epoch", o.Epoch)
			ctx, cancel := context.WithTimeout(m.ctx, m.timing.silent)
			if err := m.replica.Expel(ctx, o.Epoch); err != nil && m.ctx.Err() == nil {
				m.log.Warn("a silent node could not be expelled", "name", o.Name, "err", err)
			}
			cancel()
		}
	}
}

// maxLag is how far behind a node may be that devices and services should go to.
const maxLag = 2 * time.Second

// Behind returns how far this node's copy is behind the log, if that is too far to
// serve with, and else 0. What the log's leader does not confirm does not count: in
// an election of NATS all nodes have to wait.
func (m *Membership) Behind(ctx context.Context) time.Duration {
	if m.replica.Lag() <= maxLag {
		return 0
	}
	_, end, err := m.groups.Bounds(ctx)
	if pos, _, _ := m.replica.Applied(); err != nil || pos+1 >= end {
		return 0
	}
	return m.replica.Lag()
}

const (
	snapshotEach   = 30 * time.Minute
	snapshotBytes  = 2 << 30 // of the log
	snapshotGroups = 10_000  // fewer are soon applied
)

// keepSnapshots has the leader write a snapshot now and then, for nodes that come
// late, and so that the log can be trimmed.
func (m *Membership) keepSnapshots() {
	for wait.For(m.ctx, time.Minute) == nil {
		if m.Leader() != m.epoch {
			continue
		}
		if err := m.keepSnapshot(); err != nil && m.ctx.Err() == nil {
			m.log.Warn("a snapshot of the state could not be kept; trying again in a minute", "err", err)
		}
	}
}

func (m *Membership) keepSnapshot() error {
	newest, at, err := m.snapshots.Newest(m.ctx)
	if err != nil {
		return err
	}
	status, err := m.groups.Status(m.ctx)
	if err != nil {
		return err
	}
	behind := status.End - newest
	if behind < snapshotGroups || time.Since(at) < snapshotEach && status.Bytes/max(status.End-status.First, 1)*behind < snapshotBytes {
		return nil
	}
	return m.replica.Snapshot(m.ctx)
}
