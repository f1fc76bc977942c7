package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

	frame "github.com/iotdm/iotdm/internal/segment"
	"github.com/iotdm/iotdm/mqttdevice"
)

// A reader reads the messages in their order, from the oldest one on. It
// keeps no file open, so that segments can be removed on every system.
type reader struct {
	b    *Box
	next uint64         // the message to return next
	at   uint64         // the message that scan finds next, unless it is damaged
	base uint64         // of the segment scan is of
	off  int64          // where scan ends in it
	end  uint64         // the message that follows scan
	scan *frame.Scanner // of what was read; nil if there is nothing left
}

func (b *Box) reader() *reader { return &reader{b: b} }

// read returns the next message, and its number. It waits for one until ctx
// ends or the outbox is closed.
func (r *reader) read(ctx context.Context) (m mqttdevice.Message, sequence uint64, err error) {
	for {
		if err := r.fill(ctx); err != nil {
			return m, 0, err
		}
		if !r.scan.Next() { // nothing more can be found
			r.pass(r.end)
			r.scan = nil
			continue
		}
		sequence = sequenceOf(r.scan.Header)
		r.pass(sequence)
		r.at = sequence + 1
		if r.at <= r.next {
			continue
		}
		r.next = r.at
		if m, err = decodeMessage(r.scan.Data); err == nil {
			err = m.Validate()
		}
		if err == nil {
			return m, sequence, nil
		}
		r.b.skip(sequence, r.at)
	}
}

// pass goes on at the message sequence: those before it cannot be read.
func (r *reader) pass(sequence uint64) {
	if sequence > r.next {
		r.b.skip(max(r.at, r.next), sequence)
		r.next = sequence
	}
	r.at = sequence
}

// fill waits until there is a message to read and makes scan begin with one.
func (r *reader) fill(ctx context.Context) error {
	for {
		s, end, err := r.await(ctx)
		if err != nil {
			return err
		}
		if s.base != r.base {
			r.base, r.at, r.off, r.scan = s.base, s.base, 0, nil
		}
		if r.scan != nil && r.at < r.end {
			return nil
		}
		content, err := readSegment(r.b.path(s.base), r.off, s.size)
		if err != nil {
			return fmt.Errorf("outbox %s: %w", r.b.dir, err)
		}
		r.off, r.end = s.size, end
		if len(content) > 0 {
			r.scan = format.Scan(bytes.NewReader(content), 0, int64(len(content)), func(h []byte) bool {
				sequence := sequenceOf(h)
				return sequence >= r.at && sequence < r.end
			})
			return nil
		}
		// The file is shorter than it was, or gone.
		r.b.skip(r.next, end)
		r.next, r.at = end, end
	}
}

// await waits until the outbox has the message next, or a newer one if that
// was dropped, and returns the segment it is in and the message that follows it.
func (r *reader) await(ctx context.Context) (s segment, end uint64, err error) {
	b := r.b
	for {
		b.mu.Lock()
		r.next = max(r.next, b.first)
		switch {
		case b.closed:
			b.mu.Unlock()
			return s, 0, ErrClosed
		case r.next < b.end:
			defer b.mu.Unlock()
			i := sort.Search(len(b.segments), func(i int) bool { return b.segments[i].base > r.next })
			end = b.end
			if i < len(b.segments) {
				end = b.segments[i].base
			}
			return b.segments[i-1], end, nil
		}
		if b.grown == nil {
			b.grown = make(chan struct{})
		}
		grown := b.grown
		b.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return s, 0, context.Cause(ctx)
		}
	}
}

// readSegment returns what a file has from off to size; nothing if it is gone.
func readSegment(path string, off, size int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	content := make([]byte, max(size-off, 0))
	n, err := f.ReadAt(content, off)
	if err == io.EOF {
		err = nil
	}
	return content[:n], err
}

// A hole is a range of messages that cannot be read.
type hole struct{ first, end uint64 }

// skip notes that the messages from first up to end cannot be read.
func (b *Box) skip(first, end uint64) {
	b.mu.Lock()
	first = max(first, b.skipped, b.first) // what was dropped meanwhile is no damage
	if end <= first {
		b.mu.Unlock()
		return
	}
	b.damaged += end - first
	b.skipped = end
	b.holes = append(b.holes, hole{first, end})
	b.mu.Unlock()
	b.logger.Warn("messages in the outbox are damaged and cannot be sent", logOutbox, b.dir, logCount, end-first)
	b.acknowledged(0, 0) // they may be the oldest
}
