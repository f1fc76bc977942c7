package store

import "time"

// Stats are what an operator watches of a store. Counts are since it was
// opened. Reading them looks through nothing.
type Stats struct {
	Bytes   uint64 // that it takes on disk
	Backlog uint64 // bytes that the engine has still to sort

	Free   uint64 // bytes left for it on the file system
	Sized  bool   // Free is known
	Broken bool   // it can't write until it is opened again

	Stalled bool   // it can't write now
	Stalls  uint64 // how often it could not
	Slowed  uint64 // how often changes waited for the engine to sort what it has
	Damaged uint64 // how often a read met damage
	Refused uint64 // changes refused because the disk is full
}

// Stats returns what the store is like. Of a closed one they are zero.
func (db *DB) Stats() (s Stats) {
	if db.enter() != nil {
		return Stats{}
	}
	defer db.running.Done()
	m := db.engine.Metrics()
	s.Bytes, s.Backlog = m.DiskSpaceUsage(), m.Compact.EstimatedDebt
	if use, err := db.disk.GetDiskUsage(db.disk.dir); err == nil {
		s.Free, s.Sized = use.AvailBytes, true
	}
	d := db.disk
	s.Stalls, s.Slowed, s.Damaged, s.Refused = d.stallCount.Load(), d.slowed.Load(), d.damaged.Load(), d.refused.Load()
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Stalled, s.Broken = d.stalls > 0 || d.broken, d.broken
	return s
}

// OnSync has fn called with how long each fsync of the log took that makes
// changes durable. fn must not wait.
func (db *DB) OnSync(fn func(time.Duration)) { db.disk.onSync.Store(&fn) }
