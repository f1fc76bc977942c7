package mqttdevice

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Delays before connecting again. A refused credential is tried again too, since a device may be
// enabled or its key put back, but later: it seldom mends itself.
const (
	backoffMin        = time.Second
	backoffMax        = time.Minute
	refusedBackoffMin = 10 * time.Second
	refusedBackoffMax = 5 * time.Minute
)

// backoff returns a random delay up to a ceiling that doubles with each attempt ("full jitter"), so
// that a fleet that lost its hub at one moment does not return at one moment.
func backoff(attempt int, err error) time.Duration {
	lowest, highest := backoffMin, backoffMax
	if errors.Is(err, ErrUnauthorized) {
		lowest, highest = refusedBackoffMin, refusedBackoffMax
	}
	return rand.N(min(lowest<<min(attempt, 16), highest))
}

// pause waits for d, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open connects after the given delay, and tries again until it succeeds, ctx ends, or fatal says
// that an error will not mend. The session it returns is in use.
func (c *Client) open(ctx context.Context, wait time.Duration, fatal func(error) bool) (*session, error) {
	var last error
	for pause(ctx, wait) == nil {
		c.notify(State{Status: Connecting})
		s, err := c.connect(ctx)
		if err == nil {
			c.attach(s)
			c.log.Info("connected", logAddr, c.addr)
			c.notify(State{Status: Connected})
			return s, nil
		}
		// What ends because ctx does tells less than the failure before it.
		if ctx.Err() == nil || last == nil {
			last = fmt.Errorf("connect %s to %s: %w", c.id, c.addr, err)
		}
		if ctx.Err() != nil {
			break
		}
		if fatal(err) {
			return nil, last
		}
		wait = c.failed(last)
	}
	if last == nil {
		last = fmt.Errorf("connect %s to %s: not tried", c.id, c.addr)
	}
	if errors.Is(last, ctx.Err()) {
		return nil, last
	}
	return nil, fmt.Errorf("%w: %w", last, ctx.Err())
}

// failed tells of a connection that broke or was not made, and returns how long to wait.
func (c *Client) failed(reason error) time.Duration {
	wait := backoff(c.attempt, reason)
	c.attempt++
	c.log.Warn("not connected", logError, reason, logRetry, wait)
	c.notify(State{Status: Disconnected, Reason: reason, Retry: wait})
	return wait
}

func (c *Client) notify(s State) {
	if c.opt.OnState != nil {
		c.opt.OnState(s)
	}
}

// run keeps the client connected, beginning with s, until Close.
func (c *Client) run(s *session) {
	defer c.shut()
	for {
		began := time.Now()
		reason := c.serve(s)
		if c.closing.Err() != nil {
			return
		}
		// Two programs that connect as the same device throw each other out. Counting a short
		// connection as a failure slows them down.
		if time.Since(began) > backoffMax {
			c.attempt = 0
		}
		var wait time.Duration
		if reason != nil {
			wait = c.failed(reason)
		}
		var err error
		if s, err = c.open(c.closing, wait, func(error) bool { return false }); err != nil {
			return
		}
	}
}

// shut ends what run began, when the connection is gone for good.
func (c *Client) shut() {
	c.cancel()
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.log.Info("disconnected")
	c.notify(State{Status: Disconnected, Reason: ErrClosed})
}

// serve waits until s has to end, ends it, and says why: nil for a token that is to be replaced.
func (c *Client) serve(s *session) error {
	var due <-chan time.Time
	if !s.renew.IsZero() {
		t := time.NewTimer(s.renew.Sub(c.opt.Now()))
		defer t.Stop()
		due = t.C
	}
	reason := errRenewal
	select {
	case <-s.lost:
	case <-due:
		// Answers in flight go first, as long as the token is valid. A method that arrives between
		// the last of them and the new connection is refused by the hub at once, as 404103
		// DeviceNotOnline; it is not run here.
		c.log.Debug("token to be renewed")
		s.wait(c.closing, c.leave(s), s.expiry.Sub(c.opt.Now()))
		c.detach(s)
		s.wait(c.closing, c.leave(s), closeGrace)
	case <-c.closing.Done():
	}
	if c.closing.Err() != nil {
		reason = ErrClosed
		idle := c.leave(s)
		s.wait(context.Background(), idle, closeGrace)
		c.cancel()
		s.wait(context.Background(), idle, closeGrace)
	}
	c.detach(s)
	s.close(reason)
	if s.reason == errRenewal {
		return nil
	}
	return s.reason
}

// attach makes s the connection in use.
func (c *Client) attach(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = s
	c.announce()
	c.desired.outdate()
	c.deliverDesired()
}

// leave returns a channel that is closed once no handler and no call is under way; at that moment s
// is taken out of use.
func (c *Client) leave(s *session) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle := make(chan struct{})
	c.whenIdle = func() {
		c.detachLocked(s)
		close(idle)
	}
	if c.busy == 0 {
		c.whenIdle()
	}
	return idle
}

// detach takes s out of use: calls wait for another connection, methods are not accepted.
func (c *Client) detach(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.detachLocked(s)
}

func (c *Client) detachLocked(s *session) {
	c.session, c.whenIdle, s.left = nil, nil, true
}
