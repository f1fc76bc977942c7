package store

import (
	"context"
	"errors"
	"sync"
)

// Barrier returns when what was acknowledged anywhere before the call can be
// read here. A store that is not replicated has no more to read.
//
// Errors: those of ctx, ErrNoLog after 10 s, and that of [Replica.Err].
func (db *DB) Barrier(ctx context.Context) error {
	if db.replica == nil {
		return nil
	}
	return db.replica.barrier(ctx)
}

// asking asks the log where it ends, once for all who have come since it was
// asked last.
type asking struct {
	r *Replica

	mu   sync.Mutex // guards what follows
	next *question  // of those who have come since the last was asked
	busy bool       // a goroutine asks
}

// A question is one to the log.
type question struct {
	answered chan struct{} // closed when the rest is known
	end      uint64
	err      error
}

// join returns a question that is asked after the call.
func (a *asking) join() (*question, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next == nil {
		a.next = &question{answered: make(chan struct{})}
	}
	q := a.next
	if !a.busy {
		if err := a.r.start(a.run); err != nil {
			return nil, err
		}
		a.busy = true
	}
	return q, nil
}

func (a *asking) run() {
	for {
		a.mu.Lock()
		q := a.next
		a.next, a.busy = nil, q != nil
		a.mu.Unlock()
		if q == nil {
			return
		}
		ctx, cancel := a.r.patience()
		q.end, q.err = a.r.end(ctx)
		cancel()
		close(q.answered)
	}
}

// end returns the position behind all that is acknowledged now. What nobody is sure of
// a member finds out by a group of its own: what was acknowledged before is in front of
// that. A node that is no member takes what it is told: nobody else reads there.
func (r *Replica) end(ctx context.Context) (end uint64, err error) {
	known := r.seen().pos
	var sure bool
	err = ask(ctx, func(ctx context.Context) error {
		end, sure, err = r.log.End(ctx)
		return err
	})
	if err != nil {
		return 0, r.noLog(ctx, err)
	}
	if sure && end > known {
		return end, nil
	}
	err = r.Beat(ctx)
	if errors.Is(err, ErrFenced) {
		return max(end, known+1), nil
	}
	return r.seen().pos + 1, err
}

// A waiter waits for a position.
type waiter struct {
	pos     uint64
	reached chan struct{}
}

func (r *Replica) barrier(ctx context.Context) error {
	own, cancel := r.patience()
	defer cancel()
	q, err := r.asking.join()
	if err != nil {
		return err
	}
	select {
	case <-q.answered:
	case <-ctx.Done():
		return r.ended(ctx)
	case <-own.Done():
		return r.noLog(own, nil)
	}
	if q.err != nil {
		return q.err
	}
	r.mu.Lock()
	if r.applied.pos >= q.end-1 {
		r.mu.Unlock()
		return nil
	}
	w := &waiter{q.end - 1, make(chan struct{})}
	r.waiting[w] = struct{}{}
	r.mu.Unlock()
	var late error
	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
		late = r.ended(ctx)
	case <-own.Done():
		late = r.noLog(own, nil)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, w)
	return late
}

// seen returns what this node has applied, and logID of which log.
func (r *Replica) seen() chained {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied
}

func (r *Replica) logID() logID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.id
}
