package outbox

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	frame "github.com/iotdm/iotdm/internal/segment"
)

// A segment is a file of records, named after the number of its first. It
// ends where the next segment begins, whatever else is in the file.
type segment struct {
	base uint64
	size int64 // bytes of durable records
}

const segmentSuffix = ".messages"

// A record is, all numbers little endian:
//
//	checksum  uint32, CRC-32C of what follows
//	size      uint32, of data
//	sequence  uint64, one more than that of the record before
//	data      size bytes, a message
const recordHeader = 4 + 4 + 8

// maxRecord bounds the data of a record: the largest message, as encodeMessage
// writes it, has a third of this.
const maxRecord = 1 << 20

var format = frame.Format{Header: recordHeader, MaxData: maxRecord}

var castagnoli = crc32.MakeTable(crc32.Castagnoli) // of the state file

var errDamaged = errors.New("damaged")

// appendRecord appends a record without its sequence and checksum.
func appendRecord(b, data []byte) []byte {
	var h [recordHeader]byte
	return format.Append(b, h[:], data)
}

// seal gives the records in b their sequences, from first on, and checksums.
func seal(b []byte, first uint64) {
	for len(b) > 0 {
		size := format.Size(b)
		binary.LittleEndian.PutUint64(b[8:], first)
		format.Seal(b[:size])
		first++
		b = b[size:]
	}
}

func sequenceOf(header []byte) uint64 { return binary.LittleEndian.Uint64(header[8:]) }

func (b *Box) path(base uint64) string {
	return filepath.Join(b.dir, fmt.Sprintf("%020d%s", base, segmentSuffix))
}

// recover finds what is in the folder.
func (b *Box) recover() error {
	counts, found, err := b.state.open(filepath.Join(b.dir, "state"), b.sync)
	if err != nil {
		return err
	}
	if err := b.findSegments(); err != nil {
		return err
	}
	b.first, b.sent, b.dropped, b.damaged = counts.first, counts.sent, counts.dropped, counts.damaged
	if len(b.segments) == 0 {
		b.end = b.first
		return b.storeState(true)
	}
	oldest := b.segments[0].base
	switch {
	case !found:
		b.logger.Warn("the outbox does not know any more what was sent; it sends all it has", logOutbox, b.dir)
		b.first = oldest
	case b.first < oldest:
		b.logger.Warn("messages are missing in the outbox", logOutbox, b.dir, logCount, oldest-b.first)
		b.damaged += oldest - b.first
		b.first = oldest
	}
	if err := b.openLast(); err != nil {
		return err
	}
	b.skipped = b.first
	if b.first > b.end {
		// The last messages were sent, and are not there any more.
		b.end = b.first
		b.closeActive()
		b.broken = true
	}
	if err := b.storeState(true); err != nil {
		return err
	}
	for len(b.segments) > 1 && b.segments[1].base <= b.first {
		b.remove(b.segments[:1])
		b.segments = b.segments[1:]
	}
	return nil
}

// findSegments lists the segments, whose contents only the reader checks.
func (b *Box) findSegments() error {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		base, err := strconv.ParseUint(digits, 10, 64)
		if !ok || err != nil || filepath.Base(b.path(base)) != e.Name() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		b.segments = append(b.segments, segment{base, info.Size()})
	}
	slices.SortFunc(b.segments, func(x, y segment) int { return cmp.Compare(x.base, y.base) })
	return nil
}

// openLast finds where the valid records of the last segment end, cuts off
// what a crash left behind them, of which nothing was acknowledged, and makes
// it the active one.
func (b *Box) openLast() error {
	last := &b.segments[len(b.segments)-1]
	f, err := os.OpenFile(b.path(last.base), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b.active = f
	content := make([]byte, last.size)
	n, err := f.ReadAt(content, 0)
	if int64(n) < last.size {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	b.end = last.base
	beyond := last.base + uint64(len(content)/recordHeader)
	scan := format.Scan(bytes.NewReader(content), 0, last.size, func(h []byte) bool {
		sequence := sequenceOf(h)
		return sequence >= b.end && sequence < beyond
	})
	for scan.Next() {
		b.end = sequenceOf(scan.Header) + 1 // the reader tells of damage before it
	}
	rest := last.size - scan.End()
	if rest == 0 {
		return nil
	}
	b.logger.Warn("the outbox ends with messages that were not completely written", logOutbox, b.dir, logBytes, rest)
	last.size -= rest
	if err := f.Truncate(last.size); err != nil {
		return err
	}
	return b.sync(f)
}
