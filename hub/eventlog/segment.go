package eventlog

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	frame "github.com/iotdm/iotdm/internal/segment"
)

// A segment is a file of the log: a header, then records. It is named after
// the offset of its first record, and an offset counts the bytes of records
// before it, and of what was damaged. All that a segment holds from size on was
// never acknowledged, or is lost.
type segment struct {
	base      int64   // offset of the first record
	size      int64   // bytes of durable records
	created   int64   // Unix nanoseconds; no record of an older segment is newer
	newest    int64   // of the last record, or later
	sequences []int64 // number of the next record of each partition, at base; never changed
	cut       int64   // offset where the records of the segment before end
	salt      uint32  // of the checksums
	header    int64   // bytes of the file in front of the records

	// The header is damaged: sequences are those of the one before, and created
	// is a guess.
	headless bool
}

const segmentSuffix = ".events"

// A segment begins with its header, twice, so that a byte that is damaged does
// not cost the segment. A header is, all numbers little endian:
//
//	magic      8 bytes, that of the number of partitions
//	created    uint64
//	cut        uint64
//	salt       uint32
//	sequences  uint64 for each partition
//	checksum   uint32, CRC-32C of what stands before it
//
// At first there was one header, without cut and salt.
func headerSize(partitions int) int64 { return 8 + 8 + 8 + 4 + 8*int64(partitions) + 4 }

func firstHeaderSize(partitions int) int64 { return 8 + 8 + 8*int64(partitions) + 4 }

// magic tells the number of partitions.
func magic(partitions int) string { return fmt.Sprintf("iotdmf%02d", partitions) }

// firstMagic is that of the first form. 4 was the only number at first.
func firstMagic(partitions int) string {
	if partitions == 4 {
		return "iotdmev1"
	}
	return fmt.Sprintf("iotdme%02d", partitions)
}

func (s *segment) appendHeader(b []byte) []byte {
	at := len(b)
	b = append(b, magic(len(s.sequences))...)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.created))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.cut))
	b = binary.LittleEndian.AppendUint32(b, s.salt)
	for _, n := range s.sequences {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
}

// parseHeader reads the header that the file of the segment at base begins
// with, in any form, and reports whether there is a valid one.
func parseHeader(b []byte, base int64) (s segment, ok bool) {
	valid := func(b []byte, magic string, size int64) bool {
		return int64(len(b)) >= size && string(b[:8]) == magic &&
			crc32.Checksum(b[:size-4], castagnoli) == binary.LittleEndian.Uint32(b[size-4:])
	}
	sequences := func(b []byte, partitions int) (list []int64) {
		for p := range partitions {
			list = append(list, int64(binary.LittleEndian.Uint64(b[8*p:])))
		}
		return list
	}
	for partitions := 1; partitions <= maxPartitions; partitions++ {
		size := headerSize(partitions)
		for _, b := range [][]byte{b, b[min(size, int64(len(b))):]} {
			if valid(b, magic(partitions), size) {
				return segment{
					base: base, header: 2 * size, created: int64(binary.LittleEndian.Uint64(b[8:])),
					cut:  int64(binary.LittleEndian.Uint64(b[16:])),
					salt: binary.LittleEndian.Uint32(b[24:]), sequences: sequences(b[28:], partitions),
				}, true
			}
		}
		if size = firstHeaderSize(partitions); valid(b, firstMagic(partitions), size) {
			return segment{
				base: base, header: size, created: int64(binary.LittleEndian.Uint64(b[8:])),
				cut: base, sequences: sequences(b[16:], partitions),
			}, true
		}
	}
	return segment{}, false
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

func (s *segment) format() frame.Format {
	return frame.Format{Header: recordHeader, MaxData: MaxRecord, Salt: s.salt}
}

// appendRecord appends a record without its sequence and checksum.
func appendRecord(b []byte, partition uint32, time int64, data []byte) []byte {
	var h [recordHeader]byte
	binary.LittleEndian.PutUint32(h[8:], partition)
	binary.LittleEndian.PutUint64(h[12:], uint64(time))
	return frame.Format{Header: recordHeader}.Append(b, h[:], data)
}

// seal gives the records in b, which go to the end of s, their sequences and
// checksums, and moves the tails behind them. It returns the time of the last.
func (s *segment) seal(b []byte, tails []tail) (time int64) {
	f, offset := s.format(), s.base+s.size
	for len(b) > 0 {
		size := f.Size(b)
		t := &tails[binary.LittleEndian.Uint32(b[8:])]
		binary.LittleEndian.PutUint64(b[20:], uint64(t.next))
		f.Seal(b[:size])
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
	s := segment{salt: l.salt, header: 2 * headerSize(l.partitions)}
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
		s.cut = last.base + last.size
		s.base = max(s.cut, l.floor)
		if last.size == 0 {
			// The new one takes its place, but not its file: until the new
			// file is durable that alone may tell the numbers.
			s.base = max(s.base, last.base+1)
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
	for _, old := range append(l.leftover, empty...) {
		if old.base != s.base { // whose file the new one has taken
			l.remove(old)
		}
	}
	l.leftover = nil
	l.trim()
	return nil
}

// createSegment writes the header of s and makes the file durable.
func (l *Log) createSegment(s segment) (vfs.File, error) {
	h := s.appendHeader(s.appendHeader(nil))
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
		l.remove(s) // on a full disk there would be more and more of them
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
	l.forget(n)
}

// drop drops all records. The segment behind them begins the log.
func (l *Log) drop() error {
	if last := l.segments[len(l.segments)-1]; last.size > 0 {
		l.mu.Lock()
		l.lastTime = 0
		l.mu.Unlock()
		l.closeActive()
		if err := l.roll(); err != nil {
			return fmt.Errorf("clear event log: %w", err)
		}
	}
	n := len(l.segments) - 1
	l.cleared.Store(l.segments[n].base)
	for _, s := range l.segments[:n] {
		l.remove(s)
	}
	l.forget(n)
	return nil
}

// forget takes note that the first n segments are gone.
func (l *Log) forget(n int) {
	if n == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments = slices.Clone(l.segments[n:])
	maps.DeleteFunc(l.damage, func(offset int64, _ bool) bool { return offset < l.segments[0].base })
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
		if !ok || err != nil || base < 0 || l.fs.PathBase(l.path(base)) != name {
			continue
		}
		s, err := l.openSegment(base)
		if err != nil {
			return err
		}
		l.segments = append(l.segments, s)
	}
	slices.SortFunc(l.segments, func(a, b segment) int { return cmp.Compare(a.base, b.base) })
	for l.salt == 0 {
		l.salt = rand.Uint32()
	}
	for _, s := range l.segments {
		if !s.headless {
			partitions = len(s.sequences)
			l.salt = cmp.Or(s.salt, l.salt)
		}
	}
	l.partitions = partitions
	l.tails = make([]tail, partitions)
	for p := range l.tails {
		l.tails[p] = tail{offset: -1, end: math.MaxInt64}
	}
	if err := l.adoptHeadless(); err != nil {
		return err
	}
	if len(l.segments) == 0 {
		return l.roll()
	}
	for i := range l.segments[:len(l.segments)-1] {
		s, next := &l.segments[i], l.segments[i+1]
		s.size = max(min(s.size, next.base-s.base, next.cut-s.base), 0)
		s.newest = next.created
	}
	return l.findEnd()
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
	h := make([]byte, 2*headerSize(maxPartitions))
	n, err := io.ReadFull(f, h)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return segment{}, err
	}
	s, ok := parseHeader(h[:n], base)
	if !ok {
		return segment{base: base, size: info.Size(), created: info.ModTime().UnixNano(), cut: base, headless: true}, nil
	}
	s.size = max(0, info.Size()-s.header) // a crash may have cut the header's second copy
	return s, nil
}

// adoptHeadless makes of the segments without a valid header what can be made
// of them, and drops those that were never acknowledged, or are of no use.
func (l *Log) adoptHeadless() error {
	var kept []segment
	sequences := make([]int64, l.partitions)
	for i, s := range l.segments {
		switch {
		case !s.headless && len(s.sequences) != l.partitions:
			l.logger.Warn("a segment is of an event log with other partitions", "file", l.path(s.base))
			continue
		case s.headless:
			s.sequences = sequences
			if next := slices.IndexFunc(l.segments[i:], func(s segment) bool { return !s.headless }); next >= 0 {
				s.created = l.segments[i+next].created
			}
			size := s.size
			found, err := l.findForm(&s)
			if err != nil {
				return err
			}
			if !found && size <= 2*headerSize(l.partitions) {
				// A crash, or a full disk, leaves such a file, in which nothing
				// was acknowledged.
				l.logger.Debug("a segment of the event log was not made completely", "file", l.path(s.base))
				l.leftover = append(l.leftover, s)
				continue
			}
			l.logger.Error("the header of a segment of the event log is damaged; what the segment holds is looked for", "file", l.path(s.base))
			l.stats.Damaged++
		}
		sequences = s.sequences
		kept = append(kept, s)
	}
	l.segments = kept
	return nil
}

// findForm finds out of what form a segment is that has no valid header: the
// one by which it has records, if there is one.
func (l *Log) findForm(s *segment) (found bool, err error) {
	size := s.size
	for _, form := range []struct {
		salt   uint32
		header int64
	}{
		{0, firstHeaderSize(l.partitions)},
		{l.salt, 2 * headerSize(l.partitions)},
	} {
		s.salt, s.header, s.size = form.salt, form.header, max(size-form.header, 0)
		r := reader{log: l}
		if err := r.open(*s, s.base+s.size); err != nil {
			return false, err
		}
		found, err := r.scan.Next(), r.scan.Err()
		r.close()
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// findEnd finds where the log ends. What is behind its last valid record may be
// a batch that a crash has cut, of which nothing was acknowledged, or records
// that are damaged: no number and no offset that they may have had is given out
// again.
func (l *Log) findEnd() error {
	first := len(l.segments) - 1
	for first > 0 && l.segments[first].headless {
		first--
	}
	for p, n := range l.segments[first].sequences {
		l.tails[p].next = n
	}
	for i := first; i < len(l.segments); i++ {
		s := &l.segments[i]
		rest, lost, err := l.count(s)
		if err != nil {
			return err
		}
		l.lastTime = s.newest
		if rest == 0 || i+1 < len(l.segments) {
			continue
		}
		l.floor = s.base + s.size
		s.size -= rest
		l.stats.Tail = rest
		l.logger.Warn("the event log ends with what is no event: a batch that was not completely written, or damage; the next numbers leave room for it",
			"file", l.path(s.base), "bytes", rest, "numbers", lost)
	}
	return nil
}

// count goes through the records of s, moves the tails behind them, and returns
// the size of what is behind the last, and how many records that may have been.
func (l *Log) count(s *segment) (rest, lost int64, err error) {
	r := reader{log: l}
	defer r.close()
	end := s.base + s.size
	if err := r.open(*s, end); err != nil {
		return 0, 0, err
	}
	s.newest = max(s.newest, s.created)
	for r.scan.Next() {
		rec := r.record()
		if n := r.scan.Damaged; n > 0 {
			l.met(s.base, Damage{rec.Offset - n, n})
			if _, err := l.leaveRoom(&r, s, rec.Offset-n, n); err != nil {
				return 0, 0, err
			}
		}
		s.newest = rec.Time.UnixNano()
		l.tails[rec.Partition] = tail{next: rec.Sequence + 1, offset: rec.Offset, end: rec.next(), time: s.newest}
	}
	if err := r.scan.Err(); err != nil {
		return 0, 0, err
	}
	rest = end - r.scan.End()
	lost, err = l.leaveRoom(&r, s, r.scan.End(), rest)
	return rest, lost, err
}

// leaveRoom moves the numbers of all partitions on by as many as may have been
// given to records in the size bytes at the offset. The next valid record of a
// partition tells its number.
func (l *Log) leaveRoom(r *reader, s *segment, offset, size int64) (lost int64, err error) {
	b := make([]byte, size)
	n, err := r.file.ReadAt(b, s.header+offset-s.base)
	if err != nil && err != io.EOF {
		return 0, err
	}
	next := make([]int64, l.partitions)
	for p, t := range l.tails {
		next[p] = t.next
	}
	lost = s.format().Lost(b[:n], func(h []byte) bool {
		p, sequence := binary.LittleEndian.Uint32(h[8:]), int64(binary.LittleEndian.Uint64(h[20:]))
		if p >= uint32(len(next)) || sequence != next[p] {
			return false
		}
		next[p]++
		return true
	})
	for p := range l.tails {
		l.tails[p].next += lost
	}
	return lost, nil
}
