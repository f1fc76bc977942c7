package natsevents

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/internal/wait"
)

// Read is as in package eventlog.
func (l *Log) Read(ctx context.Context, partition int, from eventlog.Position, atEnd func(), fn func(eventlog.Record) error) error {
	return l.ReadOver(ctx, partition, from, atEnd, func(eventlog.Damage) error { return nil }, fn)
}

// ReadOver is as in package eventlog. It reads from whichever server answers, and
// asks that which orders the stream what those before have not got yet. A server
// that is gone costs a moment; if none answers, who follows waits, and others get
// an error after a while.
func (l *Log) ReadOver(ctx context.Context, partition int, from eventlog.Position, atEnd func(), damaged func(eventlog.Damage) error, fn func(eventlog.Record) error) error {
	if partition != eventlog.All {
		if err := l.known(partition); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(eventlog.ErrClosed) })()
	err := l.read(ctx, partition, from, atEnd, damaged, fn)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return context.Cause(ctx)
	}
	return err
}

func (l *Log) read(ctx context.Context, partition int, from eventlog.Position, atEnd func(), damaged func(eventlog.Damage) error, fn func(eventlog.Record) error) error {
	l.settle(ctx, partition)
	end, err := l.end(ctx)
	if err != nil {
		return err
	}
	r := reader{log: l, partition: partition, from: from, limit: end, damaged: damaged, fn: fn}
	if from.End {
		r.from.Offset = max(from.Offset, offset(end+1, 0))
	}
	if atEnd != nil {
		r.limit = math.MaxUint64
	}
	if err := r.begin(ctx, end); err != nil {
		return err
	}
	f, err := l.newFetcher()
	if err != nil {
		return l.closedOr(fmt.Errorf("read event log: %w", err))
	}
	defer f.close()
	for target := end; ; {
		switch err := r.upTo(ctx, f, target); {
		case errors.Is(err, errLimit) || err == nil && atEnd == nil:
			return nil
		case err != nil:
			return err
		}
		atEnd()
		if target, err = l.more(ctx, partition, r.next); err != nil {
			return err
		}
	}
}

// settle returns when the stream has what this node has appended, or ctx ends.
func (l *Log) settle(ctx context.Context, partition int) {
	for p, lane := range l.lanes {
		if partition == eventlog.All || partition == p {
			lane.settle(ctx)
		}
	}
	l.settleOwn(ctx, partition)
}

// offset is the place of a record in the stream.
func offset(seq uint64, index int64) int64 { return int64(seq)*perBatch + index }

// filter is the subject of all messages of a partition, or of All.
func filter(partition int) string {
	if partition == eventlog.All {
		return subjectPrefix + "*.*"
	}
	return fmt.Sprint(subjectPrefix, partition, ".*")
}

// A reader is one Read on its way.
type reader struct {
	log       *Log
	partition int
	from      eventlog.Position // what is before it is left out; nothing is behind the first record
	next      uint64            // message to read next
	limit     uint64            // the last message to read
	damaged   func(eventlog.Damage) error
	fn        func(eventlog.Record) error
	packer    packer
}

// errLimit means that what comes is behind the limit.
var errLimit = errors.New("behind the limit")

// begin finds the first message, of a stream that ends with the message end.
func (r *reader) begin(ctx context.Context, end uint64) error {
	r.next = max(uint64(max(r.from.Offset, r.from.Sequence, 0))/perBatch, 1)
	if r.from.Time.IsZero() || r.next > end {
		return nil
	}
	m, err := r.log.leaderGet(ctx, request{StartTime: &r.from.Time, NextFor: filter(r.partition)})
	switch {
	case errors.Is(err, errNone):
		r.next = max(r.next, end+1)
	case err != nil:
		return err
	default:
		r.next = max(r.next, m.seq)
	}
	return nil
}

// unreachable is how long a Read that follows nothing tries to reach the stream.
const unreachable = 15 * time.Second

// upTo reads all that there is, at least up to the message target.
func (r *reader) upTo(ctx context.Context, f *fetcher, target uint64) error {
	var lost time.Time // since when the stream cannot be reached
	for {
		if r.next > r.limit {
			return errLimit
		}
		before := r.next
		err := f.fetch(ctx, r.next, filter(r.partition), r.take)
		if errors.Is(err, errNone) {
			if r.next > target {
				return nil
			}
			// The server that was asked may be behind.
			err = r.fromLeader(ctx, target)
		}
		if own, ok := errors.AsType[*readError](err); ok {
			return own.error
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil || r.next != before:
			lost = time.Time{}
			continue
		case lost.IsZero():
			lost = time.Now()
		case r.limit != math.MaxUint64 && time.Since(lost) > unreachable:
			return fmt.Errorf("read event log: %w", err)
		}
		r.log.logger.Debug("reading events again", "err", err)
		_ = wait.For(ctx, 50*time.Millisecond)
	}
}

// fromLeader reads the next message, or finds that there is none up to target.
func (r *reader) fromLeader(ctx context.Context, target uint64) error {
	m, err := r.log.leaderGet(ctx, request{Seq: r.next, NextFor: filter(r.partition)})
	if errors.Is(err, errNone) {
		r.next = target + 1
		return nil
	}
	if err != nil {
		return err
	}
	return r.take(m)
}

// A readError is one of the functions that Read calls.
type readError struct{ error }

// take passes the records of a message on.
func (r *reader) take(m message) error {
	if m.seq > r.limit {
		return &readError{errLimit}
	}
	if m.seq < r.next {
		return nil // it was asked for twice
	}
	r.next = m.seq + 1
	if m.seq <= r.log.cleared.Load() {
		return nil
	}
	err := errDamaged
	if m.partition >= 0 && m.partition < r.log.partitions {
		err = r.records(m)
	}
	if errors.Is(err, errDamaged) {
		r.log.stats.damaged.Add(1)
		r.log.logger.Error("a message of the event stream cannot be read; what was there is lost, and what is behind it is not", "message", m.seq, "bytes", len(m.data))
		if err := r.damaged(eventlog.Damage{Offset: offset(m.seq, 0), Bytes: int64(len(m.data))}); err != nil {
			return &readError{err}
		}
		return nil
	}
	return err
}

func (r *reader) records(m message) error {
	return r.packer.records(m.data, func(i int64, data []byte) error {
		at := offset(m.seq, i)
		rec := eventlog.Record{Offset: at, Partition: m.partition, Sequence: at, Time: m.at, Data: data}
		if rec.Offset < r.from.Offset || rec.Sequence < r.from.Sequence || rec.Time.Before(r.from.Time) {
			return nil
		}
		r.from = eventlog.Position{}
		if err := r.fn(rec); err != nil {
			return &readError{err}
		}
		return nil
	})
}

// Bounds is as in package eventlog, as the server that orders the stream knows
// them.
func (l *Log) Bounds(ctx context.Context, partition int) (eventlog.Bounds, error) {
	if err := l.known(partition); err != nil {
		return eventlog.Bounds{}, err
	}
	ctx, stop := l.within(ctx, patience)
	defer stop()
	b, err := l.bounds(ctx, partition)
	return b, l.closedOr(err)
}

func (l *Log) bounds(ctx context.Context, partition int) (eventlog.Bounds, error) {
	b := eventlog.Bounds{LastOffset: -1}
	state, err := l.state(ctx)
	if err != nil {
		return b, err
	}
	if state.LastSeq > 0 {
		b.End = offset(state.LastSeq+1, 0)
	}
	if state.FirstSeq > 1 { // there may have been some
		b.First, b.Next = b.End, b.End
	}
	last, err := l.leaderGet(ctx, request{LastFor: filter(partition)})
	if errors.Is(err, errNone) {
		return b, nil
	}
	if err != nil {
		return b, err
	}
	b.Next = offset(last.seq, count(last.data))
	b.End = max(b.End, offset(last.seq+1, 0))
	b.LastOffset, b.LastTime = b.Next-1, last.at
	first, err := l.firstOf(ctx, partition, state.FirstSeq)
	if errors.Is(err, errNone) {
		first = last.seq // all before it has gone meanwhile
	} else if err != nil {
		return b, err
	}
	b.First = offset(first, 0)
	return b, nil
}

// firstOf returns the oldest message of a partition, in a stream that begins with
// a message.
func (l *Log) firstOf(ctx context.Context, partition int, begin uint64) (uint64, error) {
	l.mu.Lock()
	first, known := l.first[partition]
	l.mu.Unlock()
	if known && first >= begin {
		return first, nil
	}
	m, err := l.leaderGet(ctx, request{Seq: max(begin, 1), NextFor: filter(partition)})
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first[partition] = m.seq
	return m.seq, nil
}

// lookInterval is how often the stream is asked for its end while somebody waits
// for more, should what it announces not arrive.
const lookInterval = time.Second

// look asks the stream for its end, until the log closes.
func (l *Log) look() {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return
		}
		l.mu.Lock()
		waiting := len(l.grown) > 0
		l.mu.Unlock()
		if !waiting {
			continue
		}
		ctx, cancel := context.WithTimeout(l.ctx, lookInterval)
		state, err := l.state(ctx)
		cancel()
		if err != nil {
			continue
		}
		for p := range l.partitions {
			l.saw(p, state.LastSeq)
		}
	}
}

// hear notes what the stream announces. Whoever may publish there can only have
// readers look for what is not there.
func (l *Log) hear(m *nats.Msg) {
	var partition int
	var of string
	if n, _ := fmt.Sscanf(m.Subject, feedPrefix+"%d.%s", &partition, &of); n != 2 || partition < 0 || partition >= l.partitions {
		return
	}
	seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return
	}
	if "."+of == ofHub {
		l.sawOwn(partition, m.Header)
	}
	l.saw(partition, seq)
}

// saw notes that a partition has a message, or that it may have.
func (l *Log) saw(partition int, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range []int{partition, eventlog.All} {
		if seq <= l.tails[p] {
			continue
		}
		l.tails[p] = seq
		if c := l.grown[p]; c != nil {
			close(c)
			delete(l.grown, p)
		}
	}
}

// more returns when a partition may have the message next or one behind it: up to
// which it may.
func (l *Log) more(ctx context.Context, partition int, next uint64) (uint64, error) {
	for {
		l.mu.Lock()
		tail := l.tails[partition]
		if tail >= next {
			l.mu.Unlock()
			return tail, nil
		}
		grown := l.grown[partition]
		if grown == nil {
			grown = make(chan struct{})
			l.grown[partition] = grown
		}
		l.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
