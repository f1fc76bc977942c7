package eventlog

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A segment is a file of the log: a header, then records. It is named after
// the offset of its first record, and an offset counts the bytes of records
// before it. All that a segment holds from size on was never acknowledged.
type segment struct {
	base      int64             // offset of the first record
	size      int64             // bytes of durable records
	created   int64             // Unix nanoseconds; no record is older
	newest    int64             // of the last record, or later
	sequences [Partitions]int64 // number of the next record of each partition, at base
}

// A segment header is, all numbers little endian:
//
//	magic      8 bytes
//	created    uint64
//	sequences  Partitions times uint64
//	checksum   uint32, CRC-32C of what stands before it
const (
	segmentMagic  = "iotdmev1"
	segmentHeader = 8 + 8 + Partitions*8 + 4
	segmentSuffix = ".events"
)

// A record is, all numbers little endian:
//
//	checksum   uint32, CRC-32C of what follows
//	size       uint32, of data
//	partition  uint32
//	time       uint64, Unix nanoseconds
//	sequence   uint64
//	data       size bytes
const recordHeader = 4 + 4 + 4 + 8 + 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("damaged")

// appendRecord appends a record without its sequence and checksum.
func appendRecord(b []byte, partition uint32, time int64, data []byte) []byte {
	var h [recordHeader]byte
	binary.LittleEndian.PutUint32(h[4:], uint32(len(data)))
	binary.LittleEndian.PutUint32(h[8:], partition)
	binary.LittleEndian.PutUint64(h[12:], uint64(time))
	b = append(b, h[:]...)
	return append(b, data...)
}

// seal gives the records in b their sequences and checksums.
func (l *Log) seal(b []byte) {
	for len(b) > 0 {
		end := recordHeader + int(binary.LittleEndian.Uint32(b[4:]))
		sequence := &l.sequences[binary.LittleEndian.Uint32(b[8:])]
		binary.LittleEndian.PutUint64(b[20:], uint64(*sequence))
		*sequence++
		binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:end], castagnoli))
		b = b[end:]
	}
}

// nextRecord reads the record that starts at offset. Its data is read into
// buf, grown as needed, which is returned. io.EOF is the end of r between two
// records.
func nextRecord(r *bufio.Reader, offset int64, buf []byte) (Record, []byte, error) {
	var h [recordHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			err = errDamaged
		}
		return Record{}, buf, err
	}
	size := binary.LittleEndian.Uint32(h[4:])
	partition := binary.LittleEndian.Uint32(h[8:])
	if size > MaxRecord || partition >= Partitions {
		return Record{}, buf, errDamaged
	}
	buf = slices.Grow(buf[:0], int(size))[:size]
	if _, err := io.ReadFull(r, buf); err != nil {
		if err == io.ErrUnexpectedEOF || err == io.EOF {
			err = errDamaged
		}
		return Record{}, buf, err
	}
	sum := crc32.Update(crc32.Checksum(h[4:], castagnoli), castagnoli, buf)
	if sum != binary.LittleEndian.Uint32(h[:]) {
		return Record{}, buf, errDamaged
	}
	return Record{
		Offset:    offset,
		Partition: int(partition),
		Sequence:  int64(binary.LittleEndian.Uint64(h[20:])),
		Time:      time.Unix(0, int64(binary.LittleEndian.Uint64(h[12:]))),
		Data:      buf,
	}, buf, nil
}

func (l *Log) path(base int64) string {
	return l.fs.PathJoin(l.dir, fmt.Sprintf("%020d%s", base, segmentSuffix))
}

// roll makes sure that there is an active segment with room.
func (l *Log) roll() error {
	if l.active != nil {
		last := l.segments[len(l.segments)-1]
		old := l.now().UnixNano()-last.created > int64(l.maxAge)/segmentsPerLog
		if last.size < l.segmentBytes && !old {
			return nil
		}
		l.closeActive()
	}
	now := l.now().UnixNano()
	s := segment{created: now, newest: now, sequences: l.sequences}
	keep := len(l.segments)
	if keep > 0 {
		last := l.segments[keep-1]
		s.base = last.base + last.size
		if last.size == 0 {
			keep-- // the new one takes its place
		}
	}
	f, err := l.createSegment(s)
	if err != nil {
		return err
	}
	l.active = f
	l.mu.Lock()
	l.segments = append(l.segments[:keep], s)
	l.mu.Unlock()
	l.trim()
	return nil
}

// createSegment writes the header of s and makes the file durable.
func (l *Log) createSegment(s segment) (vfs.File, error) {
	h := make([]byte, 0, segmentHeader)
	h = append(h, segmentMagic...)
	h = binary.LittleEndian.AppendUint64(h, uint64(s.created))
	for _, n := range s.sequences {
		h = binary.LittleEndian.AppendUint64(h, uint64(n))
	}
	h = binary.LittleEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
	f, err := l.fs.Create(l.path(s.base), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(h)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.syncDir(l.dir)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// syncDir makes the creation of a file in dir durable.
func (l *Log) syncDir(dir string) error {
	d, err := l.fs.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// retire starts a new segment if all of the last is too old, so that trim can
// drop it.
func (l *Log) retire() error {
	n := len(l.segments)
	if n == 0 || l.segments[n-1].size == 0 || !l.tooOld(l.segments[n-1]) {
		return nil
	}
	l.closeActive()
	return l.roll()
}

func (l *Log) tooOld(s segment) bool {
	return s.newest < l.now().Add(-l.maxAge).UnixNano()
}

// trim drops segments that are too old or too many, but never the last: its
// place in the row is where the next one starts.
func (l *Log) trim() {
	var total int64
	for _, s := range l.segments {
		total += s.size
	}
	n := 0
	for ; n < len(l.segments)-1; n++ {
		s := l.segments[n]
		if total <= l.maxBytes-l.segmentBytes && !l.tooOld(s) {
			break
		}
		// A file that cannot be removed now, such as one that is being read on
		// Windows, is found again when the log is opened.
		if err := l.fs.Remove(l.path(s.base)); err != nil {
			l.logger.Debug("removing a segment of the event log", "err", err)
		}
		total -= s.size
	}
	if n > 0 {
		l.mu.Lock()
		l.segments = slices.Clone(l.segments[n:])
		l.mu.Unlock()
	}
}

// recover finds the segments in the folder.
func (l *Log) recover() error {
	if err := l.fs.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	if err := l.syncDir(l.fs.PathDir(l.dir)); err != nil {
		return err
	}
	names, err := l.fs.List(l.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, segmentSuffix)
		base, err := strconv.ParseInt(digits, 10, 64)
		if !ok || err != nil {
			continue
		}
		s, err := l.openSegment(base)
		if errors.Is(err, errDamaged) {
			// A crash before the header was durable leaves such a file;
			// nothing in it was acknowledged.
			l.logger.Warn("a segment of the event log has no valid header", "segment", name)
			continue
		}
		if err != nil {
			return err
		}
		l.segments = append(l.segments, s)
	}
	slices.SortFunc(l.segments, func(a, b segment) int { return cmp.Compare(a.base, b.base) })
	for i := range l.segments {
		s := &l.segments[i]
		if i+1 < len(l.segments) {
			s.size = min(s.size, l.segments[i+1].base-s.base)
			s.newest = l.segments[i+1].created
			continue
		}
		if err := l.findEnd(s); err != nil {
			return err
		}
		l.lastTime = s.newest
	}
	return nil
}

// openSegment reads the header of a segment.
func (l *Log) openSegment(base int64) (segment, error) {
	f, err := l.fs.Open(l.path(base))
	if err != nil {
		return segment{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return segment{}, err
	}
	var h [segmentHeader]byte
	if _, err := io.ReadFull(f, h[:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return segment{}, errDamaged
	} else if err != nil {
		return segment{}, err
	}
	end := len(h) - 4
	if string(h[:8]) != segmentMagic || crc32.Checksum(h[:end], castagnoli) != binary.LittleEndian.Uint32(h[end:]) {
		return segment{}, errDamaged
	}
	s := segment{base: base, size: info.Size() - segmentHeader, created: int64(binary.LittleEndian.Uint64(h[8:]))}
	for i := range s.sequences {
		s.sequences[i] = int64(binary.LittleEndian.Uint64(h[16+8*i:]))
	}
	return s, nil
}

// findEnd finds where the valid records of the last segment end: a crash may
// have cut the last batch, of which nothing was acknowledged.
func (l *Log) findEnd(s *segment) error {
	f, err := l.fs.Open(l.path(s.base))
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(io.NewSectionReader(f, segmentHeader, s.size), readBuffer)
	l.sequences = s.sequences
	s.newest = s.created
	var end int64
	var buf []byte
	for {
		var rec Record
		rec, buf, err = nextRecord(r, s.base+end, buf)
		if err == io.EOF {
			break
		}
		if errors.Is(err, errDamaged) {
			l.logger.Warn("the event log ends with a batch that was not completely written", "bytes", s.size-end)
			break
		}
		if err != nil {
			return err
		}
		end += recordHeader + int64(len(rec.Data))
		l.sequences[rec.Partition] = rec.Sequence + 1
		s.newest = rec.Time.UnixNano()
	}
	s.size = end
	return nil
}
