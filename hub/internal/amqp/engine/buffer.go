package engine

import (
	"fmt"
	"io"
	"sync"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// A frameBuffer cuts a byte stream into frames. While it is empty it holds
// nothing but its own few bytes: a large buffer is borrowed when a frame needs
// it, and grows as bytes arrive, whatever size the peer announces.
type frameBuffer struct {
	small      [64]byte
	large      []byte // nil, or what small was too small for
	start, end int    // what was read and not yet taken
}

// bufferSize is that of pooled buffers, and of the record that TLS makes of one.
const bufferSize = 16 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// freeBuffer gives back a buffer, if it is one of the pool.
func freeBuffer(b []byte) {
	if cap(b) == bufferSize {
		buffers.Put((*[bufferSize]byte)(b[:bufferSize]))
	}
}

func (b *frameBuffer) bytes() []byte {
	if b.large != nil {
		return b.large
	}
	return b.small[:]
}

// take returns the next n bytes, valid until the next fill, or nil if they have
// not all come.
func (b *frameBuffer) take(n int) []byte {
	if b.end-b.start < n {
		return nil
	}
	b.start += n
	return b.bytes()[b.start-n : b.start]
}

// frame is take for the next frame. It is an error if that is longer than limit.
func (b *frameBuffer) frame(limit int) ([]byte, error) {
	size, err := b.size(limit)
	if err != nil || size == 0 {
		return nil, err
	}
	return b.take(size), nil
}

// size returns that of the next frame, or 0 while it is not known.
func (b *frameBuffer) size(limit int) (int, error) {
	if b.end-b.start < 4 {
		return 0, nil
	}
	size := wire.FrameSize(b.bytes()[b.start:b.end])
	if size < wire.FrameHeader || uint64(size) > uint64(limit) {
		return 0, fmt.Errorf("a frame of %d bytes", size)
	}
	return int(size), nil
}

// fill reads once from r, waiting if nothing has come. What has come of the
// frame that has begun fits within limit.
func (b *frameBuffer) fill(r io.Reader, limit int) error {
	if b.start == b.end {
		b.release()
	} else if b.end == len(b.bytes()) {
		b.makeRoom(limit)
	}
	n, err := r.Read(b.bytes()[b.end:])
	b.end += n
	if n > 0 {
		return nil
	}
	return err
}

// discard forgets what was read.
func (b *frameBuffer) discard() { b.start = b.end }

// release gives back the large buffer.
func (b *frameBuffer) release() {
	freeBuffer(b.large)
	b.large, b.start, b.end = nil, 0, 0
}

// makeRoom moves the frame that has begun to the front of a buffer in which it
// fits, or in which eight times what has arrived of it does.
func (b *frameBuffer) makeRoom(limit int) {
	old := b.bytes()[b.start:b.end]
	size, _ := b.size(limit)
	if need := min(size, 8*len(old)); need > bufferSize {
		next := make([]byte, need)
		kept := copy(next, old)
		freeBuffer(b.large)
		b.large, b.start, b.end = next, 0, kept
		return
	}
	next := b.large // old and next may overlap, which copy allows
	if len(next) != bufferSize {
		next = buffers.Get().(*[bufferSize]byte)[:]
	}
	b.large, b.start, b.end = next, 0, copy(next, old)
}
