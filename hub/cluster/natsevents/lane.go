package natsevents

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/internal/wait"
)

const (
	// patience is how long the stream may take to have a batch, or to answer.
	patience = 10 * time.Second

	// lateness is as in package eventlog.
	lateness = 5 * time.Millisecond
)

// A lane is what devices send to one partition through this node.
type lane struct {
	log       *Log
	partition int
	id        string // of its batches, with their number
	ended     chan struct{}
	packer    packer // of run

	mu     sync.Mutex // guards what follows
	work   sync.Cond  // run waits here for due
	room   sync.Cond  // senders wait here while next is full
	next   batch      // what is sent next
	due    bool       // and that it need not wait for more
	busy   bool       // a batch is on the way
	closed bool
}

// A batch is what one message holds.
type batch struct {
	buf   []byte
	n     int           // records
	calls []func(error) // what to tell their senders, and those who wait; nil for nothing
}

func newLane(l *Log, partition int, id string) *lane {
	c := &lane{log: l, partition: partition, id: id, ended: make(chan struct{})}
	c.work.L, c.room.L = &c.mu, &c.mu
	return c
}

func (c *lane) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.work.Signal()
	c.room.Broadcast()
}

func (c *lane) append(data []byte, called func(error), due bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for full(c.next.buf, c.next.n, len(data)) && !c.closed {
		c.room.Wait()
	}
	if c.closed {
		return eventlog.ErrClosed
	}
	c.next.buf = appendRecord(c.next.buf, data)
	c.next.n++
	c.next.calls = append(c.next.calls, called)
	switch {
	case due || full(c.next.buf, c.next.n, len(data)):
		c.hurry()
	case c.next.n == 1:
		time.AfterFunc(lateness, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.hurry()
		})
	}
	return nil
}

// hurry has what is in next sent. The caller holds c.mu.
func (c *lane) hurry() {
	c.due = len(c.next.calls) > 0
	c.work.Signal()
}

// settle returns when what was appended before is stored or has failed, or ctx
// ends.
func (c *lane) settle(ctx context.Context) {
	c.mu.Lock()
	if c.closed || len(c.next.calls) == 0 && !c.busy {
		c.mu.Unlock()
		return
	}
	done := make(chan struct{})
	c.next.calls = append(c.next.calls, func(error) { close(done) })
	c.hurry()
	c.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// waiting returns how many bytes wait for the batch on the way.
func (c *lane) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.next.buf)
}

// run sends one batch after the other until the lane is closed.
func (c *lane) run() {
	defer close(c.ended)
	var spare batch
	for number := 0; ; number++ {
		c.mu.Lock()
		c.busy = false
		for !c.due && !c.closed {
			c.work.Wait()
		}
		b := c.next
		if len(b.calls) == 0 {
			c.mu.Unlock()
			return
		}
		c.next, c.due, c.busy = spare, false, true
		c.room.Broadcast()
		c.mu.Unlock()

		var err error
		if b.n > 0 {
			err = c.send(b, number)
		}
		for _, called := range b.calls {
			if called != nil {
				called(err)
			}
		}
		clear(b.calls)
		spare = batch{buf: b.buf[:0], calls: b.calls[:0]}
	}
}

// send has the stream take a batch.
func (c *lane) send(b batch, number int) error {
	l := c.log
	ctx, stop := l.within(context.Background(), patience)
	defer stop()
	began := time.Now()
	m := nats.NewMsg(fmt.Sprint(subjectPrefix, c.partition, ofDevices))
	m.Header.Set(jetstream.MsgIDHeader, fmt.Sprintf("%s.%d", c.id, number))
	m.Data = c.packer.pack(b.buf)
	ack, err := l.publish(ctx, m)
	if err != nil {
		l.stats.unwritten.Add(1)
		l.logger.Warn("a batch of events is not known to be stored; who sent them has to send them again", "partition", c.partition, "events", b.n, "err", err)
		return fmt.Errorf("%w: %w", eventlog.ErrUnwritten, err)
	}
	l.stats.stored(b.n, len(b.buf), time.Since(began))
	l.saw(c.partition, ack.Sequence)
	return nil
}

// How long the stream may take before a batch is sent again.
const (
	attempt    = time.Second
	maxAttempt = 3 * time.Second
)

// errBehind means that a message was to follow another one of its subject that is
// not the last.
var errBehind = errors.New("another message is the last")

// publish has the stream take m, which is sent again until that is known or ctx
// ends.
func (l *Log) publish(ctx context.Context, m *nats.Msg) (*jetstream.PubAck, error) {
	var last error
	for length := attempt; ; length = min(length+attempt, maxAttempt) {
		once, cancel := context.WithTimeout(ctx, length)
		ack, err := l.conn.JetStream.PublishMsg(once, m)
		cancel()
		if err == nil {
			return ack, nil
		}
		if refusal, ok := errors.AsType[*jetstream.APIError](err); ok {
			switch refusal.ErrorCode {
			case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
				return nil, errBehind
			}
		}
		if ctx.Err() != nil {
			if last == nil {
				last = err
			}
			return nil, last
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		l.stats.repeated.Add(1)
		l.logger.Debug("sending events again", "err", err)
		if !errors.Is(err, context.DeadlineExceeded) && wait.For(ctx, 50*time.Millisecond) != nil {
			return nil, last
		}
	}
}
