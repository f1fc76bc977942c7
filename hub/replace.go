package hub

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"
)

// A gate lets in requests and connections, but none while the state is being
// replaced, for which those inside have to leave. An era is the time between two
// replacements. A nil gate is always open.
type gate struct {
	mu     sync.Mutex // guards what follows
	now    context.Context
	end    context.CancelCauseFunc
	inside int
	opens  chan struct{} // closed when the gate opens; nil while it is open
	empty  chan struct{} // closed when nobody is inside; nil if nobody waits for that
}

func newGate() *gate {
	g := new(gate)
	g.now, g.end = context.WithCancelCause(context.Background())
	return g
}

// era returns a channel that is closed when the present era ends.
func (g *gate) era() <-chan struct{} {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now.Done()
}

// enter waits until the gate is open, as long as ctx does, and returns the era.
func (g *gate) enter(ctx context.Context) (context.Context, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.opens != nil {
		opens := g.opens
		g.mu.Unlock()
		var err error
		select {
		case <-opens:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		g.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	g.inside++
	return g.now, nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// close ends the era and lets nobody in until open is called.
func (g *gate) close() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.end(ErrReset)
	g.opens = make(chan struct{})
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.now, g.end = context.WithCancelCause(context.Background())
		close(g.opens)
		g.opens = nil
	}
}

// awaitEmpty returns when nobody is inside of a gate that is closed, or ctx ends,
// with its error.
func (g *gate) awaitEmpty(ctx context.Context) error {
	g.mu.Lock()
	if g.inside == 0 {
		g.mu.Unlock()
		return nil
	}
	empty := make(chan struct{})
	g.empty = empty
	g.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Enter lets a request in, which then has the state for itself as far as Replace
// is concerned: that waits until leave is called. Enter waits while the state is
// being replaced, as long as ctx does. The context that it returns ends, with
// ErrReset as its cause, when the next replacement begins.
//
// Errors: the cause of ctx.
func (s *Server) Enter(ctx context.Context) (inside context.Context, leave func(), err error) {
	if s.gate == nil {
		return ctx, func() {}, nil
	}
	era, err := s.gate.enter(ctx)
	if err != nil {
		return nil, nil, err
	}
	inside, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(era, func() { cancel(ErrReset) })
	return inside, func() {
		stop()
		cancel(nil)
		s.gate.leave()
	}, nil
}

// Inside calls f between Enter and leave. If f fails because ctx has ended, or a
// replacement begins, the error is ErrClosing, or ErrReset.
func (s *Server) Inside(ctx context.Context, f func(context.Context) error) error {
	inside, leave, err := s.Enter(ctx)
	if err != nil {
		return ErrClosing
	}
	defer leave()
	err = f(inside)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ErrClosing
	case inside.Err() != nil:
		return context.Cause(inside)
	}
	return err
}

// OnReplace has f called, in a goroutine of its own, when the next replacement begins,
// unless stop is called before. Between Enter and leave it misses none.
func (s *Server) OnReplace(f func()) (stop func()) {
	if s.gate == nil {
		return func() {}
	}
	s.gate.mu.Lock()
	era := s.gate.now
	s.gate.mu.Unlock()
	cancel := context.AfterFunc(era, f)
	return func() { cancel() }
}

// AuthenticateLink is Authenticate for who is about to attach a link. It waits
// while the state is being replaced: a device that connects again at once finds
// its identity, if it is in the new state. In a cluster it refuses nobody who has
// been registered by another node just now.
//
// Errors: those of Authenticate, and ErrServiceUnavailable.
func (s *Server) AuthenticateLink(host string, id ID, password string, chain []*x509.Certificate) (Grant, error) {
	_, leave, err := s.Enter(s.ctx)
	if err != nil {
		return Grant{}, ErrServiceUnavailable.With("%v", ErrClosing)
	}
	defer leave()
	g, err := s.Authenticate(host, id, password, chain)
	if err == nil || s.peers == nil {
		return g, err
	}
	if err := s.Fresh(s.ctx); err != nil {
		return Grant{}, err
	}
	return s.Authenticate(host, id, password, chain)
}

// A Replacement is a state that takes the place of a server's, and what has to be
// done about it by those that stand on the rules. None of the functions is nil.
type Replacement struct {
	// Records are those of the new state, as the store has them. They stay as
	// they are until Replace returns.
	Records iter.Seq2[[]byte, []byte]

	// Suspend has ended what goes on in the old state when it returns.
	Suspend func()

	// Reload forgets the old state and reads the new one, before anything
	// changes in it. It changes nothing.
	Reload func() error

	// Fill completes the new state, before anybody is let in.
	Fill func() error

	// Resume goes on, in whichever state there is.
	Resume func()
}

// replacePatience is how long connections and requests may take to end.
const replacePatience = 10 * time.Second

// Replace replaces the state of the server while it runs. Connections of devices
// end with ErrReset, and so do requests that wait; new ones wait until it is
// done. What was asked for before has been done before, or never is. The events
// are gone; who reads them goes on with those that come. Kept is what is no
// state: policies, consumer groups, metrics.
//
// After an error the state is the old one, unless it says otherwise. There is one
// Replace at a time, of a server that was made to be Replaceable.
func (s *Server) Replace(ctx context.Context, r Replacement) (err error) {
	open := s.gate.close()
	defer open()
	s.endLinks()
	r.Suspend()
	defer r.Resume()
	ctx, cancel := context.WithTimeout(ctx, replacePatience)
	defer cancel()
	if err := s.gate.awaitEmpty(ctx); err != nil {
		return fmt.Errorf("a request has not ended: %w", err)
	}
	s.endLinks() // who was about to connect
	if err := s.links.awaitNone(ctx); err != nil {
		return fmt.Errorf("a connection has not ended: %w", err)
	}
	loaded := errors.New("the new state has not been read")
	err = s.store.Replace(ctx, r.Records, func() { loaded = errors.Join(s.reload(), r.Reload()) })
	if err != nil {
		return err
	}
	if err := errors.Join(loaded, s.events.Clear(), s.indexTwins(), r.Fill()); err != nil {
		return fmt.Errorf("the state was replaced, but not completely: %w", err)
	}
	return nil
}

func (s *Server) endLinks() {
	for _, l := range s.links.all(func(Peer) bool { return true }) {
		l.End(ErrReset)
	}
}

// reload forgets what the server knows of its state and reads that again.
func (s *Server) reload() error {
	s.links.mu.Lock()
	clear(s.links.activity)
	s.links.mu.Unlock()
	s.refusals.forget()
	s.queues.forget()
	s.feedbacks.forget()
	s.authorities.Store(new(authorities))
	return s.loadQueues()
}
