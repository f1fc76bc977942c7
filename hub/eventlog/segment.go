package eventlog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A segment is a file of the log: a header, then records. It is named after
// the offset of its first record, and an offset counts the bytes of records
// before it. All that a segment holds from size on was never acknowledged.
type segment struct {
	base      int64   // offset of the first record
	size      int64   // bytes of durable records
	created   int64   // Unix nanoseconds; no record of an older segment is newer
	newest    int64   // of the last record, or later
	sequences []int64 // number of the next record of each partition, at base; never changed
}

const segmentSuffix = ".events"

// A segment header is, all numbers little endian:
//
//	magic      8 bytes, that of the number of partitions
//	created    uint64
//	sequences  uint64 for each partition
//	checksum   uint32, CRC-32C of what stands before it
func headerSize(partitions int) int64 { return 8 + 8 + 8*int64(partitions) + 4 }

// magic tells the number of partitions. 4 was the only one at first.
func magic(partitions int) string {
	if partitions == 4 {
		return "iotdmev1"
	}
	return fmt.Sprintf("iotdme%02d", partitions)
}

// A tail is how a partition ends. Where its last record stands is not known if
// that is in a segment before the last one the log was opened with.
type tail struct {
	next   int64 // number of the next record
	offset int64 // of the last record; -1 if not known
	end    int64 // offset behind the last record; the largest number if not known
	time   int64 // of the last record
}

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

// seal gives the records in b, which stand at offset, their sequences and
// checksums, and moves the tails behind them. It returns the time of the last.
func seal(b []byte, offset int64, tails []tail) (time int64) {
	for len(b) > 0 {
		size := recordHeader + int(binary.LittleEndian.Uint32(b[4:]))
		t := &tails[binary.LittleEndian.Uint32(b[8:])]
		binary.LittleEndian.PutUint64(b[20:], uint64(t.next))
		binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:size], castagnoli))
		t.next++
		t.offset, t.end = offset, offset+int64(size)
		t.time = int64(binary.LittleEndian.Uint64(b[12:]))
		b, offset, time = b[size:], t.end, t.time
	}
	return time
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
	var s segment
	l.mu.Lock()
	s.created = max(l.now().UnixNano(), l.lastTime)
	for _, t := range l.tails {
		s.sequences = append(s.sequences, t.next)
	}
	l.mu.Unlock()
	s.newest = s.created
	keep := len(l.segments)
	if keep > 0 {
		last := l.segments[keep-1]
		s.base = last.base + last.size
		if last.size == 0 {
			// The new one takes its place, but not its file: until the new
			// file is durable that alone may tell the numbers.
			s.base++
			keep--
		}
	}
	f, err := l.createSegment(s)
	if err != nil {
		return err
	}
	l.active = f
	empty := l.segments[keep:]
	l.mu.Lock()
	l.segments = append(slices.Clone(l.segments[:keep]), s)
	l.mu.Unlock()
	for _, s := range empty {
		l.remove(s)
	}
	l.trim()
	return nil
}

// createSegment writes the header of s and makes the file durable.
func (l *Log) createSegment(s segment) (vfs.File, error) {
	h := make([]byte, 0, headerSize(l.partitions))
	h = append(h, magic(l.partitions)...)
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
// place in the row is where the next one starts, and its header tells the
// numbers.
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
		l.remove(s)
		total -= s.size
	}
	if n > 0 {
		l.mu.Lock()
		l.segments = slices.Clone(l.segments[n:])
		l.mu.Unlock()
	}
}

// remove removes the file of s. One that cannot be removed now, such as one that
// is being read on Windows, is found again when the log is opened.
func (l *Log) remove(s segment) {
	if err := l.fs.Remove(l.path(s.base)); err != nil {
		l.logger.Debug("removing a segment of the event log", "err", err)
	}
}

// recover finds the segments in the folder, or makes the first one of a log
// with so many partitions.
func (l *Log) recover(partitions int) error {
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
	if n := len(l.segments); n > 0 {
		partitions = len(l.segments[n-1].sequences)
	}
	l.segments = slices.DeleteFunc(l.segments, func(s segment) bool {
		other := len(s.sequences) != partitions
		if other {
			l.logger.Warn("a segment is of an event log with other partitions", "offset", s.base)
		}
		return other
	})
	l.partitions = partitions
	l.tails = make([]tail, partitions)
	for p := range l.tails {
		l.tails[p] = tail{offset: -1, end: math.MaxInt64}
	}
	if len(l.segments) == 0 {
		return l.roll()
	}
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
	h := make([]byte, headerSize(maxPartitions))
	n, err := io.ReadFull(f, h)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return segment{}, err
	}
	for partitions := 1; partitions <= maxPartitions; partitions++ {
		size := headerSize(partitions)
		if int64(n) < size || string(h[:8]) != magic(partitions) {
			continue
		}
		end := size - 4
		if crc32.Checksum(h[:end], castagnoli) != binary.LittleEndian.Uint32(h[end:]) {
			break
		}
		s := segment{base: base, size: info.Size() - size, created: int64(binary.LittleEndian.Uint64(h[8:]))}
		for p := range partitions {
			s.sequences = append(s.sequences, int64(binary.LittleEndian.Uint64(h[16+8*p:])))
		}
		return s, nil
	}
	return segment{}, errDamaged
}

// findEnd finds where the valid records of the last segment end: a crash may
// have cut the last batch, of which nothing was acknowledged.
func (l *Log) findEnd(s *segment) error {
	r := reader{log: l, at: s.base}
	defer r.close()
	if err := r.open(s.base, s.base+s.size); err != nil {
		return err
	}
	for p, n := range s.sequences {
		l.tails[p].next = n
	}
	s.newest = s.created
	for {
		rec, size, err := r.next()
		if err == nil {
			err = r.data(&rec, size)
		}
		if err == io.EOF {
			break
		}
		if errors.Is(err, errDamaged) {
			l.logger.Warn("the event log ends with a batch that was not completely written", "bytes", s.base+s.size-r.at)
			break
		}
		if err != nil {
			return err
		}
		r.at = rec.next()
		s.newest = rec.Time.UnixNano()
		l.tails[rec.Partition] = tail{next: rec.Sequence + 1, offset: rec.Offset, end: r.at, time: s.newest}
	}
	s.size = r.at - s.base
	return nil
}
