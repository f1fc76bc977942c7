package natsevents

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/iotdm/iotdm/internal/wait"
)

// The headers of a message of the hub's own events: the position of the last one,
// and in which log that is.
const (
	throughHeader = "Iotdm-Through"
	storeHeader   = "Iotdm-Store"
)

// maxKept bounds the bytes of events that are kept for each partition, should the
// stream take none for long.
const maxKept = 16 << 20

// A position is that of an event in the log of the store.
type position struct {
	pos   uint64
	index int
}

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.pos, q.pos), cmp.Compare(p.index, q.index))
}

func (p position) String() string { return fmt.Sprintf("%d.%d", p.pos, p.index) }

func parsePosition(s string) (p position, ok bool) {
	pos, index, _ := strings.Cut(s, ".")
	var err, indexErr error
	p.pos, err = strconv.ParseUint(pos, 10, 64)
	p.index, indexErr = strconv.Atoi(index)
	return p, err == nil && indexErr == nil
}

// own are the hub's own events that the stream may not have yet.
type own struct {
	more wait.Signal // there is something to publish

	publishing sync.Mutex // held by PublishOwn

	mu    sync.Mutex // guards what follows
	kept  []keptIn   // by partition
	moved chan struct{}
}

// keptIn are the events of one partition, in order.
type keptIn struct {
	list    []keptEvent
	bytes   int
	through position // the stream has all up to this one
}

type keptEvent struct {
	position
	data []byte
}

func (o *own) init(partitions int) {
	o.more = wait.NewSignal()
	o.kept = make([]keptIn, partitions)
	o.moved = make(chan struct{})
}

// KeepOwn keeps an event of the hub's own until the stream has it. It has the
// position at which the store's log told it on every node, and comes in that
// order. KeepOwn does not wait, and keeps the slice.
func (l *Log) KeepOwn(pos uint64, index int, key string, data []byte) {
	if len(data) > l.maxRecord {
		l.stats.ownLost.Add(1)
		l.logger.Warn("an event was lost: it is larger than what a message may hold", "bytes", len(data))
		return
	}
	lost := 0
	l.own.mu.Lock()
	k := &l.own.kept[l.partition(key)]
	if at := (position{pos, index}); at.compare(k.through) > 0 {
		k.list = append(k.list, keptEvent{at, data})
		k.bytes += len(data)
	}
	for k.bytes > maxKept {
		k.drop(1)
		lost++
	}
	l.own.mu.Unlock()
	if lost > 0 {
		l.stats.ownLost.Add(int64(lost))
		l.logger.Warn("events were lost: the stream has taken none for long", "events", lost)
	}
	l.own.more.Set()
}

// drop forgets the first n events.
func (k *keptIn) drop(n int) {
	for i := range k.list[:n] {
		k.bytes -= len(k.list[i].data)
		k.list[i].data = nil
	}
	if k.list = k.list[n:]; len(k.list) == 0 {
		k.list = nil
	}
}

// published notes that the stream has the events of a partition up to a position.
func (o *own) published(partition int, through position) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := &o.kept[partition]
	if through.compare(k.through) <= 0 {
		return
	}
	k.through = through
	n, _ := slices.BinarySearchFunc(k.list, through, func(e keptEvent, p position) int {
		return cmp.Or(e.compare(p), -1) // that one, too
	})
	k.drop(n)
	close(o.moved)
	o.moved = make(chan struct{})
}

// in returns how many events of a partition are kept.
func (o *own) in(partition int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.kept[partition].list)
}

// count returns how many events are kept.
func (o *own) count() (n int) {
	for p := range o.kept {
		n += o.in(p)
	}
	return n
}

// next returns the events of a partition to publish next, in one message, and
// how many they are.
func (o *own) next(partition int) (through position, b []byte, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.kept[partition].list {
		if full(b, n, len(e.data)) {
			break
		}
		b = appendRecord(b, e.data)
		through = e.position
		n++
	}
	return
}

// ownPace is how long the hub's own events wait for more. Nothing is lost meanwhile,
// and each message takes as much of the disks of NATS as a change of the hub.
const ownPace = 50 * time.Millisecond

// PublishOwn has the stream take the hub's own events, in order, until ctx ends.
// One node does, as a rule. Should two, each event is there once all the same:
// a message is taken only behind the one that its sender has seen as the last of
// its partition, and that says up to where the events are there.
func (l *Log) PublishOwn(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	l.own.publishing.Lock()
	defer l.own.publishing.Unlock()
	senders := make([]ownSender, len(l.own.kept))
	l.own.more.Set() // some may be kept since another node has published
	for {
		select {
		case <-l.own.more:
		case <-ctx.Done():
			return
		}
		pace := time.NewTimer(ownPace)
		var wg sync.WaitGroup
		for partition := range senders {
			wg.Go(func() {
				if err := senders[partition].send(ctx, l, partition); err != nil && ctx.Err() == nil {
					l.logger.Debug("publishing the hub's own events", "partition", partition, "err", err)
				}
			})
		}
		wg.Wait()
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
		if l.own.count() > 0 {
			l.own.more.Set()
		}
	}
}

// An ownSender publishes the hub's own events of one partition.
type ownSender struct {
	known  bool   // last is
	last   uint64 // message of the partition
	packer packer
}

// send publishes one message, if there is something to publish.
func (s *ownSender) send(ctx context.Context, l *Log, partition int) (err error) {
	if !s.known {
		if l.own.in(partition) == 0 {
			return nil
		}
		if s.last, err = l.lastOwn(ctx, partition); err != nil {
			return err
		}
		s.known = true
	}
	through, b, n := l.own.next(partition) // of which some may be there
	if n == 0 {
		return nil
	}
	began := time.Now()
	m := nats.NewMsg(fmt.Sprint(subjectPrefix, partition, ofHub))
	m.Header.Set(throughHeader, through.String())
	m.Header.Set(storeHeader, l.store)
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(s.last, 10))
	m.Data = s.packer.pack(b)
	ack, err := l.publish(ctx, m)
	if err != nil {
		s.known = false
		return err
	}
	s.last = ack.Sequence
	l.stats.stored(n, len(b), time.Since(began))
	l.own.published(partition, through)
	l.saw(partition, ack.Sequence)
	return nil
}

// lastOwn looks up to where the stream has the hub's own events of a partition,
// and returns the message that says so, 0 if there is none.
func (l *Log) lastOwn(ctx context.Context, partition int) (seq uint64, err error) {
	m, err := l.leaderGet(ctx, request{LastFor: fmt.Sprint(subjectPrefix, partition, ofHub)})
	if errors.Is(err, errNone) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	l.sawOwn(partition, m.header)
	return m.seq, nil
}

// sawOwn notes what the headers of a message of the hub's own events say.
func (l *Log) sawOwn(partition int, h nats.Header) {
	if through, ok := parsePosition(h.Get(throughHeader)); ok && h.Get(storeHeader) == l.store {
		l.own.published(partition, through)
	}
}

const (
	// ownPatience is how long a reader waits for the hub's own events.
	ownPatience = 2 * time.Second

	// ownLook is how long what the stream announces may be missing before it is asked.
	ownLook = 250 * time.Millisecond
)

// settleOwn returns when the stream has the hub's own events of a partition, or of
// all, that are kept now, whichever node appends them; or after a while.
func (l *Log) settleOwn(ctx context.Context, partition int) {
	ctx, stop := l.within(ctx, ownPatience)
	defer stop()
	look := time.NewTicker(ownLook)
	defer look.Stop()
	for p, through := range l.own.ends(partition) {
		for {
			moved, there := l.own.has(p, through)
			if there {
				break
			}
			select {
			case <-moved:
			case <-look.C:
				_, _ = l.lastOwn(ctx, p)
			case <-ctx.Done():
				return
			}
		}
	}
}

// ends returns the last of the events that are kept, of a partition or of all that
// have some.
func (o *own) ends(partition int) map[int]position {
	o.mu.Lock()
	defer o.mu.Unlock()
	ends := map[int]position{}
	for p := range o.kept {
		if list := o.kept[p].list; len(list) > 0 && (partition == p || partition < 0) {
			ends[p] = list[len(list)-1].position
		}
	}
	return ends
}

// has reports whether the stream has the events of a partition up to a position.
// moved is closed when it has more.
func (o *own) has(partition int, through position) (moved <-chan struct{}, there bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.moved, o.kept[partition].through.compare(through) >= 0
}
