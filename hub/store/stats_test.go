package store_test

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestStatsTellHowTheDiskDoes(t *testing.T) {
	fsys := newBadFS(vfs.NewMem())
	db := openFS(t, fsys)
	var syncs atomic.Int64
	db.OnSync(func(time.Duration) { syncs.Add(1) })
	if err := put(db, "a", make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if s := db.Stats(); syncs.Load() == 0 || s.Bytes == 0 || !s.Sized || s.Free != 1<<30 || s.Stalled || s.Stalls != 0 {
		t.Errorf("Stats = %+v after %d fsyncs, want sizes, no stall, and an fsync at least", s, syncs.Load())
	}

	w := startWriters(db, 8, 100)
	fsys.fail(noSpace)
	w.await(func() bool { return w.full > 20 })
	if s := db.Stats(); !s.Stalled || s.Broken || s.Stalls != 1 || s.Refused == 0 {
		t.Errorf("Stats on a full disk = %+v, want stalled once, and refused changes", s)
	}
	fsys.fail(nil)
	before := 0
	w.await(func() bool { before = len(w.acked); return true })
	w.await(func() bool { return len(w.acked) > before+20 })
	if s := db.Stats(); s.Stalled {
		t.Errorf("Stats when there is space again = %+v, want no stall", s)
	}

	fsys.fail(func(_ int64, what string) error {
		if what == "sync pebble-wal" {
			return syscall.EIO
		}
		return nil
	})
	w.await(func() bool { return w.err != nil })
	w.end()
	if s := db.Stats(); !s.Broken || !s.Stalled || s.Stalls != 2 {
		t.Errorf("Stats after a failed fsync = %+v, want broken", s)
	}
	db.Close() // which it can't
}
