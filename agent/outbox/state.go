package outbox

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// counts are what must be known besides the messages.
type counts struct {
	first, sent, dropped, damaged uint64 // as in Box
}

// The state file has two places, which are overwritten in turn so that one of
// them is always whole. It never grows, so that a full disk takes it. A place
// is, all numbers little endian:
//
//	checksum  uint32, CRC-32C of what follows
//	version   uint64, the larger one counts
//	first, sent, dropped, damaged, each uint64
const (
	placeSize   = 4 + 8 + 4*8
	placeStride = 4096 // a place is on a page of its own
	stateSize   = 2 * placeStride
)

// state is the open state file.
type state struct {
	mu      sync.Mutex // held over I/O
	file    *os.File
	version uint64
}

// open opens or makes the file. found is false if it is new, or damaged.
func (s *state) open(path string, sync func(*os.File) error) (c counts, found bool, err error) {
	s.file, err = os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return c, false, s.create(path, sync)
	} else if err != nil {
		return c, false, err
	}
	content := make([]byte, stateSize)
	if n, err := s.file.ReadAt(content, 0); n < stateSize && err != io.EOF {
		return c, false, err
	}
	for _, place := range [][]byte{content[:placeSize], content[placeStride:][:placeSize]} {
		version := binary.LittleEndian.Uint64(place[4:])
		if version <= s.version || binary.LittleEndian.Uint32(place) != crc32.Checksum(place[4:], castagnoli) {
			continue
		}
		s.version, found = version, true
		for i, v := range []*uint64{&c.first, &c.sent, &c.dropped, &c.damaged} {
			*v = binary.LittleEndian.Uint64(place[12+8*i:])
		}
	}
	return c, found, nil
}

func (s *state) create(path string, sync func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, stateSize))
	if err == nil {
		err = sync(f)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(path))
	}
	s.file = f
	return nil
}

func (s *state) close() {
	if s.file != nil {
		_ = s.file.Close() // what counts is synced
	}
}

// storeState writes the present counts; durable also makes them survive a
// power cut.
func (b *Box) storeState(durable bool) error {
	s := &b.state
	s.mu.Lock()
	defer s.mu.Unlock()
	b.mu.Lock()
	c := counts{b.first, b.sent, b.dropped, b.damaged}
	b.mu.Unlock()
	version := s.version + 1
	place := make([]byte, 4, placeSize)
	for _, v := range []uint64{version, c.first, c.sent, c.dropped, c.damaged} {
		place = binary.LittleEndian.AppendUint64(place, v)
	}
	binary.LittleEndian.PutUint32(place, crc32.Checksum(place[4:], castagnoli))
	if _, err := s.file.WriteAt(place, int64(version%2)*placeStride); err != nil {
		return err
	}
	s.version = version
	if durable {
		return b.sync(s.file)
	}
	return nil
}
