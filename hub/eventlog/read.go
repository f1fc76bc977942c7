package eventlog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A Record is what Read finds.
type Record struct {
	Offset    int64 // orders the records of the whole log
	Partition int
	Sequence  int64     // numbers the records of a partition, from 0
	Time      time.Time // when it was appended
	Data      []byte    // valid only until fn returns
}

// Next returns the offset at which reading goes on behind r.
func (r Record) Next() int64 { return r.Offset + recordHeader + int64(len(r.Data)) }

const readBuffer = 256 << 10

// Bounds returns the offset of the first record that is kept and the one that
// the next record will have.
func (l *Log) Bounds() (first, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segments) == 0 {
		return 0, 0
	}
	last := l.segments[len(l.segments)-1]
	return l.segments[0].base, last.base + last.size
}

// Before returns an offset such that every record of time t or later is there
// or behind it. Some older ones may be, too.
func (l *Log) Before(t time.Time) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		if s.newest >= t.UnixNano() {
			return s.base
		}
	}
	if n := len(l.segments); n > 0 {
		return l.segments[n-1].base + l.segments[n-1].size
	}
	return 0
}

// Read calls fn for each durable record at offset from or behind it, in order;
// an offset that is no longer kept means the oldest record. It returns at the
// end of the log as it was when Read was called. If atEnd is not nil, Read
// instead calls it whenever it has come to the end, and waits for more records
// until ctx ends. It returns the error of fn, which ends it, that of ctx, or
// ErrClosed.
func (l *Log) Read(ctx context.Context, from int64, atEnd func(), fn func(Record) error) error {
	_, limit := l.Bounds()
	follow := atEnd != nil
	var r reader
	defer r.close()
	for follow || from < limit {
		s, grown, err := l.find(from)
		switch {
		case err != nil:
			return err
		case grown != nil:
			atEnd()
			select {
			case <-grown:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		from = max(from, s.base)
		end := s.base + s.size
		if !follow {
			end = min(end, limit)
		}
		err = r.read(ctx, l, s.base, from, end, fn)
		switch {
		case errors.Is(err, errDamaged):
			l.logger.Warn("a segment of the event log is damaged; its rest is skipped", "offset", r.at)
			r.at = end
		case errors.Is(err, fs.ErrNotExist): // dropped since; find starts behind it
		case err != nil:
			return err
		}
		from = end
	}
	return nil
}

// find returns the segment with durable records at or behind offset, or what
// is closed once there may be one.
func (l *Log) find(offset int64) (segment, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		if offset < s.base+s.size {
			return s, nil, nil
		}
	}
	if l.closed {
		return segment{}, nil, ErrClosed
	}
	if l.grown == nil {
		l.grown = make(chan struct{})
	}
	return segment{}, l.grown, nil
}

// A reader reads one segment after the other.
type reader struct {
	file vfs.File
	base int64 // of the segment in file
	at   int64 // offset where the next record starts
	r    *bufio.Reader
	buf  []byte
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// read calls fn for the records of the segment at base from from to end. The
// log ends at a record's end, from may lie within one.
func (r *reader) read(ctx context.Context, l *Log, base, from, end int64, fn func(Record) error) error {
	if r.file == nil || r.base != base {
		r.close()
		f, err := l.fs.Open(l.path(base))
		if err != nil {
			return fmt.Errorf("read event log: %w", err)
		}
		r.file, r.base, r.at = f, base, base
	}
	section := io.NewSectionReader(r.file, segmentHeader+r.at-base, end-r.at)
	if r.r == nil {
		r.r = bufio.NewReaderSize(section, readBuffer)
	} else {
		r.r.Reset(section)
	}
	for r.at < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, buf, err := nextRecord(r.r, r.at, r.buf)
		r.buf = buf
		if err == io.EOF {
			return errDamaged // the file is shorter than it was
		}
		if err != nil {
			return fmt.Errorf("read event log: %w", err)
		}
		r.at = rec.Next()
		if rec.Offset < from {
			continue
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
	return nil
}
