package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Check reads all of the store in the folder dir, which must not be open elsewhere, and changes nothing. It calls fn
// with each key that can be read and its value, in order, and returns what cannot be read, a line for each place. An
// error means that nothing can be read, or is that of fn. The slices are valid only until fn returns.
//
// Of a file of sorted keys a damaged block is lost, of some 16 KB, or more if it cannot be guessed where the keys
// behind it begin. Of a log what is behind the damage is lost too; of the end of the last one that nobody notices, as
// it looks like what a crash has cut.
func Check(dir string, fn func(key, value []byte) error) (damage []string, err error) {
	return check(vfs.Default, dir, fn)
}

func check(fsys vfs.FS, dir string, fn func(key, value []byte) error) (damage []string, err error) {
	lock, err := lockFolder(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("check store: %w", err)
	}
	defer lock.Close()
	c := checker{fs: &cutFS{FS: fsys, cuts: map[string]int64{}}, dir: dir}
	engine, err := c.open()
	if err != nil && pebble.IsCorruptionError(err) {
		engine, err = c.cutLogs(err)
	}
	if err != nil {
		return nil, fmt.Errorf("check store: %w", marked(err))
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	w := walk{engine: engine}
	for start := []byte{}; start != nil; {
		last, err := w.from(start, fn)
		var own *ownError
		if errors.As(err, &own) {
			return c.damage, own.err
		}
		if err == nil {
			break
		}
		c.note("%v", &engineError{err})
		start = w.behind(last)
	}
	return c.damage, nil
}

// A checker opens an engine that may be damaged.
type checker struct {
	fs     *cutFS
	dir    string
	damage []string

	mu   sync.Mutex // guards what follows
	file string     // where damage was met last
}

func (c *checker) open() (*pebble.DB, error) {
	logger := slog.New(slog.DiscardHandler)
	d := newDisk(c.fs, c.dir, logger)
	d.refuse(ErrStalled)
	opts := engineOptions(d, logger)
	opts.ReadOnly = true
	opts.EventListener.DataCorruption = func(i pebble.DataCorruptionInfo) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.file = filepath.Base(i.Path)
	}
	return pebble.Open(c.dir, opts)
}

// note adds a line of damage, with the file if that is known.
func (c *checker) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	if c.file != "" && !strings.Contains(line, c.file) {
		line = c.file + ": " + line
	}
	c.file = ""
	c.damage = append(c.damage, line)
}

// cutLogs opens the engine as if its logs ended where the damage begins, which is looked for. If that is not what is
// wrong it returns err.
func (c *checker) cutLogs(err error) (*pebble.DB, error) {
	names, listErr := c.fs.List(c.dir)
	if listErr != nil {
		return nil, listErr
	}
	names = slices.DeleteFunc(names, func(name string) bool { return filepath.Ext(name) != ".log" })
	slices.Sort(names)
	opens := func() bool {
		engine, err := c.open()
		return err == nil && engine.Close() == nil
	}
	// The newest first: what is behind a damaged one must not be applied without it.
	for _, name := range slices.Backward(names) {
		info, statErr := c.fs.Stat(c.fs.PathJoin(c.dir, name))
		if statErr != nil {
			return nil, statErr
		}
		c.fs.cuts[name] = 0
		if !opens() {
			continue
		}
		end := sort.Search(int(info.Size()), func(n int) bool {
			c.fs.cuts[name] = int64(n) + 1
			return !opens()
		})
		c.fs.cuts[name] = int64(end)
		for _, cut := range names {
			if at, ok := c.fs.cuts[cut]; ok && (cut != name || at < info.Size()) {
				c.note("%s: a log that is damaged; the changes from there to its end cannot be read", cut)
			}
		}
		return c.open()
	}
	return nil, err
}

// A cutFS is a file system some of whose files end early.
type cutFS struct {
	vfs.FS
	cuts map[string]int64 // by their names in the folder
}

func (c *cutFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := c.FS.Open(name, opts...)
	if end, ok := c.cuts[c.PathBase(name)]; ok && err == nil {
		return &cutFile{File: f, end: end}, nil
	}
	return f, err
}

type cutFile struct {
	vfs.File
	at, end int64
}

func (f *cutFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.at)
	f.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (f *cutFile) ReadAt(p []byte, off int64) (int, error) {
	if rest := max(f.end-off, 0); int64(len(p)) > rest {
		n, err := f.File.ReadAt(p[:rest], off)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	return f.File.ReadAt(p, off)
}

// A walk goes over the keys of an engine that is damaged.
type walk struct{ engine *pebble.DB }

// An ownError is one of the function that is given what was read.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }

// from calls fn for the keys from start on, up to the first that cannot be read. It returns the last key that could, or
// start, and why it ended.
func (w walk) from(start []byte, fn func(key, value []byte) error) (last []byte, err error) {
	it, err := w.engine.NewIter(&pebble.IterOptions{LowerBound: start})
	if err != nil {
		return start, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	last = bytes.Clone(start)
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return last, err
		}
		if err := fn(it.Key(), value); err != nil {
			return last, &ownError{err}
		}
		last = append(last[:0], it.Key()...)
	}
	return last, it.Error()
}

// behind returns a key behind last from which can be read on, or nil if there is none. It is guessed: the nearest of
// those that differ from last, or from where a file begins, in as late a byte as possible, and of where files begin
// and end.
func (w walk) behind(last []byte) (nearest []byte) {
	try := func(key []byte) bool {
		if bytes.Compare(key, last) <= 0 || nearest != nil && bytes.Compare(key, nearest) >= 0 || !w.readable(key) {
			return false
		}
		nearest = key
		return true
	}
	guess := func(from []byte) {
		key := append(bytes.Clone(from), 0)
		for i := len(key) - 1; i >= 0; i-- {
			with := func(c int) []byte { return append(bytes.Clone(key[:i]), byte(c)) }
			if key[i] == 0xff || !w.readable(with(0xff)) {
				continue
			}
			// The engine takes its time over each block that is damaged.
			first := int(key[i]) + 1
			try(with(first + sort.Search(0xff-first, func(n int) bool { return w.readable(with(first + n)) })))
			return
		}
	}
	guess(last)
	levels, err := w.engine.SSTables()
	if err != nil {
		return nearest
	}
	for _, level := range levels {
		for _, t := range level {
			try(append(bytes.Clone(t.Largest.UserKey), 0))
			if first := t.Smallest.UserKey; bytes.Compare(first, last) > 0 && (nearest == nil || bytes.Compare(first, nearest) < 0) {
				if !try(bytes.Clone(first)) {
					guess(first)
				}
			}
		}
	}
	return nearest
}

// readable reports whether the first key from start on can be read, or there is none.
func (w walk) readable(start []byte) bool {
	it, err := w.engine.NewIter(&pebble.IterOptions{LowerBound: start})
	if err != nil {
		return false
	}
	if it.First() {
		_, err = it.ValueAndErr()
	}
	return errors.Join(err, it.Error(), it.Close()) == nil
}
