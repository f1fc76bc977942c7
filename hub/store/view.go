package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// A View is the store as it was at one instant. It may be used concurrently, and only until the function that was given
// it returns.
type View struct {
	engine   *engine
	snapshot *pebble.Snapshot
}

// View calls fn with the store as it is now, and returns its error.
func (db *DB) View(fn func(*View) error) error {
	e, err := db.enter()
	if err != nil {
		return err
	}
	defer e.users.Done()
	v := &View{e, e.NewSnapshot()}
	defer v.snapshot.Close()
	return fn(v)
}

// Get returns a copy of the value of key, or [ErrNotFound].
func (v *View) Get(key []byte) ([]byte, error) {
	if v.engine.reserved && isReserved(key) {
		return nil, ErrNotFound
	}
	value, closer, err := v.snapshot.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read store: %w", marked(err))
	}
	defer closer.Close()
	return append(make([]byte, 0, len(value)), value...), nil
}

// Cursor returns a Cursor on the keys from start up to but not including end. It must be closed.
func (v *View) Cursor(start, end []byte) (*Cursor, error) {
	it, err := v.snapshot.NewIter(&pebble.IterOptions{LowerBound: v.engine.visible(start), UpperBound: end})
	if err != nil {
		return nil, fmt.Errorf("read store: %w", marked(err))
	}
	return &Cursor{it}, nil
}

// Split returns keys between start and end, in order, that cut what lies there into parts of similar size, of some
// megabytes at least.
func (v *View) Split(start, end []byte) (keys [][]byte, err error) {
	const part = 4 << 20
	levels, err := v.engine.SSTables(pebble.WithKeyRangeFilter(start, end))
	if err != nil {
		return nil, fmt.Errorf("read store: %w", marked(err))
	}
	var tables []pebble.SSTableInfo
	for _, level := range levels {
		tables = append(tables, level...)
	}
	slices.SortFunc(tables, func(a, b pebble.SSTableInfo) int { return bytes.Compare(a.Smallest.UserKey, b.Smallest.UserKey) })
	size := uint64(0)
	for _, t := range tables {
		if key := t.Smallest.UserKey; size >= part && bytes.Compare(key, start) > 0 {
			keys = append(keys, bytes.Clone(key))
			size = 0
		}
		size += t.Size
	}
	return keys, nil
}

// A Cursor walks over the keys of a View in order. It must not be used concurrently.
type Cursor struct{ it *pebble.Iterator }

// Seek moves to the first key that is not below key, and reports whether there is one.
func (c *Cursor) Seek(key []byte) bool { return c.it.SeekGE(key) }

// Next moves to the next key, and reports whether there is one.
func (c *Cursor) Next() bool { return c.it.Next() }

// Key returns the current key. It is valid until the cursor moves.
func (c *Cursor) Key() []byte { return c.it.Key() }

// Value returns the current value. It is valid until the cursor moves.
func (c *Cursor) Value() ([]byte, error) {
	value, err := c.it.ValueAndErr()
	if err != nil {
		return nil, fmt.Errorf("read store: %w", marked(err))
	}
	return value, nil
}

// Close ends the use of the cursor. It returns the error that made Seek or Next report false, if there was one.
func (c *Cursor) Close() error {
	if err := c.it.Close(); err != nil {
		return fmt.Errorf("read store: %w", marked(err))
	}
	return nil
}
