package mqttdevice

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
)

// A schedule of delays before connecting again: up to least after the first failure, then up to twice
// as much after each, but never more than most.
type schedule struct{ least, most time.Duration }

var (
	// With 20 s a fleet is back within 20 s of its hub, however long that was away, and a device tries
	// once in ten seconds meanwhile.
	usual = schedule{time.Second, 20 * time.Second}
	// Two programs with the same id throw each other out. Neither gets anywhere by being fast.
	contended = schedule{5 * time.Second, time.Minute}
	// A refused credential is tried again too, since a device may be enabled or its key put back, but
	// later: it seldom mends itself.
	refused = schedule{10 * time.Second, 5 * time.Minute}
)

// attemptGap is the least time from one attempt to the next, whatever chance says: a hub that comes back
// to thousands of devices has enough to do.
const attemptGap = time.Second

// stable is how long a connection lasts that is no failure.
const stable = time.Minute

// evictedSoon is more than another program with the same id takes to come back. The nodes of a hub that are
// restarted one after the other, and hand a device on each time, take longer.
const evictedSoon = 3 * time.Second

func scheduleAfter(err error) schedule {
	said, by := errors.AsType[*RegistrationError](err)
	switch {
	case errors.Is(err, ErrUnauthorized), by && !said.transient():
		return refused
	case errors.Is(err, ErrTakenOver):
		return contended
	}
	return usual
}

// backoff returns a random delay up to a ceiling that doubles with each attempt ("full jitter"), so
// that a fleet that lost its hub at one moment does not return at one moment.
func backoff(attempt int, err error) time.Duration {
	s := scheduleAfter(err)
	return rand.N(min(s.least<<min(attempt, 16), s.most))
}

// open connects after the given delay, and tries again until it succeeds, ctx ends, or fatal says
// that an error will not mend. The first attempt is on stream, unless that is nil. The session it
// returns is in use.
func (c *Client) open(ctx context.Context, stream net.Conn, delay time.Duration, fatal func(error) bool) (*session, error) {
	defer func() {
		if stream != nil {
			stream.Close()
		}
	}()
	var last error
	for wait.For(ctx, delay) == nil {
		c.link.attempts++
		c.link.tried = time.Now()
		s, err := c.attempt(ctx, stream)
		stream = nil
		if err == nil {
			c.attach(s)
			c.connected(s)
			return s, nil
		}
		// What ends because ctx does tells less than the failure before it.
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if ctx.Err() != nil {
			break
		}
		if fatal(err) {
			return nil, last
		}
		c.link.evictions = 0 // a hub that is away, or refuses, has its own reasons to close
		delay = c.failed(last)
	}
	if last == nil {
		last = errors.New("not tried")
	}
	if errors.Is(last, ctx.Err()) {
		return nil, last
	}
	return nil, fmt.Errorf("%w: %w", last, ctx.Err())
}

// attempt is one attempt to connect, and before that to find out where, if that is to be done.
func (c *Client) attempt(ctx context.Context, stream net.Conn) (*session, error) {
	if c.link.astray {
		if stream != nil {
			stream.Close()
			stream = nil
		}
		if err := c.provision(ctx); err != nil {
			return nil, err
		}
	}
	c.notify(State{Status: Connecting})
	s, err := c.connect(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("connect %s to %s: %w", c.id, c.dialer.name(), err)
	}
	return s, nil
}

// A link is what a client tells of its connection.
type link struct {
	up        bool
	since     time.Time // when up changed
	attempts  int       // to connect since then, or since a token was replaced
	tried     time.Time // when the last attempt began
	failures  int       // in a row, for backoff
	evictions int       // connections in a row that the hub closed soon
	astray    bool      // Options.Provision is to be asked first
	asked     int       // how often it was since there was a connection that lasted
	reason    error     // of the last failure; nil before the first
}

// outlived notes for how long a connection was in use. A hub that closes one after the other at once gets
// fewer of them.
func (l *link) outlived(lasted time.Duration) {
	switch {
	case lasted > stable:
		l.failures, l.asked = 0, 0
	case lasted > evictedSoon && l.evictions < 2:
		l.failures = min(l.failures, 1)
	}
}

// connected tells of a connection that was made.
func (c *Client) connected(s *session) {
	event := State{Status: Connected, Transport: transportOf(s.route), Addr: s.route.Addr, Reason: s.instead}
	if !c.link.up {
		now := time.Now()
		event.Away = now.Sub(c.link.since)
		c.link.up, c.link.since = true, now
	}
	c.log.Info("connected", logAddr, event.Addr, logTransport, event.Transport, logAttempts, c.link.attempts, logAway, event.Away)
	c.notify(event)
	c.link.attempts = 0
}

// failed tells of a connection that broke or was not made, and returns how long to wait.
func (c *Client) failed(reason error) time.Duration {
	c.ceased()
	failures := c.link.failures
	c.link.failures++
	if c.doubt(reason) && c.link.asked == 0 {
		failures = 0 // what failed before was not that the hub refuses the device
	}
	delay := max(backoff(failures, reason), attemptGap-time.Since(c.link.tried))
	c.log.Warn("not connected", logError, reason, logRetry, delay)
	c.notify(State{Status: Disconnected, Reason: reason, Retry: delay})
	return delay
}

// ceased notes that there is no connection any more, or not yet.
func (c *Client) ceased() {
	if c.link.up || c.link.since.IsZero() {
		c.link.up, c.link.since = false, time.Now()
	}
}

func (c *Client) notify(s State) {
	if c.opt.OnState != nil {
		s.Since, s.Attempts = c.link.since, c.link.attempts
		s.Hub, s.Device = c.opt.ConnectionString.HostName, c.opt.ConnectionString.DeviceID
		c.opt.OnState(s)
	}
}

// run keeps the client connected, beginning with s, until Close.
func (c *Client) run(s *session) {
	defer c.shut()
	for {
		began := time.Now()
		next, reason := c.serve(s)
		if c.closing.Err() != nil {
			return
		}
		lasted := time.Since(began)
		c.link.outlived(lasted)
		var delay time.Duration
		if reason != nil {
			delay = c.failed(c.evicted(s.explain(reason), lasted))
		}
		var err error
		if s, err = c.open(c.closing, next, delay, func(error) bool { return false }); err != nil {
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
	c.ceased()
	c.log.Info("disconnected")
	c.notify(State{Status: Disconnected, Reason: ErrClosed})
}

// serve waits until s has to end, ends it, and says why: nil for a token that is to be replaced, with
// the byte stream for the next session.
func (c *Client) serve(s *session) (next net.Conn, reason error) {
	var due <-chan time.Time
	if !s.renew.IsZero() {
		t := time.NewTimer(s.renew.Sub(c.opt.Now()))
		defer t.Stop()
		due = t.C
	}
	reason = errRenewal
	select {
	case <-s.lost:
	case <-due:
		c.log.Debug("token to be renewed")
		next = c.renew(s)
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
		return next, nil
	}
	if next != nil {
		next.Close()
	}
	return nil, s.reason
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

// when calls then, with mu held, at the moment cond holds, and closes the channel it returns. cond is
// about what ends with release. Only the goroutine of run waits so, for one thing at a time.
func (c *Client) when(cond func() bool, then func()) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := make(chan struct{})
	c.released = func() {
		if cond() {
			c.released = nil
			then()
			close(done)
		}
	}
	c.released()
	return done
}

// Conditions for when; mu is held.
func (c *Client) idle() bool          { return c.calls+c.handlers == 0 }
func (c *Client) withoutMethod() bool { return c.running == 0 }
func (c *Client) withoutCall() bool   { return c.calls == 0 }

// leave returns a channel that is closed once no handler and no call is under way; at that moment s
// is taken out of use.
func (c *Client) leave(s *session) <-chan struct{} {
	return c.when(c.idle, func() { c.detachLocked(s) })
}

// detach takes s out of use: calls wait for another connection, methods are not accepted.
func (c *Client) detach(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.detachLocked(s)
}

func (c *Client) detachLocked(s *session) {
	c.session, c.released, s.left = nil, nil, true
}
