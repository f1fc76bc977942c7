// Package natsevents keeps the events of a hub of several nodes in a stream of
// NATS JetStream. It does for all of them what package eventlog does for one: see
// there what its methods mean.
//
// A message of the stream is a batch: events of one partition that one node has
// gathered while its last batch was on the way. One batch of a partition is on
// the way at a time, and is sent again until the stream is known to have it, so
// that a node's events keep their order. Its id keeps it from being there twice.
//
// The place of an event is that of its message in the stream, and its place
// therein. So offsets order all partitions, and are the numbers of the events,
// too: they rise, with gaps. The time of an event is when the stream took it.
//
// The hub's own events come to every node in the order of the store's log, and
// every node keeps them until it sees in the stream how far they have come. One
// node appends them: see [Log.PublishOwn].
package natsevents

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/eventlog"
)

// A Log is the event log of one node, which shares the stream with others. Its
// methods may be called concurrently.
type Log struct {
	conn       *natsconn.Conn
	logger     *slog.Logger
	store      string
	partitions int
	maxRecord  int
	lanes      []*lane
	own        own
	feed       *nats.Subscription

	ctx     context.Context // ends when the log closes
	cancel  context.CancelFunc
	running sync.WaitGroup
	stopped atomic.Bool

	mu    sync.Mutex            // guards what follows
	tails map[int]uint64        // of each partition, and All: a message that it may have; none behind it is known
	grown map[int]chan struct{} // closed when that partition, or All, may have grown
	first map[int]uint64        // the oldest message of each partition that was looked up

	cleared atomic.Uint64 // messages up to this one are not read any more
	stats   counters
}

// Options configure Open.
type Options struct {
	// Store identifies the log of the store, whose positions the hub's own events
	// have.
	Store string

	// Logger receives what an operator wants to know. Nil discards.
	Logger *slog.Logger
}

// Open begins to use the stream, which Create has made. The connection stays the
// caller's, who closes it after the Log; reading events loads it so that it had
// better not be that of the store's log.
//
// Errors: what is wrong with the stream, and what to do about it.
func Open(ctx context.Context, conn *natsconn.Conn, opt Options) (*Log, error) {
	settings, err := Check(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	l := &Log{
		conn: conn, logger: opt.Logger, store: opt.Store, partitions: settings.Partitions,
		maxRecord: int(conn.MaxPayload()) - overhead,
		tails:     map[int]uint64{}, grown: map[int]chan struct{}{}, first: map[int]uint64{},
	}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.own.init(settings.Partitions)
	l.stats.init()
	if l.feed, err = conn.Subscribe(feedPrefix+"*.*", l.hear); err != nil {
		l.cancel()
		return nil, fmt.Errorf("open event log: %w", err)
	}
	id := nuid.Next()
	for p := range settings.Partitions {
		lane := newLane(l, p, fmt.Sprintf("%s.%d", id, p))
		l.lanes = append(l.lanes, lane)
		l.running.Go(lane.run)
	}
	l.running.Go(l.look)
	return l, nil
}

// closePatience is how long Close waits for the stream to take what was appended.
const closePatience = 5 * time.Second

// Close waits for the stream to take what was appended, tells the senders, ends
// all reads and closes the log. Closing again does nothing. Of the hub's own
// events it forgets what no node has appended yet.
func (l *Log) Close() error {
	if l.stopped.Swap(true) {
		l.running.Wait()
		return nil
	}
	for _, lane := range l.lanes {
		lane.close()
	}
	end := time.AfterFunc(closePatience, l.cancel)
	for _, lane := range l.lanes {
		<-lane.ended
	}
	end.Stop()
	l.cancel()
	l.running.Wait()
	return l.feed.Unsubscribe()
}

// Partitions returns the number of partitions, which is set when the stream is
// made.
func (l *Log) Partitions() int { return l.partitions }

// Append is as in package eventlog: called tells when a majority of the servers
// has the record. It fails with ErrUnwritten when the stream does not say so for
// a while, and then the record may still come to be there.
func (l *Log) Append(key string, data []byte, called func(error)) error {
	return l.append(key, data, called, true)
}

// AppendLate is as in package eventlog.
func (l *Log) AppendLate(key string, data []byte, called func(error)) error {
	return l.append(key, data, called, false)
}

func (l *Log) append(key string, data []byte, called func(error), due bool) error {
	if len(data) > l.maxRecord {
		return eventlog.ErrTooLarge
	}
	return l.lanes[l.partition(key)].append(data, called, due)
}

// partition is FNV-1a, as in package eventlog: events that are moved from there
// keep their partition.
func (l *Log) partition(key string) int {
	h := uint32(2166136261)
	for i := 0; i < len(key); i++ {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return int(h % uint32(l.partitions))
}

// Trim does nothing: the stream drops by itself what is too old or too much.
func (l *Log) Trim() {}

// Clear drops the events of all nodes that were appended before. Other nodes may
// still read some for a moment.
func (l *Log) Clear() error {
	ctx, stop := l.within(l.ctx, patience)
	defer stop()
	l.settle(ctx, eventlog.All)
	end, err := l.end(ctx)
	if err != nil {
		return err
	}
	s, err := l.conn.JetStream.Stream(ctx, stream)
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSequence(end+1))
	}
	if err != nil {
		return l.closedOr(fmt.Errorf("clear event log: %w", l.conn.Explain(err)))
	}
	l.cleared.Store(end)
	return nil
}

// within returns a context that ends with ctx, with the log, and after a while.
func (l *Log) within(ctx context.Context, d time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(ctx, d)
	stop := context.AfterFunc(l.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// closedOr returns ErrClosed if the log is closed, or else err.
func (l *Log) closedOr(err error) error {
	if err != nil && l.ctx.Err() != nil {
		return eventlog.ErrClosed
	}
	return err
}

func (l *Log) known(partition int) error {
	if partition < 0 || partition >= l.partitions {
		return fmt.Errorf("read event log: there is no partition %d", partition)
	}
	return nil
}
