package mqttdevice

import (
	"context"
	"errors"
	"net"
)

var errRenewal = errors.New("the token is being renewed")

// renew prepares for replacing the token of s, which MQTT can do only by connecting again, and returns
// the byte stream for the next session: nil if s was lost meanwhile, or the client is being closed.
//
// A hub sends a method once. So the client stays until what takes long, dialling and the handshakes,
// is done, then tells the hub to send no more methods, and goes when those under way are answered.
// From then on the hub takes the device for one that will come back: a service that calls with a
// connect timeout waits for it, and one without is told 404103 DeviceNotOnline at once. This lasts for
// three round trips: UNSUBSCRIBE, CONNECT, SUBSCRIBE; and a fourth when a method came just then.
func (c *Client) renew(s *session) net.Conn {
	// A moment of rest is best. It may not come, with a handler that runs for an hour.
	left := s.expiry.Sub(c.opt.Now())
	s.wait(c.closing, c.when(c.idle, func() {}), left/2)
	stream := c.dialAhead(s)
	if stream == nil {
		return nil
	}
	answers := s.answers()
	s.unsubscribe(c.closing, methodTopic+"#")
	s.wait(c.closing, c.when(s.caughtUp, func() {}), closeGrace)
	s.wait(c.closing, c.when(c.withoutMethod, func() {}), max(s.expiry.Sub(c.opt.Now()), closeGrace))
	if s.answers() != answers {
		// What was sent since then might still be unread when the next connection takes over. Once
		// more, and it is not.
		s.unsubscribe(c.closing, methodTopic+"#")
	}
	c.detach(s)
	s.wait(c.closing, c.when(c.withoutCall, func() {}), closeGrace)
	return stream
}

// dialAhead makes a byte stream while s is in use. It tries for as long as s lives, which may be
// longer than its token does.
func (c *Client) dialAhead(s *session) net.Conn {
	for failures := 0; ; failures++ {
		ctx, cancel := context.WithTimeoutCause(c.closing, connectTimeout, ErrNoAnswer)
		type result struct {
			conn net.Conn
			err  error
		}
		dialled := make(chan result, 1)
		c.wg.Go(func() {
			conn, err := c.dial(ctx)
			dialled <- result{conn, err}
		})
		var r result
		select {
		case r = <-dialled:
		case <-s.lost:
			cancel()
			r = <-dialled
		}
		cancel()
		if r.err == nil && !s.isLost() && c.closing.Err() == nil {
			return r.conn
		}
		if r.err == nil {
			r.conn.Close()
			return nil
		}
		wait := backoff(failures, r.err)
		c.log.Warn("token not replaced yet", logError, r.err, logRetry, wait)
		if s.wait(c.closing, nil, wait); s.isLost() || c.closing.Err() != nil {
			return nil
		}
	}
}

// unsubscribe ends a subscription, if the hub is willing, and returns when nothing more will come.
func (s *session) unsubscribe(ctx context.Context, filter string) {
	done := make(chan struct{})
	s.c.wg.Go(func() { // paho may hold its caller up for writeTimeout
		defer close(done)
		token := s.mq.Unsubscribe(filter)
		select {
		case <-token.Done():
		case <-s.lost:
		case <-ctx.Done():
		}
	})
	s.wait(ctx, done, pingTimeout)
}
