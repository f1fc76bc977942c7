package hub

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// A Reader is somebody who reads the events of a partition through the built-in
// endpoint, in a consumer group. A door makes it and attaches it before it reads
// the events of its Query, and detaches it when the peer has gone.
//
// Who is in a group decides nothing about what is read, only how many may read,
// as on Event Hubs: at most 5 without an epoch, or one with. The one with the
// higher epoch is the one that stays; between equals it is the newer, which is
// how the processors of the SDKs take partitions from each other.
type Reader struct {
	Group     string
	Partition int
	Epoch     *int64     // the owner level; nil is without
	Query     EventQuery // where to begin, and what to read

	// End has the reader end soon, with ErrReaderStolen. It must not wait.
	End func(reason error)

	number   uint64 // in a cluster: which of this node's it is
	admitted bool   // in a cluster: it has been seen among the readers; guarded by readers.mu
}

// DefaultConsumerGroup is the consumer group that always exists.
const DefaultConsumerGroup = "$Default"

// maxReaders is how many readers without an epoch a group may have in a
// partition.
const maxReaders = 5

// Why there is no reader, or no more. Event Hubs' errors have no numbers.
var (
	ErrNoConsumerGroup = errors.New("there is no such consumer group")
	ErrNoPartition     = errors.New("there is no such partition")
	ErrNoPosition      = errors.New("there is no such position")
	ErrReaderStolen    = errors.New("another reader has the partition")
	ErrTooManyReaders  = errors.New("too many readers")
)

// ValidateConsumerGroup says what is wrong with the name of a consumer group,
// if anything.
func ValidateConsumerGroup(name string) error {
	if len(name) > 50 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" || name == "" {
		return fmt.Errorf("consumer group %q: the name must be 1 to 50 letters, digits or any of . _ -", words.Clip(name))
	}
	return nil
}

// readers are those that are attached.
type readers struct {
	groups map[string]struct{} // lower-cased; read only

	mu     sync.Mutex // guards what follows
	in     map[readerPlace][]*Reader
	size   int
	number uint64 // of the last reader, in a cluster
}

type readerPlace struct {
	group     string // lower-cased
	partition int
}

func (r *readers) init(groups []string) error {
	r.in = make(map[readerPlace][]*Reader)
	r.groups = map[string]struct{}{strings.ToLower(DefaultConsumerGroup): {}}
	for _, name := range groups {
		if strings.EqualFold(name, DefaultConsumerGroup) {
			continue
		}
		if err := ValidateConsumerGroup(name); err != nil {
			return err
		}
		r.groups[strings.ToLower(name)] = struct{}{}
	}
	return nil
}

func (r *Reader) place() readerPlace {
	return readerPlace{strings.ToLower(r.Group), r.Partition}
}

// AttachReader makes r one of the readers of its group and partition, and ends
// those that it takes the place of. It sets the partition of its query and the
// sources, of which none is SourceTelemetry, and turns Latest into the number of
// the next event: what is stored from now on is read, however late r begins.
//
// Errors: ErrNoConsumerGroup, ErrNoPartition, ErrNoPosition for one that has not
// come yet, ErrReaderStolen, ErrTooManyReaders.
func (s *Server) AttachReader(r *Reader) error {
	place := r.place()
	if _, ok := s.readers.groups[place.group]; !ok {
		return fmt.Errorf("%w: %q", ErrNoConsumerGroup, words.Clip(r.Group))
	}
	if err := s.startReader(r); err != nil {
		return err
	}
	if s.Clustered() {
		return s.attachReader(place, r)
	}
	ended, err := s.readers.put(place, r)
	for _, old := range ended {
		old.End(old.stolen(r.Epoch))
	}
	return err
}

// startReader settles where r begins.
func (s *Server) startReader(r *Reader) error {
	if r.Partition < 0 || r.Partition >= s.events.Partitions() {
		return fmt.Errorf("%w: %d; the hub's are 0 to %d", ErrNoPartition, r.Partition, s.events.Partitions()-1)
	}
	b, err := s.eventBounds(s.ctx, r.Partition)
	if err != nil {
		return err
	}
	q := &r.Query
	switch {
	case q.Latest:
		q.Latest, q.Sequence = false, b.Next
	case q.Sequence > b.Next:
		// A checkpoint of another hub, or of this one before it was reset: who
		// waited there would miss all events up to it without a word.
		return fmt.Errorf("%w: sequence number %d; the last of partition %d is %d", ErrNoPosition, q.Sequence, r.Partition, b.Next-1)
	case q.Offset > b.End:
		return fmt.Errorf("%w: offset %d; the last of partition %d is %d", ErrNoPosition, q.Offset, r.Partition, b.LastOffset)
	}
	q.Partition = &r.Partition
	if len(q.Sources) == 0 {
		q.Sources = []EventSource{SourceTelemetry}
	}
	return nil
}

// put adds r, and returns those whose place it takes.
func (rs *readers) put(place readerPlace, r *Reader) (ended []*Reader, err error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	there := rs.in[place]
	var epoch *int64
	if len(there) > 0 {
		epoch = there[0].Epoch
	}
	replaces, err := r.admit(len(there), epoch)
	if err != nil {
		return nil, err
	}
	if replaces {
		ended, there = there, nil
	}
	rs.in[place] = append(there, r)
	rs.size += 1 - len(ended)
	return ended, nil
}

// admit decides whether r may be one of the readers of its place, of which there
// are some: either all without an epoch, or one with; and whether it replaces them.
func (r *Reader) admit(there int, epoch *int64) (replaces bool, err error) {
	switch {
	case r.Epoch == nil && epoch != nil:
		return false, fmt.Errorf("%w: a reader with %s is attached to partition %d in the consumer group %s, beside which there is none without",
			ErrReaderStolen, level(epoch), r.Partition, r.Group)
	case r.Epoch == nil && there >= maxReaders:
		return false, fmt.Errorf("%w: partition %d has %d in the consumer group %s, as many as may be without an epoch",
			ErrTooManyReaders, r.Partition, there, r.Group)
	case r.Epoch == nil:
		return false, nil
	case epoch != nil && *epoch > *r.Epoch:
		return false, fmt.Errorf("%w: a reader with %s, which is higher than %d, is attached to partition %d in the consumer group %s",
			ErrReaderStolen, level(epoch), *r.Epoch, r.Partition, r.Group)
	}
	return true, nil
}

// stolen is why r ends when a reader with an epoch takes its place.
func (r *Reader) stolen(epoch *int64) error {
	return fmt.Errorf("%w: a reader with %s was attached to partition %d in the consumer group %s", ErrReaderStolen, level(epoch), r.Partition, r.Group)
}

func level(epoch *int64) string {
	if epoch == nil {
		return "no epoch"
	}
	return fmt.Sprintf("the epoch %d", *epoch)
}

// DetachReader forgets r. One that is not attached, or not any more, is left
// alone.
func (s *Server) DetachReader(r *Reader) {
	place := r.place()
	if s.readers.remove(place, r) && s.Clustered() {
		s.running.Go(func() { s.dropReaders(place) })
	}
}

func (rs *readers) remove(place readerPlace, r *Reader) (removed bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	there := rs.in[place]
	i := slices.Index(there, r)
	if i < 0 {
		return false
	}
	rs.size--
	if len(there) == 1 {
		delete(rs.in, place)
	} else {
		rs.in[place] = slices.Delete(there, i, i+1)
	}
	return true
}

// Readers returns how many are attached.
func (s *Server) Readers() int {
	s.readers.mu.Lock()
	defer s.readers.mu.Unlock()
	return s.readers.size
}

// An EventPartition says what a partition of the event log holds.
type EventPartition struct {
	First int64 // number of the oldest event that is kept, or of the next one
	Last  int64 // number of the newest event; of the one before First if it is empty

	// Of the newest event: -1 and the zero time if there is none.
	LastOffset int64
	LastTime   time.Time

	Empty bool
}

// EventPartition returns what a partition holds of the sources, of which none
// is all: a reader that comes to the last event has come to the end.
//
// Errors: ErrNoPartition.
func (s *Server) EventPartition(ctx context.Context, partition int, sources []EventSource) (EventPartition, error) {
	if partition < 0 || partition >= s.events.Partitions() {
		return EventPartition{}, fmt.Errorf("%w: %d; the hub's are 0 to %d", ErrNoPartition, partition, s.events.Partitions()-1)
	}
	b, err := s.eventBounds(ctx, partition)
	if err != nil {
		return EventPartition{}, err
	}
	if len(sources) > 0 {
		if err := s.newest.find(ctx, s.events, partition, sources, b); err != nil {
			return EventPartition{}, err
		}
	}
	p := EventPartition{First: b.First, Last: b.Next - 1, LastOffset: b.LastOffset, LastTime: b.LastTime, Empty: b.First == b.Next}
	if len(sources) > 0 {
		last := s.newest.get(partition, sources)
		if p.Empty = last.Sequence < b.First; p.Empty {
			p.Last, p.LastOffset, p.LastTime = b.First-1, -1, time.Time{}
		} else {
			p.Last, p.LastOffset, p.LastTime = last.Sequence, last.Offset, last.Time
		}
	}
	return p, nil
}

// eventBounds returns the bounds of a partition with all that was appended,
// which for the hub's own events is before they are durable.
func (s *Server) eventBounds(ctx context.Context, partition int) (eventlog.Bounds, error) {
	err := s.events.Read(ctx, partition, eventlog.Position{End: true}, nil, func(eventlog.Record) error { return nil })
	if err != nil {
		return eventlog.Bounds{}, err
	}
	return s.events.Bounds(ctx, partition)
}

// newest remembers the newest event of a partition that is of some sources, and
// how far it was looked for.
type newest struct {
	mu sync.Mutex // guards what follows
	of map[newestKey]newestEvent
}

type newestKey struct {
	partition int
	sources   string
}

type newestEvent struct {
	seen     int64 // events below this number were looked at
	Sequence int64 // -1 if there was none
	Offset   int64
	Time     time.Time
}

func (n *newest) key(partition int, sources []EventSource) newestKey {
	return newestKey{partition, fmt.Sprint(sources)}
}

func (n *newest) get(partition int, sources []EventSource) newestEvent {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e, ok := n.of[n.key(partition, sources)]; ok {
		return e
	}
	return newestEvent{Sequence: -1}
}

// find looks for the newest event behind those that were looked at. The first
// time it begins near the end, and with more and more before that while there
// is none.
func (n *newest) find(ctx context.Context, log EventLog, partition int, sources []EventSource, b eventlog.Bounds) error {
	e := n.get(partition, sources)
	from, until := max(e.seen, b.First), int64(math.MaxInt64)
	errSeen := errors.New("looked at before")
	const near = 1 << 12
	for step := int64(near); ; step *= 16 {
		start := max(from, b.Next-step)
		err := log.Read(ctx, partition, eventlog.Position{Sequence: start}, nil, func(r eventlog.Record) error {
			if r.Sequence >= until {
				return errSeen
			}
			e.seen = max(e.seen, r.Sequence+1)
			if slices.Contains(sources, sourceOf(r.Data)) {
				e.Sequence, e.Offset, e.Time = r.Sequence, r.Offset, r.Time
			}
			return nil
		})
		if err != nil && err != errSeen {
			return err
		}
		if start <= from || e.Sequence >= start {
			break
		}
		until = start
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.of == nil {
		n.of = make(map[newestKey]newestEvent)
	}
	if key := n.key(partition, sources); e.seen > n.of[key].seen {
		n.of[key] = e
	}
	return nil
}
