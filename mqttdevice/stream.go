package mqttdevice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// SendStream sends one message after the other, as [Client.Send] does, without waiting for each: up to
// window of them, at least 1, are on their way at a time. The messages are what next returns. acked is
// called once for each that the hub has taken, in their order. Neither is called twice at once.
//
// When next returns [io.EOF], SendStream waits for what is on its way and returns nil. Any other error
// of next, and the end of ctx, which is also next's, end it likewise, for five seconds at most. When
// the connection is lost with messages on their way, it returns [ErrConnectionLost]: the hub may have
// taken some of those. To send on, call it again and begin with the first that was not acknowledged;
// what comes after it reached the hub no earlier, so that the order stays.
func (c *Client) SendStream(ctx context.Context, window int, next func(context.Context) (Message, error), acked func()) error {
	fetching, cancel := context.WithCancel(ctx)
	st := &stream{c: c, acked: acked, fetched: make(chan fetched), wanted: make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		st.fetch(fetching, next)
	}()
	defer func() {
		cancel()
		<-ended
		for range st.way {
			c.release()
		}
	}()
	if err := st.run(ctx, window); err != nil {
		return fmt.Errorf("send messages: %w", err)
	}
	return nil
}

// A stream is one SendStream.
type stream struct {
	c       *Client
	acked   func()
	wanted  chan struct{} // one for each message that run wants
	fetched chan fetched

	s   *session
	way []mqtt.Token // messages that s has sent, oldest first; each counts as a busy call
}

type fetched struct {
	message Message
	err     error
}

// fetch calls next for run, which must not wait for it.
func (st *stream) fetch(ctx context.Context, next func(context.Context) (Message, error)) {
	for {
		select {
		case <-st.wanted:
		case <-ctx.Done():
			return
		}
		var f fetched
		f.message, f.err = next(ctx)
		select {
		case st.fetched <- f:
		case <-ctx.Done():
			return
		}
		if f.err != nil {
			return
		}
	}
}

func (st *stream) run(ctx context.Context, window int) error {
	asked := false
	for {
		wanted := st.wanted
		if asked || len(st.way) >= max(window, 1) {
			wanted = nil
		}
		select {
		case wanted <- struct{}{}:
			asked = true
		case f := <-st.fetched:
			asked = false
			if f.err == nil {
				f.err = st.send(ctx, f.message)
			}
			if f.err != nil {
				return st.finish(f.err)
			}
		case <-st.oldest():
			if err := st.pop(); err != nil {
				return err
			}
		case <-st.lost():
			return st.drain()
		case <-st.c.closing.Done():
			return st.finish(ErrClosed)
		case <-ctx.Done():
			return st.finish(context.Cause(ctx))
		}
	}
}

// send hands m to the connection.
func (st *stream) send(ctx context.Context, m Message) error {
	id := st.c.clientID()
	topic, err := m.topic(id)
	if err != nil {
		return err
	}
	if err := st.acquire(ctx); err != nil {
		return err
	}
	if st.s.id != id {
		if topic, err = m.topic(st.s.id); err != nil {
			st.c.release()
			return err
		}
	}
	token, err := st.s.hand(ctx, topic, 1, m.Payload)
	if err != nil {
		st.c.release()
		return err
	}
	st.way = append(st.way, token)
	return nil
}

// acquire makes s the connection in use, and counts a call. A new one is not used before all that the
// last one has sent is acknowledged: what it has not would come behind.
func (st *stream) acquire(ctx context.Context) error {
	for len(st.way) > 0 {
		if st.c.acquireSame(st.s) {
			return nil
		}
		select {
		case <-st.oldest():
			if err := st.pop(); err != nil {
				return err
			}
		case <-st.lost():
			return st.drain()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var err error
	st.s, err = st.c.acquire(ctx)
	return err
}

// oldest is closed when the fate of the oldest message on its way is known; nil if there is none.
func (st *stream) oldest() <-chan struct{} {
	if len(st.way) == 0 {
		return nil
	}
	return st.way[0].Done()
}

// lost is closed when the connection that has messages on their way is lost; nil if there is none.
func (st *stream) lost() <-chan struct{} {
	if len(st.way) == 0 {
		return nil
	}
	return st.s.lost
}

// pop takes the oldest message, whose fate is known, off the way.
func (st *stream) pop() error {
	if err := st.way[0].Error(); err != nil {
		st.s.lose(err)
		return st.s.lostError()
	}
	st.way = st.way[1:]
	st.c.release()
	st.acked()
	return nil
}

// drain is for a lost connection: some messages may have been acknowledged before.
func (st *stream) drain() error {
	for len(st.way) > 0 && st.way[0].WaitTimeout(0) {
		if err := st.pop(); err != nil {
			return err
		}
	}
	return st.s.lostError()
}

// finish waits for what is on its way and returns err, which is no error if it is io.EOF.
func (st *stream) finish(err error) error {
	limit := time.NewTimer(closeGrace)
	defer limit.Stop()
	end := limit.C
	if errors.Is(err, io.EOF) {
		err, end = nil, nil
	}
	for len(st.way) > 0 {
		select {
		case <-st.oldest():
			if lost := st.pop(); lost != nil {
				return lost
			}
		case <-st.lost():
			return st.drain()
		case <-end:
			return err
		}
	}
	return err
}
