package controls

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A shelf keeps snapshots by name: in the folder dir or, if that is empty, in
// memory. Its owner uses it from one goroutine at a time.
type shelf struct {
	dir    string
	write  func(file string, data []byte) error
	memory map[string]kept
}

type kept struct {
	data  []byte
	taken time.Time
}

// suffix ends the names of files, so that none of them is special.
const suffix = ".snapshot"

func (s *shelf) file(name string) string { return filepath.Join(s.dir, name+suffix) }

func (s *shelf) put(name string, data []byte) error {
	if s.dir == "" {
		if s.memory == nil {
			s.memory = make(map[string]kept)
		}
		s.memory[name] = kept{data, time.Now()}
		return nil
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return s.write(s.file(name), data)
}

// get returns a snapshot, which must not be changed.
//
// Errors: fs.ErrNotExist.
func (s *shelf) get(name string) ([]byte, error) {
	if s.dir != "" {
		return os.ReadFile(s.file(name))
	}
	k, ok := s.memory[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return k.data, nil
}

func (s *shelf) look(name string) (Snapshot, error) {
	if s.dir != "" {
		info, err := os.Stat(s.file(name))
		if err != nil {
			return Snapshot{}, err
		}
		return Snapshot{Name: name, Taken: info.ModTime().UTC(), Bytes: info.Size()}, nil
	}
	k, ok := s.memory[name]
	if !ok {
		return Snapshot{}, fs.ErrNotExist
	}
	return Snapshot{Name: name, Taken: k.taken.UTC(), Bytes: int64(len(k.data))}, nil
}

func (s *shelf) remove(name string) error {
	if s.dir != "" {
		return os.Remove(s.file(name))
	}
	if _, ok := s.memory[name]; !ok {
		return fs.ErrNotExist
	}
	delete(s.memory, name)
	return nil
}

func (s *shelf) list() ([]Snapshot, error) {
	list := []Snapshot{}
	for name := range s.memory {
		one, _ := s.look(name)
		list = append(list, one)
	}
	if s.dir != "" {
		entries, err := os.ReadDir(s.dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			name, ok := strings.CutSuffix(e.Name(), suffix)
			if !ok || checkName(name) != nil {
				continue
			}
			one, err := s.look(name)
			if err != nil {
				return nil, err
			}
			list = append(list, one)
		}
	}
	slices.SortFunc(list, func(a, b Snapshot) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}
