package eventlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	frame "github.com/iotdm/iotdm/internal/segment"
)

// A Record is what Read finds.
type Record struct {
	Offset    int64 // orders the records of the whole log
	Partition int
	Sequence  int64     // numbers the records of a partition, from 0
	Time      time.Time // when it was appended; never before that of an older record
	Data      []byte    // valid only until fn returns
}

// All in place of a partition means all of them, in the order of the log.
const All = -1

// A Position says where reading begins: at the first record that satisfies all
// its fields. The zero value is the oldest record that is kept.
//
// Each field is inclusive. Reading goes on behind a record r, without gaps or
// doubles, at Offset r.Offset+1, and within its partition also at Sequence
// r.Sequence+1.
type Position struct {
	Offset   int64     // at this offset or behind it; it need not be that of a record
	Sequence int64     // with this number or a higher one, each in its partition
	Time     time.Time // of this time or later
	End      bool      // behind all that were appended when Read is called
}

// excludes reports whether p is behind r. What End means is in Offset by then.
func (p Position) excludes(r Record) bool {
	return r.Offset < p.Offset || r.Sequence < p.Sequence || r.Time.Before(p.Time)
}

// Bounds are where the records of a partition begin and end. None is kept if
// First is Next.
type Bounds struct {
	First int64 // number of the first record that is kept
	Next  int64 // number that the next record will have
	End   int64 // offset that the next record of the log will have, or a lower one

	// Of the last record that is kept: -1 and the zero time if none is.
	LastOffset int64
	LastTime   time.Time
}

// Bounds returns the bounds of a partition. The first call may read a segment,
// to find a last record from before the log was opened.
func (l *Log) Bounds(ctx context.Context, partition int) (Bounds, error) {
	if partition < 0 || partition >= l.partitions {
		return Bounds{}, noPartition(partition)
	}
	b, known := l.bounds(partition)
	if known {
		return b, nil
	}
	err := l.Read(ctx, partition, Position{Sequence: b.Next - 1}, nil, func(r Record) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if t := &l.tails[partition]; t.next == r.Sequence+1 {
			t.offset, t.end, t.time = r.Offset, r.next(), r.Time.UnixNano()
		}
		return nil
	})
	if err != nil {
		return Bounds{}, err
	}
	b, _ = l.bounds(partition)
	return b, nil
}

// bounds returns the bounds of a partition and whether they are complete.
func (l *Log) bounds(partition int) (b Bounds, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tails[partition]
	last := l.segments[len(l.segments)-1]
	b = Bounds{First: l.segments[0].sequences[partition], Next: t.next, End: last.base + last.size, LastOffset: -1}
	if b.First == b.Next {
		return b, true
	}
	if t.offset >= 0 {
		b.LastOffset, b.LastTime = t.offset, time.Unix(0, t.time)
	}
	return b, t.offset >= 0
}

func noPartition(partition int) error {
	return fmt.Errorf("read event log: there is no partition %d", partition)
}

// Read calls fn for each durable record of a partition, or of All, that is at
// position from or behind it, in order. It returns at the end of the log as it
// was when Read was called, with all that had been appended. If atEnd is not nil, Read instead calls it whenever
// it has come to the end, and waits for more records until ctx ends.
//
// A position that is no longer kept means the oldest record. One that has not
// come yet is the end; who follows gets nothing that is before it. Read returns
// the error of fn, which ends it, that of ctx, or ErrClosed.
//
// Damage is passed over; [Log.ReadOver] also tells of it.
func (l *Log) Read(ctx context.Context, partition int, from Position, atEnd func(), fn func(Record) error) error {
	return l.ReadOver(ctx, partition, from, atEnd, func(Damage) error { return nil }, fn)
}

// ReadOver is [Log.Read], and calls damaged where it passes over damage, between
// the records before and behind it. Whose records were there is not known.
func (l *Log) ReadOver(ctx context.Context, partition int, from Position, atEnd func(), damaged func(Damage) error, fn func(Record) error) error {
	if partition != All && (partition < 0 || partition >= l.partitions) {
		return noPartition(partition)
	}
	l.settle(ctx)
	limit := l.end()
	if from.End {
		from.Offset = max(from.Offset, limit)
	}
	if atEnd != nil {
		limit = math.MaxInt64
	}
	r := reader{log: l, at: -1}
	defer r.close()
	for {
		s, end, grown, err := l.find(partition, from)
		switch {
		case atEnd == nil && (err != nil || grown != nil || max(s.base, from.Offset) >= limit):
			return nil
		case err != nil:
			return err
		case grown != nil:
			if partition != All {
				// The segment may be dropped long before this partition grows.
				r.close()
			}
			atEnd()
			select {
			case <-grown:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		end = min(end, limit)
		err = r.read(ctx, s, end, partition, from, damaged, fn)
		switch {
		case errors.Is(err, fs.ErrNotExist): // dropped since; find goes on behind it
		case err != nil:
			return err
		}
		from.Offset = end
	}
}

// end returns the offset of the next record.
func (l *Log) end() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.segments[len(l.segments)-1]
	return last.base + last.size
}

// find returns the first segment that may hold records of the partition at from
// or behind it, and where its last such record ends, or what is closed once
// there may be one.
func (l *Log) find(partition int, from Position) (_ segment, end int64, grown <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.segments {
		end := s.base + s.size
		if partition != All {
			next := l.numbersBehind(i)[partition]
			if next == s.sequences[partition] || next <= from.Sequence {
				continue
			}
			end = min(end, l.tails[partition].end)
		}
		if max(from.Offset, s.base) < end && !time.Unix(0, s.newest).Before(from.Time) {
			return s, end, nil, nil
		}
	}
	if l.closed {
		return segment{}, 0, nil, ErrClosed
	}
	c := l.grown[partition]
	if c == nil {
		c = make(chan struct{})
		l.grown[partition] = c
	}
	return segment{}, 0, c, nil
}

// numbersBehind returns the number of the first record of each partition behind
// the segment i, or a higher one. The caller holds l.mu.
func (l *Log) numbersBehind(i int) []int64 {
	for _, s := range l.segments[i+1:] {
		if !s.headless {
			return s.sequences
		}
	}
	list := make([]int64, len(l.tails))
	for p, t := range l.tails {
		list[p] = t.next
	}
	return list
}

// A reader reads one segment after the other.
type reader struct {
	log  *Log
	file vfs.File
	base int64 // of the segment in file
	at   int64 // offset where the next record starts; -1 before the first is known
	scan *frame.Scanner
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file, r.scan = nil, nil // who waits at the end holds no buffer
	}
}

// An offsetReader reads a file by the offsets of the log.
type offsetReader struct {
	file  vfs.File
	shift int64
}

func (r offsetReader) ReadAt(p []byte, offset int64) (int, error) {
	return r.file.ReadAt(p, offset+r.shift)
}

// open makes the records of the segment up to end the next ones: from at, if
// that lies there, or else all.
func (r *reader) open(s segment, end int64) error {
	if r.file != nil && r.base == s.base {
		r.scan.Extend(end)
		return nil
	}
	r.close()
	f, err := r.log.fs.Open(r.log.path(s.base))
	if err != nil {
		return err
	}
	r.file, r.base = f, s.base
	if r.at < s.base || r.at > end {
		r.at = s.base
	}
	r.scan = s.format().Scan(offsetReader{f, s.header - s.base}, r.at, end, func(h []byte) bool {
		p, sequence := binary.LittleEndian.Uint32(h[8:]), int64(binary.LittleEndian.Uint64(h[20:]))
		return p < uint32(len(s.sequences)) && sequence >= s.sequences[p]
	})
	return nil
}

// record returns the record that the scan has found.
func (r *reader) record() Record {
	h := r.scan.Header
	return Record{
		Offset:    r.scan.Offset,
		Partition: int(binary.LittleEndian.Uint32(h[8:])),
		Sequence:  int64(binary.LittleEndian.Uint64(h[20:])),
		Time:      time.Unix(0, int64(binary.LittleEndian.Uint64(h[12:]))),
		Data:      r.scan.Data,
	}
}

// read calls fn for the records of the segment that Read is to find before end.
func (r *reader) read(ctx context.Context, s segment, end int64, partition int, from Position, damaged func(Damage) error, fn func(Record) error) error {
	if err := r.open(s, end); err != nil {
		return fmt.Errorf("read event log: %w", err)
	}
	tell := func(offset, bytes int64) error {
		if bytes == 0 {
			return nil
		}
		d := Damage{offset, bytes}
		r.log.met(s.base, d)
		if offset+bytes <= from.Offset {
			return nil
		}
		return damaged(d)
	}
	for r.scan.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec := r.record()
		r.at = rec.next()
		if rec.Offset < r.log.cleared.Load() {
			continue
		}
		if err := tell(rec.Offset-r.scan.Damaged, r.scan.Damaged); err != nil {
			return err
		}
		if partition != All && rec.Partition != partition || from.excludes(rec) {
			continue
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
	if err := r.scan.Err(); err != nil {
		return fmt.Errorf("read event log: %w", err)
	}
	r.at = end
	defer r.scan.SkipTo(end)
	return tell(r.scan.End(), end-r.scan.End())
}

// next returns the offset behind r.
func (r Record) next() int64 { return r.Offset + recordHeader + int64(len(r.Data)) }
