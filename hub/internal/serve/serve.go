// Package serve owns what a part of a hub has running: its goroutines and its
// listeners. Whoever starts something here has it waited for.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/internal/words"
)

// ErrClosed is returned by Accept and Track once the group is closed.
var ErrClosed = errors.New("the hub is closed")

// A Group is goroutines and listeners with one end. Make it by NewGroup.
type Group struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	closed    bool
}

// NewGroup returns an empty group.
func NewGroup() *Group {
	g := &Group{listeners: make(map[net.Listener]struct{})}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// Context returns a context that ends when the group is closed.
func (g *Group) Context() context.Context { return g.ctx }

// Go starts f as a goroutine that Wait waits for. It reports false, without
// starting f, when the group is closed.
func (g *Group) Go(f func()) bool {
	if !g.Enter() {
		return false
	}
	go func() {
		defer g.Leave()
		f()
	}()
	return true
}

// Enter makes Wait wait until Leave is called. It reports false when the group
// is closed.
func (g *Group) Enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Add(1)
	return true
}

// Leave ends what Enter began.
func (g *Group) Leave() { g.wg.Done() }

// Track owns l until untrack is called, and closes it then, or before when the
// group is closed.
func (g *Group) Track(l net.Listener) (untrack func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		l.Close()
		return nil, ErrClosed
	}
	g.listeners[l] = struct{}{}
	g.wg.Add(1)
	return func() {
		l.Close()
		g.mu.Lock()
		delete(g.listeners, l)
		g.mu.Unlock()
		g.wg.Done()
	}, nil
}

// StopListening closes the listeners. What they accepted goes on.
func (g *Group) StopListening() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for l := range g.listeners {
		l.Close()
	}
}

// Close has all of it end, and lets nothing more begin. It does not wait.
func (g *Group) Close() {
	g.mu.Lock()
	g.closed = true
	for l := range g.listeners {
		l.Close()
	}
	g.mu.Unlock()
	g.cancel()
}

// Wait returns when all of a closed group has ended.
func (g *Group) Wait() { g.wg.Wait() }

// HostOf returns the name or the address in front of a port, if there is one.
func HostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

// A listener that cannot accept, because file descriptors have run out, tries
// again after minAcceptDelay, and twice that up to maxAcceptDelay.
const (
	minAcceptDelay = 5 * time.Millisecond
	maxAcceptDelay = time.Second
)

// Accept calls handle, each in a goroutine of its own, with the connections
// that come in on l, until the group is closed, and then returns ErrClosed. It
// owns l. what names the protocol in the log.
func (g *Group) Accept(l net.Listener, what string, log *slog.Logger, handle func(net.Conn)) error {
	untrack, err := g.Track(l)
	if err != nil {
		return err
	}
	defer untrack()
	log.Info("listening for "+what, words.LogAddr, l.Addr().String())
	delay := minAcceptDelay
	for {
		nc, err := l.Accept()
		if err == nil {
			delay = minAcceptDelay
			if !g.Go(func() { handle(nc) }) {
				nc.Close()
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return ErrClosed
		}
		if temporary, ok := err.(interface{ Temporary() bool }); !ok || !temporary.Temporary() {
			return fmt.Errorf("serve %s on %s: %w", what, l.Addr(), err)
		}
		log.Warn("cannot accept a connection", words.LogAddr, l.Addr().String(), words.LogReason, err)
		select {
		case <-time.After(delay):
		case <-g.ctx.Done():
			return ErrClosed
		}
		delay = min(2*delay, maxAcceptDelay)
	}
}
