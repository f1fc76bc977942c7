package store

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
)

// A membership is one epoch of a replica. One goroutine puts everything that has
// come in while the last group was on its way into the next one. For a moment that
// waits for as many as the last one has let go: as a rule they come with the next
// change, and a group costs all nodes the same, however many are in it.
//
// A group that the log did not take for certain is appended again, with its
// number, until it has been applied here or the epoch is over: a second copy is
// passed over by everybody.
type membership struct {
	r     *Replica
	epoch uint64
	wake  wait.Signal   // queue may have something
	ended chan struct{} // closed when the epoch is over

	mu     sync.Mutex // guards what follows
	err    error      // why it is over
	queue  []*proposal
	number uint64              // of the last group
	sent   map[uint64]*sending // the groups that are not applied yet
	taken  time.Time           // when the log has taken one last

	want    int       // the length of the queue at which wake is to be set
	company int       // how many there were when the last group was applied, with those in it
	until   time.Time // then nobody waits for them any more
}

// A proposal is a step on its way into the log.
type proposal struct {
	step   step // nil: a group is all that is wanted
	size   int  // about
	finish func(outcome)
	result chan outcome // of capacity 1
	state  atomic.Int32 // as that of a commit
}

// alone reports whether p's group has nothing else.
func (p *proposal) alone() bool {
	_, changes := p.step.(*changeSet)
	return p.step != nil && !changes
}

// An outcome is what came of a step.
type outcome struct {
	accepted bool
	err      error // it is not known to have come into the log, and will not unless left says so
	left     bool  // it may come yet, and finish is called when that is known
}

// A sending is a group that is not applied yet.
type sending struct {
	proposals []*proposal
	known     context.CancelFunc // ends the wait for the log's answer
	began     time.Time
	taken     time.Time // when the log has taken it; zero before
}

// applyPatience is how long the next group waits for one that the log has taken to be
// applied here.
const applyPatience = 100 * time.Millisecond

// companyPatience is how long it waits at most for those whom that has let go. It never
// waits longer than that one took.
const companyPatience = 20 * time.Millisecond

func newMembership(r *Replica, epoch uint64) *membership {
	return &membership{r: r, epoch: epoch, wake: wait.NewSignal(), ended: make(chan struct{}), sent: map[uint64]*sending{}}
}

// why returns why the epoch is over, or nil.
func (m *membership) why() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// end ends the epoch. What is not applied by now never will be.
func (m *membership) end(why error) {
	m.mu.Lock()
	if m.err != nil {
		m.mu.Unlock()
		return
	}
	m.err = why
	lost := m.queue
	for _, s := range m.sent {
		s.known()
		lost = append(lost, s.proposals...)
	}
	m.queue, m.sent = nil, nil
	close(m.ended)
	m.mu.Unlock()
	for _, p := range lost {
		p.settle(outcome{err: why})
	}
}

// propose hands a step in and waits for what comes of it as long as ctx does.
// finish is called if that is left to others, and then only.
func (m *membership) propose(ctx context.Context, s step, size int, finish func(outcome)) outcome {
	p := &proposal{step: s, size: size, finish: finish, result: make(chan outcome, 1)}
	m.mu.Lock()
	if m.err != nil {
		defer m.mu.Unlock()
		return outcome{err: m.err}
	}
	m.queue = append(m.queue, p)
	enough := len(m.queue) >= m.want
	m.mu.Unlock()
	if enough {
		m.wake.Set()
	}
	select {
	case o := <-p.result:
		return o
	case <-ctx.Done():
	}
	err := m.r.noLog(ctx, nil)
	switch {
	case p.state.CompareAndSwap(queued, refused):
		return outcome{err: err}
	case p.state.CompareAndSwap(writing, left):
		return outcome{err: err, left: true}
	}
	return <-p.result
}

// settle tells who waits for p.
func (p *proposal) settle(o outcome) {
	switch {
	case p.state.CompareAndSwap(writing, written), p.state.CompareAndSwap(queued, written):
		p.result <- o
	case p.state.Load() == left:
		// Hooks are the caller's code and may wait for another Update.
		go p.finish(o)
	}
}

// send appends what comes in.
func (m *membership) send() {
	for m.await() {
		if number, data, s, ctx := m.next(); s != nil {
			m.append(ctx, number, data, s)
		}
	}
}

// await returns when a group is to be made, or false when the epoch is over.
func (m *membership) await() bool {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var pause time.Duration
		m.mu.Lock()
		switch {
		case m.err != nil:
			m.mu.Unlock()
			return false
		case len(m.sent) > 0:
			m.want, pause = math.MaxInt, time.Until(m.taken.Add(applyPatience))
		case len(m.queue) < m.company:
			m.want, pause = m.company, time.Until(m.until)
		}
		if pause <= 0 {
			if len(m.queue) > 0 {
				m.mu.Unlock()
				return true
			}
			m.want, pause = 1, time.Hour
		}
		m.mu.Unlock()
		timer.Reset(pause)
		select {
		case <-m.wake:
		case <-timer.C:
		case <-m.ended:
		}
	}
}

// next makes a group of what has come in.
func (m *membership) next() (number uint64, data []byte, s *sending, ctx context.Context) {
	// The log was slow or has lost what it took: then what follows would be lost too.
	m.checkTaken()
	seen, log := m.r.seen(), m.r.logID()
	m.mu.Lock()
	defer m.mu.Unlock()
	g := group{log: log, epoch: m.epoch, seen: seen}
	var proposals []*proposal
	n, size := 0, 0
	for n < len(m.queue) && (len(proposals) == 0 || size+m.queue[n].size <= maxGroupSize-groupHeader) {
		p := m.queue[n]
		if len(proposals) > 0 && p.alone() {
			break // so that changes are told of before or behind those of members
		}
		n++
		if !p.state.CompareAndSwap(queued, writing) {
			continue
		}
		size += p.size
		proposals = append(proposals, p)
		if p.step != nil {
			g.steps = append(g.steps, p.step)
		}
		if p.alone() {
			break
		}
	}
	m.queue = m.queue[n:]
	if len(proposals) == 0 || m.err != nil {
		return 0, nil, nil, nil
	}
	m.number++
	g.number = m.number
	s = &sending{proposals: proposals, began: time.Now()}
	ctx, s.known = context.WithCancel(m.r.ctx)
	m.sent[m.number] = s
	return m.number, g.encode(size), s, ctx
}

// append appends a group until the log has it.
func (m *membership) append(ctx context.Context, number uint64, data []byte, s *sending) {
	id := fmt.Sprintf("%x.%d.%d", m.r.logID(), m.epoch, number)
	for {
		asked, cancel := context.WithTimeout(ctx, answerPatience)
		err := m.r.log.Append(asked, id, data)
		cancel()
		if err == nil {
			m.mu.Lock()
			s.taken = time.Now()
			m.taken = s.taken
			m.mu.Unlock()
			return
		}
		if wait.For(ctx, retryPause) != nil { // it is applied, or never will be
			return
		}
		m.r.logger.Debug("a group is appended again", "number", number, "err", err)
	}
}

// checkTaken looks whether the log still has what it has taken long ago and this
// node has not seen in it.
func (m *membership) checkTaken() {
	m.mu.Lock()
	overdue := false
	for _, s := range m.sent {
		overdue = overdue || !s.taken.IsZero() && time.Since(s.taken) > logPatience
	}
	m.mu.Unlock()
	if !overdue {
		return
	}
	ctx, cancel := context.WithTimeout(m.r.ctx, answerPatience)
	defer cancel()
	end, sure, err := m.r.log.End(ctx)
	if pos := m.r.seen().pos; err == nil && sure && end <= pos {
		m.r.fail(fmt.Errorf("%w: it ends at %d, and this node has read up to %d", ErrLogWentBack, end-1, pos))
	}
}

// deliver tells of a group that was applied. verdicts are those of its steps.
func (m *membership) deliver(number uint64, verdicts []bool) {
	m.mu.Lock()
	s := m.sent[number]
	delete(m.sent, number)
	if s != nil {
		now := time.Now()
		m.company, m.until = len(m.queue)+len(s.proposals), now.Add(min(now.Sub(s.began), companyPatience))
	}
	m.mu.Unlock()
	if s == nil {
		return
	}
	m.wake.Set()
	s.known()
	for _, p := range s.proposals {
		o := outcome{accepted: true}
		if p.step != nil {
			o.accepted, verdicts = verdicts[0], verdicts[1:]
		}
		p.settle(o)
	}
}

// A deadline is the patience of one Update.
type deadline struct {
	context.Context
	r *Replica
}

func (d deadline) stall() <-chan struct{} { return d.Done() }
func (d deadline) err() error             { return d.r.noLog(d, nil) }

// update is that of the DB.
func (r *Replica) update(lock string, fn func(*Tx) error) error {
	m, err := r.membership()
	if err == nil {
		err = m.why()
	}
	if err != nil {
		return err
	}
	e, err := r.db.enter()
	if err != nil {
		return err
	}
	ctx, cancel := r.patience()
	defer func() { cancel() }()
	unlock, err := r.db.locks.acquire(lock, deadline{ctx, r})
	if err != nil {
		e.users.Done()
		return err
	}
	left := false
	release := func() {
		unlock()
		e.users.Done()
	}
	defer func() {
		if !left {
			release()
		}
	}()
	for {
		c, tx, err := r.run(e, lock, fn)
		if err != nil {
			// What was refused may have been so by what another node has changed long ago.
			if late := r.barrier(ctx); late != nil {
				return late
			}
			if now, posErr := r.applier.lockPosition(e, lock); posErr != nil || now == c.expected {
				return err
			}
			continue
		}
		if len(c.writes) == 0 && len(c.told) == 0 {
			tx.committed()
			return nil
		}
		o := m.propose(ctx, c, c.size(), func(o outcome) {
			defer release()
			if o.accepted {
				tx.committed()
			}
		})
		switch {
		case o.left:
			left = true
			return o.err
		case o.err != nil:
			return o.err
		case o.accepted:
			tx.committed()
			return nil
		}
		// Another node was faster: the log answers, so that its time begins again.
		cancel()
		ctx, cancel = r.patience()
	}
}

// run runs fn on what this node has applied. The changeSet is never nil.
func (r *Replica) run(e *engine, lock string, fn func(*Tx) error) (c *changeSet, tx *Tx, err error) {
	c = &changeSet{lock: lock, base: r.seen().pos}
	// Before anything that fn reads: what changes in between is refused.
	if c.expected, err = r.applier.lockPosition(e, lock); err != nil {
		return c, nil, err
	}
	tx = &Tx{engine: e}
	if err := fn(tx); err != nil {
		return c, nil, err
	}
	for _, w := range tx.writes {
		if len(w.key) == 0 || isReserved(w.key) {
			return c, nil, fmt.Errorf("write store: the key %q is reserved", w.key)
		}
	}
	c.writes, c.told = tx.writes, tx.told
	size := c.size()
	if size > maxGroupSize-groupHeader {
		return c, nil, fmt.Errorf("%w: about %d bytes, of %d", ErrTooLarge, size, maxGroupSize-groupHeader)
	}
	return c, tx, r.room(e, size)
}

// room returns an error if the disk has no space for a change of this node. Those
// of others are written as long as it takes them.
func (r *Replica) room(e *engine, size int) error {
	r.roomy.Lock()
	defer r.roomy.Unlock()
	return e.disk.room(size)
}

// committed runs what was to run after the commit.
func (tx *Tx) committed() {
	for _, f := range tx.onCommit {
		f()
	}
}
