package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
)

// A Member is a node of a cluster, as the log knows it.
type Member struct {
	Epoch  uint64    // the position at which it joined
	Name   string    // no two members have the same
	About  []byte    // what it says about itself; not to be changed
	Joined time.Time // of the log

	// Silent is in how many different seconds of the log's time groups of other
	// members came since its last group. It counts from when this node was opened.
	Silent int

	heard uint64 // the position of its last group
}

// watchers are who is told of changes of the members.
type watchers struct {
	mu  sync.Mutex
	fns []*func()
}

func (w *watchers) tell() {
	w.mu.Lock()
	fns := slices.Clone(w.fns)
	w.mu.Unlock()
	for _, fn := range fns {
		(*fn)()
	}
}

// Members returns the members in the order of their epochs. The first one leads.
func (r *Replica) Members() []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.members)
}

// Leader returns the epoch of the member that joined first, or 0.
func (r *Replica) Leader() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.members) == 0 {
		return 0
	}
	return r.members[0].Epoch
}

// Alive reports whether an epoch is that of a member.
func (r *Replica) Alive(epoch uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.members, func(m Member) bool { return m.Epoch == epoch })
}

// OnMembers has fn called when members have come or gone, in the order of the
// log: after the changes of that position, and before those of the next one. fn
// must not wait.
func (r *Replica) OnMembers(fn func()) (cancel func()) {
	w := &r.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fns = append(w.fns, &fn)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fns = slices.DeleteFunc(w.fns, func(f *func()) bool { return f == &fn })
	}
}

// joined is what came of a join.
type joined struct {
	epoch    uint64
	accepted bool
}

// Join makes this node a member and returns its epoch, from which on the DB takes
// changes. If it is one already it ends that epoch and begins another; so does a
// member of the same name elsewhere end.
//
// Errors: those of ctx, and that of Err. After one it may become a member yet,
// until it joins again or is expelled.
func (r *Replica) Join(ctx context.Context) (epoch uint64, err error) {
	e, err := r.db.enter()
	if err != nil {
		return 0, err
	}
	defer e.users.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	for {
		j, err := r.join(ctx, e)
		if err != nil {
			return 0, err
		}
		if j.accepted {
			return j.epoch, nil
		}
	}
}

// join tries once.
func (r *Replica) join(ctx context.Context, e *engine) (joined, error) {
	// What this node does not know yet would only have the try refused.
	if err := r.barrier(ctx); err != nil {
		return joined{}, err
	}
	expected, err := e.position(prefixNode, r.name)
	if err != nil {
		return joined{}, err
	}
	j := &join{name: r.name, expected: expected, about: r.about}
	_, _ = rand.Read(j.token[:])
	answer := make(chan joined, 1)
	r.mu.Lock()
	r.joins[j.token] = answer
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.joins, j.token)
	}()
	g := group{log: r.logID(), seen: r.seen(), steps: []step{j}}
	data, id := g.encode(0), fmt.Sprintf("join.%x", j.token)
	for {
		asked, cancel := context.WithTimeout(ctx, answerPatience)
		err := r.log.Append(asked, id, data)
		cancel()
		if err == nil {
			break
		}
		select {
		case a := <-answer:
			return a, nil
		default:
		}
		if wait.For(ctx, retryPause) != nil {
			return joined{}, r.ended(ctx)
		}
	}
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return joined{}, r.ended(ctx)
	}
}

// ended is the error of a call whose context has ended.
func (r *Replica) ended(ctx context.Context) error {
	if err := r.Err(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// answerJoin tells a Join of this node what came of it.
func (r *Replica) answerJoin(j *join, pos uint64, accepted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer, ok := r.joins[j.token]
	if !ok {
		return
	}
	delete(r.joins, j.token) // a copy of it may come
	if accepted && r.err == nil {
		r.self = newMembership(r, pos)
		r.wg.Go(r.self.send)
	}
	answer <- joined{pos, accepted}
}

// membership returns the one that takes changes.
func (r *Replica) membership() (*membership, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.err != nil:
		return nil, r.err
	case r.self == nil:
		return nil, ErrFenced
	}
	return r.self, nil
}

// Fenced is closed when the epoch of the last Join is over: this node was
// expelled, was replaced, or has left. Before the first Join it is closed.
func (r *Replica) Fenced() <-chan struct{} {
	m, err := r.membership()
	if err != nil {
		return closed
	}
	return m.ended
}

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// WhyFenced returns why the epoch of the last Join is over: ErrFenced,
// ErrReplaced, or that of Err. It is nil while the node is a member.
func (r *Replica) WhyFenced() error {
	m, err := r.membership()
	if err != nil {
		return err
	}
	return m.why()
}

// Beat tells the other nodes that this one is there, and returns when it has
// applied that itself. What it changes meanwhile says so too.
//
// Errors: those of ctx, ErrFenced, and that of Err.
func (r *Replica) Beat(ctx context.Context) error {
	_, err := r.propose(ctx, nil)
	return err
}

// Lag returns for how long the log has had what this node put into it and has not
// applied, the oldest of it: how far its copy is behind. It asks nobody, and is 0 for
// a node that puts nothing into the log; see [Replica.Beat].
func (r *Replica) Lag() time.Duration {
	m, err := r.membership()
	if err != nil {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var lag time.Duration
	for _, s := range m.sent {
		if !s.taken.IsZero() {
			lag = max(lag, time.Since(s.taken))
		}
	}
	return lag
}

// Leave ends the membership. Changes that have not returned yet may be refused.
func (r *Replica) Leave(ctx context.Context) error {
	_, err := r.propose(ctx, leave{})
	return err
}

// Quit ends the membership for this node alone, at once and without the log, until
// the next Join: as when it is cut off and is to stop. Updates fail with an error
// that wraps ErrFenced and why; those that have gone to the log may come all the
// same, and their OnCommit functions do not run.
func (r *Replica) Quit(why error) {
	if m, err := r.membership(); err == nil {
		m.end(fmt.Errorf("%w: %w", ErrFenced, why))
	}
}

// Expel ends the membership of another node, unless that is heard of before the
// others learn of it.
func (r *Replica) Expel(ctx context.Context, epoch uint64) error {
	r.mu.Lock()
	i := slices.IndexFunc(r.members, func(m Member) bool { return m.Epoch == epoch })
	if i < 0 {
		r.mu.Unlock()
		return nil
	}
	heard := r.members[i].heard
	r.mu.Unlock()
	_, err := r.propose(ctx, &expel{epoch: epoch, heard: heard})
	return err
}

// propose has a step of this node come into the log, and waits for what comes of
// it as long as ctx does.
func (r *Replica) propose(ctx context.Context, s step) (accepted bool, err error) {
	m, err := r.membership()
	if err != nil {
		return false, err
	}
	o := m.propose(ctx, s, 0, func(outcome) {})
	return o.accepted, o.err
}
