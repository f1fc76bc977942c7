package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// A Storage is where a hub keeps what it has. The zero value is memory.
type Storage struct {
	dir       string
	forgetful bool
	held      *flock.Flock // nil: the node takes the lock
}

// Folder keeps everything in the folder dir, which is made if it is missing.
func Folder(dir string) Storage { return Storage{dir: dir} }

// KeysFolder keeps keys, certificates, events and where the hub listens in the
// folder dir, and devices, twins and all other state in memory.
func KeysFolder(dir string) Storage { return Storage{dir: dir, forgetful: true} }

// state reports whether the folder holds the state.
func (s Storage) state() bool { return s.dir != "" && !s.forgetful }

// StoreDir returns the folder of the store, or "" for memory.
func (s Storage) StoreDir() string {
	if !s.state() {
		return ""
	}
	return filepath.Join(s.dir, storeFolder)
}

// Instance returns a text that no other folder has, and memory never again. The
// folder must be held.
func (s Storage) Instance() (string, error) {
	made := rand.Text()
	if s.dir == "" {
		return made, nil
	}
	file := filepath.Join(s.dir, instanceFile)
	text, err := os.ReadFile(file)
	switch {
	case err == nil && len(text) > 0:
		return string(text), nil
	case err == nil || errors.Is(err, fs.ErrNotExist):
		err = writeFile(file, []byte(made), secretMode)
	}
	if err != nil {
		return "", folderProblem(s.dir, err)
	}
	return made, nil
}

// Hold keeps other hubs out of the folder until release is called, however many
// nodes have the Storage that it returns meanwhile, one after the other.
//
// Errors: ErrFolderInUse.
func (s Storage) Hold() (_ Storage, release func() error, err error) {
	if s.dir == "" {
		return s, func() error { return nil }, nil
	}
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return s, nil, fmt.Errorf("data folder: %w", err)
	}
	if s.held, err = lockFolder(s.dir); err != nil {
		return s, nil, err
	}
	return s, s.held.Close, nil
}
