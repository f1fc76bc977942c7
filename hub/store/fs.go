package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The engine's names for the files that a compaction writes. An error there is harmless: what was written is removed,
// which makes room, and the compaction starts over.
const (
	compaction  vfs.DiskWriteCategory = "pebble-compaction"
	blobRewrite vfs.DiskWriteCategory = "pebble-blob-file-rewrite"
)

// wal is the engine's name for its log, whose fsyncs make changes durable.
const wal vfs.DiskWriteCategory = "pebble-wal"

// always is for operations that may be repeated whatever came of them, as creating a file: beside a full disk, too
// many open files are a reason that passes.
func always(error) bool { return true }

// Create makes a file whose operations succeed or don't return, unless it is one that may fail.
func (d *disk) Create(name string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	create := func() error { f, err = d.FS.Create(name, c); return err }
	if c != compaction && c != blobRewrite {
		d.retry(create, always)
		return &file{File: f, disk: d, log: c == wal}, nil
	}
	if err := d.try(create); err != nil {
		return nil, err
	}
	return &file{File: f, disk: d, mayFail: true}, nil
}

// try runs op once, and waits if it fails: the engine starts over at once.
func (d *disk) try(op func() error) error {
	err := d.change(op)
	if err != nil {
		d.pause()
	}
	return err
}

// ReuseForWrite makes a file of an old one.
func (d *disk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	var f vfs.File
	err := d.change(func() (err error) { f, err = d.FS.ReuseForWrite(old, name, c); return err })
	if err == nil {
		return &file{File: f, disk: d, log: c == wal}, nil
	}
	_ = d.Remove(old) // as its contract wants; it may have been renamed already
	return d.Create(name, c)
}

// OpenDir opens a folder for syncing.
func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &file{File: f, disk: d, dir: true}, nil
}

// Rename gives a file another name.
func (d *disk) Rename(old, name string) error {
	d.retry(func() error { return d.FS.Rename(old, name) }, isFull)
	return nil
}

// Remove removes a file.
func (d *disk) Remove(name string) error {
	remove := func() error { return d.change(func() error { return d.FS.Remove(name) }) }
	if d.keep == nil {
		return remove()
	}
	select {
	case <-d.keep:
		return remove()
	default:
	}
	go func() {
		<-d.keep
		_ = remove() // what stays is removed when the store is opened again
	}()
	return nil
}

// Lock does nothing: the DB holds the lock on its folder, whichever engine it opens there.
func (d *disk) Lock(string) (io.Closer, error) { return noLock{}, nil }

type noLock struct{}

func (noLock) Close() error { return nil }

// lockFolder takes the lock on the folder dir. A lock held by another is [ErrLocked]; a lock file that can't be made is
// not.
func lockFolder(fsys vfs.FS, dir string) (io.Closer, error) {
	l, err := fsys.Lock(fsys.PathJoin(dir, "LOCK")) // the engine's name
	if err != nil {
		// Systems differ in the error for a lock that is held, but it never names the file.
		if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) || errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %s (%w)", ErrLocked, dir, err)
	}
	return l, nil
}

// Unwrap is for the engine, which looks for the file system below.
func (d *disk) Unwrap() vfs.FS { return d.FS }

// A file is an open file or folder of a disk.
type file struct {
	vfs.File
	disk    *disk
	mayFail bool
	dir     bool
	log     bool // its fsyncs are what changes wait for
}

func (f *file) Write(p []byte) (n int, err error) {
	write := func() error {
		m, err := f.File.Write(p[n:])
		n += m
		return err
	}
	if f.mayFail {
		err = f.disk.try(write)
		return n, err
	}
	f.disk.retry(write, isFull)
	return n, nil
}

func (f *file) Sync() error     { return f.sync(f.File.Sync) }
func (f *file) SyncData() error { return f.sync(f.File.SyncData) }

func (f *file) SyncTo(length int64) (full bool, err error) {
	err = f.sync(func() (err error) { full, err = f.File.SyncTo(length); return err })
	return full, err
}

// sync is repeated for a folder only: after a failed fsync of a file its data may be gone from memory too.
func (f *file) sync(op func() error) error {
	if f.mayFail {
		return f.disk.try(op)
	}
	began := time.Now()
	f.disk.retry(op, func(err error) bool { return f.dir && isFull(err) })
	if fn := f.disk.counts.onSync.Load(); f.log && fn != nil {
		(*fn)(time.Since(began))
	}
	return nil
}
