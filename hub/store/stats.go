package store

import (
	"errors"
	"sync/atomic"
	"time"
)

// Stats are what an operator watches of a store. Counts are since it was
// opened. Reading them looks through nothing.
type Stats struct {
	Bytes   uint64 // that it takes on disk
	Backlog uint64 // bytes that the engine has still to sort

	Free  uint64 // bytes left for it on the file system
	Sized bool   // Free is known

	Stalled bool   // it can't write now
	Broken  bool   // it can't write until it is opened again
	Stalls  uint64 // how often it could not
	Slowed  uint64 // how often changes waited for the engine to sort what it has
	Refused uint64 // changes refused because the disk is full or fails
	Damaged uint64 // how often a read met damage
}

// counts are those of Stats. They outlive an engine.
type counts struct {
	stalls, slowed, refused, damaged atomic.Uint64
	onSync                           atomic.Pointer[func(time.Duration)]
}

// result counts what became of an Update.
func (c *counts) result(err error) {
	if errors.Is(err, ErrFull) || errors.Is(err, ErrStalled) {
		c.refused.Add(1)
	}
}

// Stats returns what the store is like. Of a closed one they are zero.
func (db *DB) Stats() (s Stats) {
	e, err := db.enter()
	if err != nil {
		return Stats{}
	}
	defer e.users.Done()
	m := e.Metrics()
	s.Bytes, s.Backlog = m.DiskSpaceUsage(), m.Compact.EstimatedDebt
	if use, err := db.fs.GetDiskUsage(db.dir); err == nil {
		s.Free, s.Sized = use.AvailBytes, true
	}
	c := &db.counts
	s.Stalls, s.Slowed, s.Refused, s.Damaged = c.stalls.Load(), c.slowed.Load(), c.refused.Load(), c.damaged.Load()
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	s.Stalled, s.Broken = e.disk.stalls > 0 || e.disk.broken, e.disk.broken
	return s
}

// OnSync has fn called with how long each fsync of the log took that makes
// changes durable. fn must not wait.
func (db *DB) OnSync(fn func(time.Duration)) { db.counts.onSync.Store(&fn) }
