package eventlog

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
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
	End      bool      // behind all that are durable when Read is called
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
	b = Bounds{First: l.segments[0].sequences[partition], Next: t.next, LastOffset: -1}
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
// was when Read was called. If atEnd is not nil, Read instead calls it whenever
// it has come to the end, and waits for more records until ctx ends.
//
// A position that is no longer kept means the oldest record. One that has not
// come yet is the end; who follows gets nothing that is before it. Read returns
// the error of fn, which ends it, that of ctx, or ErrClosed.
func (l *Log) Read(ctx context.Context, partition int, from Position, atEnd func(), fn func(Record) error) error {
	if partition != All && (partition < 0 || partition >= l.partitions) {
		return noPartition(partition)
	}
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
		base, end, grown, err := l.find(partition, from)
		switch {
		case atEnd == nil && (err != nil || grown != nil || max(base, from.Offset) >= limit):
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
		err = r.read(ctx, base, end, partition, from, fn)
		switch {
		case errors.Is(err, errDamaged):
			l.logger.Warn("a segment of the event log is damaged; its rest is skipped", "offset", r.at)
			l.count(func(s *Stats) { s.Damaged++ })
			r.at = end
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

// find returns the base of the first segment that may hold records of the
// partition at from or behind it, and where its last such record ends, or what
// is closed once there may be one.
func (l *Log) find(partition int, from Position) (base, end int64, grown <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.segments {
		end := s.base + s.size
		if partition != All {
			next := l.tails[partition].next // number of the first record behind s
			if i+1 < len(l.segments) {
				next = l.segments[i+1].sequences[partition]
			}
			if next == s.sequences[partition] || next <= from.Sequence {
				continue
			}
			end = min(end, l.tails[partition].end)
		}
		if max(from.Offset, s.base) < end && !time.Unix(0, s.newest).Before(from.Time) {
			return s.base, end, nil, nil
		}
	}
	if l.closed {
		return 0, 0, nil, ErrClosed
	}
	c := l.grown[partition]
	if c == nil {
		c = make(chan struct{})
		l.grown[partition] = c
	}
	return 0, 0, c, nil
}

const readBuffer = 64 << 10

// A reader reads one segment after the other.
type reader struct {
	log  *Log
	file vfs.File
	base int64 // of the segment in file
	at   int64 // offset where the next record starts; -1 before the first is known
	r    *bufio.Reader
	h    [recordHeader]byte
	buf  []byte
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// open makes the records of the segment at base up to end the next ones: from
// at, if that lies there, or else all.
func (r *reader) open(base, end int64) error {
	if r.file == nil || r.base != base {
		r.close()
		f, err := r.log.fs.Open(r.log.path(base))
		if err != nil {
			return err
		}
		r.file, r.base = f, base
	}
	if r.at < base || r.at > end {
		r.at = base
	}
	section := io.NewSectionReader(r.file, headerSize(r.log.partitions)+r.at-base, end-r.at)
	if r.r == nil {
		r.r = bufio.NewReaderSize(section, readBuffer)
	} else {
		r.r.Reset(section)
	}
	return nil
}

// read calls fn for the records of the segment at base that Read is to find
// before end. Others are passed over unchecked: damage to them ends the segment
// for this reader once it meets a record of its own that is not where it should
// be.
func (r *reader) read(ctx context.Context, base, end int64, partition int, from Position, fn func(Record) error) error {
	if err := r.open(base, end); err != nil {
		return fmt.Errorf("read event log: %w", err)
	}
	for r.at < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, size, err := r.next()
		skip := partition != All && rec.Partition != partition || from.excludes(rec)
		switch {
		case err != nil:
		case skip:
			err = r.skip(size)
		default:
			err = r.data(&rec, size)
		}
		if err == io.EOF {
			return errDamaged // the file is shorter than it was
		}
		if err != nil {
			return fmt.Errorf("read event log: %w", err)
		}
		r.at += recordHeader + int64(size)
		if skip {
			continue
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
	return nil
}

// next reads what stands before the data of a record, and returns the size of
// that. io.EOF is the end between two records.
func (r *reader) next() (rec Record, size int, err error) {
	if _, err := io.ReadFull(r.r, r.h[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			err = errDamaged
		}
		return Record{}, 0, err
	}
	n := binary.LittleEndian.Uint32(r.h[4:])
	partition := binary.LittleEndian.Uint32(r.h[8:])
	if n > MaxRecord || partition >= uint32(r.log.partitions) {
		return Record{}, 0, errDamaged
	}
	return Record{
		Offset:    r.at,
		Partition: int(partition),
		Sequence:  int64(binary.LittleEndian.Uint64(r.h[20:])),
		Time:      time.Unix(0, int64(binary.LittleEndian.Uint64(r.h[12:]))),
	}, int(n), nil
}

// data reads the data of the record that next found, and checks all of it.
func (r *reader) data(rec *Record, size int) error {
	r.buf = slices.Grow(r.buf[:0], size)[:size]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		if err == io.ErrUnexpectedEOF || err == io.EOF {
			err = errDamaged
		}
		return err
	}
	sum := crc32.Update(crc32.Checksum(r.h[4:], castagnoli), castagnoli, r.buf)
	if sum != binary.LittleEndian.Uint32(r.h[:]) {
		return errDamaged
	}
	rec.Data = r.buf
	return nil
}

// skip passes over the data of the record that next found.
func (r *reader) skip(size int) error {
	_, err := r.r.Discard(size)
	if err == io.EOF {
		err = errDamaged
	}
	return err
}

// next returns the offset behind r.
func (r Record) next() int64 { return r.Offset + recordHeader + int64(len(r.Data)) }
