// Package segment finds records in a file that is only appended to, whatever has become of the file: a crash may have
// cut its end, and a disk may have damaged any of it. What is damaged is passed over, and told.
//
// A record is, numbers little endian:
//
//	checksum  uint32, CRC-32C of all that follows
//	size      uint32, of the data
//	...       more of the header, which is its user's
//	data      size bytes
//
// A user appends records, gives each what only the order of the log tells, and then its checksum:
//
//	f := segment.Format{Header: 16, MaxData: 1 << 20}
//	b = f.Append(b, header, data)
//	f.Seal(b)
//
// and finds them again:
//
//	s := f.Scan(file, 0, size, func(header []byte) bool { return number(header) >= next })
//	for s.Next() {
//		... s.Damaged, s.Offset, s.Header, s.Data
//	}
//	... s.Err(); what lies from s.End() to size are no records
//
// The hub's event log and the outbox of a device stand on it. Both sides of the wire may, since it says nothing of
// what they say to each other.
package segment

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// A Format is what the records of a file have in common.
type Format struct {
	Header  int // bytes in front of the data, at least 8
	MaxData int // of the largest record

	// Salt is where checksums begin. Whoever writes the data but does not know the salt can't make data that look
	// like records, for when the record around them is damaged. 0 is the plain CRC-32C.
	Salt uint32
}

const (
	sizeAt = 4 // where the size is in a header
	window = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Append appends a record whose checksum is still missing. header is all of the header: its first 8 bytes are filled
// in.
func (f Format) Append(b, header, data []byte) []byte {
	at := len(b)
	b = append(b, header[:f.Header]...)
	binary.LittleEndian.PutUint32(b[at+sizeAt:], uint32(len(data)))
	return append(b, data...)
}

// Size returns the size of the record that b begins with, header and all, as its header says it.
func (f Format) Size(b []byte) int {
	return f.Header + int(binary.LittleEndian.Uint32(b[sizeAt:]))
}

// Seal gives a record its checksum.
func (f Format) Seal(record []byte) {
	binary.LittleEndian.PutUint32(record, f.sum(record[sizeAt:]))
}

func (f Format) sum(b []byte) uint32 { return crc32.Update(f.Salt, castagnoli, b) }

// Scan returns a Scanner for the records of r from the offset from, where one should begin, up to end. May says of a
// header whether such a record may come here; it is also asked of bytes that are no header.
func (f Format) Scan(r io.ReaderAt, from, end int64, may func(header []byte) bool) *Scanner {
	return &Scanner{format: f, r: r, may: may, base: from, good: from, limit: end}
}

// A Scanner finds one record after the other.
type Scanner struct {
	format Format
	r      io.ReaderAt
	may    func([]byte) bool
	base   int64  // offset of buf
	buf    []byte // what was read
	good   int64  // where the last record ended
	limit  int64
	err    error

	// The record that Next found. The slices are valid until the next call.
	Offset       int64 // where it begins
	Header, Data []byte

	// Damaged is how many bytes before the record are none of a record.
	Damaged int64
}

// Next finds the next record, and reports whether there is one.
//
// It trusts the size of a record that is damaged if there is a record behind it, and else looks for the next one byte
// by byte.
func (s *Scanner) Next() bool {
	if s.err != nil {
		return false
	}
	if s.take(s.good) {
		return true
	}
	if b := s.read(s.good, s.format.Header); len(b) == s.format.Header && s.may(b) {
		if size := s.format.Size(b); size-s.format.Header <= s.format.MaxData && s.take(s.good+int64(size)) {
			return true
		}
	}
	for at := s.good + 1; at+int64(s.format.Header) <= s.limit && s.err == nil; at++ {
		if s.take(at) {
			return true
		}
	}
	return false
}

// take makes the record at the offset the one that was found, if there is one.
func (s *Scanner) take(at int64) bool {
	h := s.read(at, s.format.Header)
	if len(h) < s.format.Header {
		return false
	}
	n := binary.LittleEndian.Uint32(h[sizeAt:])
	if uint64(n) > uint64(s.format.MaxData) || at+int64(s.format.Header)+int64(n) > s.limit || !s.may(h) {
		return false
	}
	size := s.format.Header + int(n)
	record := s.read(at, size)
	if len(record) < size || s.format.sum(record[sizeAt:]) != binary.LittleEndian.Uint32(record) {
		return false
	}
	s.Damaged = at - s.good
	s.Offset, s.Header, s.Data = at, record[:s.format.Header:s.format.Header], record[s.format.Header:]
	s.good = at + int64(size)
	return true
}

// read returns n bytes at the offset, or fewer if the file ends before.
func (s *Scanner) read(at int64, n int) []byte {
	if i := at - s.base; i >= 0 && i+int64(n) <= int64(len(s.buf)) {
		return s.buf[i : i+int64(n)]
	}
	if at+int64(n) > s.limit {
		if at >= s.limit {
			return nil
		}
		n = int(s.limit - at)
	}
	keep := []byte(nil)
	if i := at - s.base; i >= 0 && i < int64(len(s.buf)) {
		keep = s.buf[i:]
	}
	want := int(min(int64(max(n, window)), s.limit-at))
	if cap(s.buf) >= want {
		s.buf = s.buf[:want]
		copy(s.buf, keep)
	} else {
		s.buf = append(make([]byte, 0, want), keep...)[:want]
	}
	m, err := s.r.ReadAt(s.buf[len(keep):], at+int64(len(keep)))
	s.base, s.buf = at, s.buf[:len(keep)+m]
	if err != nil && err != io.EOF {
		s.err = err
		return nil
	}
	return s.buf[:min(n, len(s.buf))]
}

// Extend has the Scanner go on up to end, which must not be before the present one.
func (s *Scanner) Extend(end int64) { s.limit = end }

// End returns where the last record ends that was found. Once Next has reported false, what lies behind are no
// records.
func (s *Scanner) End() int64 { return s.good }

// Err returns the error that ended the scan, if the file could not be read.
func (s *Scanner) Err() error { return s.err }

// SkipTo goes on at an offset, where a record should begin, whatever lies before.
func (s *Scanner) SkipTo(at int64) { s.good = at }

// Lost returns how many records there may have been in b, of which none is valid, beginning with where one should
// begin: as many as the headers tell, as long as each is where the one before says, and as many as have room in the
// rest. Who gives numbers to records leaves out so many, and gives none twice.
func (f Format) Lost(b []byte, may func(header []byte) bool) int64 {
	n := int64(0)
	for len(b) >= f.Header && may(b) {
		size := f.Size(b)
		if size-f.Header > f.MaxData || size > len(b) {
			break
		}
		b = b[size:]
		n++
	}
	return n + int64((len(b)+f.Header-1)/f.Header)
}
