package amqp

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// Properties and capabilities of a reader's link.
const (
	epochProperty   = "com.microsoft:epoch"
	metricsOfReader = wire.Symbol("com.microsoft:enable-receiver-runtime-metric")
)

// condOutOfRange is what Event Hubs says of a partition that is not there.
const condOutOfRange wire.Symbol = "com.microsoft:argument-out-of-range"

// patience is how long a reader that gives no credit keeps the log open where
// it stands. Behind that it looks for its place again.
var patience = 30 * time.Second

// An eventReader sends the events of a partition on a link, as many as the peer
// gives credit for.
type eventReader struct {
	conn    *conn
	link    *engine.Link
	reader  *hub.Reader
	cancel  context.CancelFunc
	metrics *partitionMetrics // nil if they are not wanted
}

// attachPartition attaches a reader of events.
func (c *conn) attachPartition(l *engine.Link, a address) error {
	path := "/" + a.hub + "/ConsumerGroups/" + a.group + "/Partitions/" + a.partition
	allowed := func() error {
		_, err := c.reader(a.hub, path)
		return err
	}
	if err := allowed(); err != nil {
		return err
	}
	if !strings.EqualFold(a.hub, EventHubName) {
		return noEventHub(a.hub)
	}
	partition, err := parsePartition(a.partition)
	if err != nil {
		return err
	}
	query, err := startOf(l.Source)
	if err != nil {
		return refuse(condArgument, "%v", err)
	}
	epoch, err := epochOf(l.Properties)
	if err != nil {
		return err
	}
	query.Follow = true
	query.Sources = c.door.sources()
	ctx, cancel := context.WithCancel(c.door.running.Context())
	e := &eventReader{conn: c, link: l, cancel: cancel}
	e.reader = &hub.Reader{Group: a.group, Partition: partition, Epoch: epoch, Query: query, End: e.end}
	if err := c.door.hub.AttachReader(e.reader); err != nil {
		cancel()
		return c.readerRefusal(err)
	}
	if slices.Contains(l.DesiredCapabilities, metricsOfReader) {
		l.OfferedCapabilities = append(l.OfferedCapabilities, metricsOfReader)
		e.metrics = new(partitionMetrics)
	}
	l.Outlet = e
	if !c.door.running.Go(func() { e.run(ctx) }) {
		e.Detached()
		return refuse(condForced, "%v", hub.ErrClosing)
	}
	c.guard(l, allowed)
	return nil
}

// parsePartition reads the id of a partition, of which the hub knows whether
// there is such a one.
func parsePartition(id string) (int, error) {
	n, err := strconv.Atoi(id)
	if err != nil || strconv.Itoa(n) != id {
		return 0, noEntity(condOutOfRange, "there is no partition %q", words.Clip(id))
	}
	return n, nil
}

// epochOf returns the epoch in the properties of a link, or nil.
func epochOf(properties wire.Fields) (*int64, error) {
	switch n := properties.Get(epochProperty).(type) {
	case nil:
		return nil, nil
	case int64:
		return &n, nil
	case int32:
		return new(int64(n)), nil
	case uint32:
		return new(int64(n)), nil
	case uint64:
		return new(int64(min(n, 1<<63-1))), nil
	}
	return nil, refuse(condArgument, "the property %s must be a long", epochProperty)
}

// readerRefusal turns an error of the rules of readers into AMQP's, and tells the
// operator.
func (c *conn) readerRefusal(err error) *wire.Error {
	for _, known := range []struct {
		err       error
		condition wire.Symbol
	}{
		{hub.ErrNoConsumerGroup, condNotFound},
		{hub.ErrNoPartition, condOutOfRange},
		{hub.ErrNoPosition, condArgument},
		{hub.ErrReaderStolen, condStolen},
		{hub.ErrTooManyReaders, condLimit},
	} {
		if errors.Is(err, known.err) {
			c.door.far.Info("refused", slog.String(words.LogRemote, c.remote()), slog.Any(words.LogReason, err))
			if known.condition == condNotFound || known.condition == condOutOfRange {
				return noEntity(known.condition, "%v", err)
			}
			return refuse(known.condition, "%v", err)
		}
	}
	return c.refusalOf(err)
}

// end ends the reader for a reason of the rules.
func (e *eventReader) end(reason error) { e.link.Detach(e.conn.readerRefusal(reason)) }

// Ready implements engine.Outlet: run waits for that.
func (*eventReader) Ready() {}

// Settled implements engine.Outlet. Events are settled when they are sent: a
// reader remembers by itself how far it has come.
func (*eventReader) Settled(any, wire.State) wire.State { return nil }

// Detached implements engine.Outlet.
func (e *eventReader) Detached() {
	e.cancel()
	e.conn.door.hub.DetachReader(e.reader)
}

// run sends events until the link ends.
func (e *eventReader) run(ctx context.Context) {
	q := e.reader.Query
	for {
		if e.link.Wait(ctx) != nil {
			return
		}
		err := e.send(ctx, &q)
		switch {
		case err == nil: // the peer was slow
		case ctx.Err() != nil, errors.Is(err, engine.ErrDetached), errors.Is(err, hub.ErrClosed):
			return
		default:
			e.link.Detach(e.conn.refusalOf(err))
			return
		}
	}
}

// send sends the events of q, and moves it behind them, until the peer has not
// wanted one for some time.
func (e *eventReader) send(ctx context.Context, q *hub.EventQuery) error {
	var encoder eventEncoder
	q.AtEnd = func() { encoder = eventEncoder{} } // who waits holds no buffer
	for event, err := range e.conn.door.hub.Events(ctx, *q) {
		if err != nil {
			return err
		}
		message := encoder.encode(&event, e.metrics.at(ctx, e.conn.door, &event))
		// Settled, as Event Hubs sends them whatever was asked for: its client for
		// Go settles nothing, and gives no more credit for what is not settled.
		for !e.link.Send(message, nil, true, nil) {
			waiting, cancel := context.WithTimeout(ctx, patience)
			err := e.link.Wait(waiting)
			cancel()
			switch {
			case err == nil:
			case errors.Is(err, context.DeadlineExceeded):
				q.Sequence = event.Sequence
				return nil
			default:
				return err
			}
		}
		q.Sequence = event.Sequence + 1
	}
	return nil
}

// partitionMetrics tells a reader how far its partition has come.
type partitionMetrics struct {
	partition hub.EventPartition
	when      time.Time
}

// metricsAge is how old what a reader is told may be: it is told when it was.
const metricsAge = time.Second

// at returns m as it is told with an event, or nil.
func (m *partitionMetrics) at(ctx context.Context, d *Door, e *hub.Event) *partitionMetrics {
	if m == nil {
		return nil
	}
	if now := d.hub.Now(); now.Sub(m.when).Abs() >= metricsAge {
		p, err := d.hub.EventPartition(ctx, e.Partition, d.sources())
		if err != nil {
			return nil
		}
		m.partition, m.when = p, now
	}
	if p := &m.partition; e.Sequence > p.Last { // it came since
		p.Last, p.LastOffset, p.LastTime, p.Empty = e.Sequence, e.Offset, e.Enqueued, false
	}
	return m
}
