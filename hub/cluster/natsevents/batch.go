package natsevents

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A message is a byte that says its form, and its records, each with its length
// in front, or those compressed.
const (
	plain      = 1
	compressed = 2
)

const (
	// perBatch is how many records a batch may have: the place in it is what is
	// behind 4096 times the place of the message.
	perBatch = 4096

	// maxBatch is the size in bytes at which a batch takes no more records.
	maxBatch = 512 << 10

	// overhead is room in a message for its headers and the frame of one record.
	overhead = 4 << 10
)

// full reports whether another record of n bytes has to wait for the next batch.
func full(b []byte, records, n int) bool {
	return records == perBatch || records > 0 && len(b)+n > maxBatch
}

func appendRecord(b, data []byte) []byte {
	if len(b) == 0 {
		b = append(b, plain)
	}
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}

var errDamaged = errors.New("the message is no batch of events")

// records calls fn with each record of a message and its place therein. The slices
// are valid until it returns.
func (p *packer) records(message []byte, fn func(i int64, data []byte) error) error {
	b, err := p.unpack(message)
	if err != nil {
		return err
	}
	for i := int64(0); len(b) > 0; i++ {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) || i == perBatch {
			return errDamaged
		}
		b = b[n:]
		if err := fn(i, b[:size:size]); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// minPacked is the size in bytes from which a batch is compressed: telemetry takes
// a tenth to a third of the network and the disks then.
const minPacked = 2 << 10

var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false), zstd.WithWindowSize(maxBatch))
		if err != nil {
			panic(err) // of options that are wrong
		}
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxUnpacked))
		if err != nil {
			panic(err) // of options that are wrong
		}
		return d
	})
)

// maxUnpacked bounds what a message may be when it is unpacked.
const maxUnpacked = 8 << 20

// A packer has the buffer of what was packed or unpacked last.
type packer struct{ buf []byte }

// pack returns what is sent of a batch. It is valid until the next call.
func (p *packer) pack(b []byte) []byte {
	if len(b) < minPacked {
		return b
	}
	p.buf = encoder().EncodeAll(b[1:], append(p.buf[:0], compressed))
	if len(p.buf) >= len(b) {
		return b
	}
	return p.buf
}

// unpack returns the records of a message, each with its length in front. They are
// valid until the next call.
func (p *packer) unpack(b []byte) (records []byte, err error) {
	switch {
	case len(b) > 0 && b[0] == plain:
		return b[1:], nil
	case len(b) > 0 && b[0] == compressed:
		if p.buf, err = decoder().DecodeAll(b[1:], p.buf[:0]); err == nil {
			return p.buf, nil
		}
	}
	return nil, errDamaged
}

// count returns how many records a message has that can be read.
func count(message []byte) (n int64) {
	_ = new(packer).records(message, func(int64, []byte) error { n++; return nil })
	return n
}
