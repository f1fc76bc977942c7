package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/cluster/memlog"
	"github.com/iotdm/iotdm/hub/store"
)

// Whoever comes late begins with a snapshot, and whoever was away for long too.
func TestSnapshotAndLogAreTheSameState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "late")
	l := newLane(t, nil)
	shift := &later{Log: l.log}
	a, whole := l.openBy("a", shift, true), l.openBy("whole", shift, false)
	late, err := store.OpenReplica(store.ReplicaOptions{Dir: dir, Log: shift, Snapshots: l.snapshots, Name: "late"})
	if err != nil {
		t.Fatal(err)
	}
	l.barrier(late)
	if err := late.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		for i := range 300 {
			err := a.DB().Update(fmt.Sprint(i%7), func(tx *store.Tx) error {
				tx.Set(fmt.Appendf(nil, "%d/%d", i%9, i*round), bytes.Repeat([]byte{byte(i)}, i))
				if i%50 == 0 {
					tx.DeletePrefix(fmt.Appendf(nil, "%d/", i%9))
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		shift.by.Add(int64(50 * time.Minute))
	}
	if first, _, err := l.log.Bounds(t.Context()); err != nil || first < 300 || first > 700 {
		t.Errorf("the log is kept from %d on, error %v: want the last 60 to 120 minutes of 150", first, err)
	}
	fresh := l.openBy("fresh", shift, false)
	late, err = store.OpenReplica(store.ReplicaOptions{Dir: dir, Log: shift, Snapshots: l.snapshots, Name: "late"})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if err := putKey(a.DB(), "more", "v"); err != nil {
		t.Fatal(err)
	}
	l.barrier(a, whole, fresh, late)
	want, err := store.StateHash(whole.DB())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*store.Replica{a, fresh, late} {
		if got, err := store.StateHash(r.DB()); err != nil || got != want {
			t.Errorf("%s differs from who has read the whole log, error %v", r.Name(), err)
		}
	}
	// One that falls behind while it runs says what to do.
	if err := l.log.Trim(t.Context(), 1_000_000); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenReplica(store.ReplicaOptions{Log: shift, Snapshots: l.snapshots, Name: "x"}); err == nil {
		t.Error("a replica began without a state")
	}
}

// TestASnapshotIsAskedForAgain opens copies while who keeps the snapshots does not answer, knows
// of none yet, or of an older one, and breaks off.
func TestASnapshotIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		single := openMemory(t)
		set(t, single, "a", "1")
		l := newLane(t, single.Records)
		var old memlog.Snapshots
		pos, state, err := l.snapshots.Latest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := old.Put(t.Context(), pos, state); err != nil {
			t.Fatal(err)
		}
		unanswered := func() (uint64, io.ReadCloser, error) { return 0, nil, errors.New("no answer") }
		none := func() (uint64, io.ReadCloser, error) { return 0, nil, nil }
		older := func() (uint64, io.ReadCloser, error) { return old.Latest(t.Context()) }
		broken := func() (uint64, io.ReadCloser, error) {
			pos, state, err := l.snapshots.Latest(t.Context())
			return pos, io.NopCloser(io.MultiReader(io.LimitReader(state, 90), brokenOff{})), err
		}
		open := func(s *troubled) (*store.Replica, error) {
			s.Snapshots = l.snapshots
			return store.OpenReplica(store.ReplicaOptions{Log: l.log, Snapshots: s, Name: "late"})
		}
		check := func(faults ...func() (uint64, io.ReadCloser, error)) {
			t.Helper()
			r, err := open(&troubled{faults: faults})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			l.barrier(r)
			if got, err := r.DB().Get([]byte("a")); err != nil || string(got) != "1" {
				t.Errorf("a copy that had to ask again has %q, %v", got, err)
			}
		}
		check(unanswered, none, broken, none, broken)

		a := l.open("a", true)
		set(t, a.DB(), "b", "2", "c", "3")
		if err := a.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		newest, _, err := l.snapshots.Latest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := l.log.Trim(t.Context(), newest); err != nil {
			t.Fatal(err)
		}
		check(none, older, unanswered, broken)

		for name, c := range map[string]struct {
			fault func() (uint64, io.ReadCloser, error)
			want  string
			after time.Duration
		}{
			"does not answer":  {unanswered, "snapshot: no answer", 10 * time.Second},
			"knows of none":    {none, "the log of the cluster does not reach back so far as this node needs, and there is no snapshot", 10 * time.Second},
			"knows of old one": {older, "the log of the cluster does not reach back so far as the newest snapshot needs, to position 1", 10 * time.Second},
			"breaks off":       {broken, fmt.Sprintf("snapshot at %d: the snapshot is damaged\nbroken off", newest), 0},
		} {
			began := time.Now()
			_, err := open(&troubled{faults: slices.Repeat([]func() (uint64, io.ReadCloser, error){c.fault}, 1000)})
			if err == nil || err.Error() != c.want || time.Since(began) != c.after {
				t.Errorf("who keeps the snapshots %s: %v, after %v; want %s after %v", name, err, time.Since(began), c.want, c.after)
			}
		}
	})
}

// troubled are Snapshots whose first answers are others than they should be.
type troubled struct {
	store.Snapshots
	faults []func() (uint64, io.ReadCloser, error)
}

func (s *troubled) Latest(ctx context.Context) (uint64, io.ReadCloser, error) {
	if len(s.faults) == 0 {
		return s.Snapshots.Latest(ctx)
	}
	answer := s.faults[0]
	s.faults = s.faults[1:]
	return answer()
}

type brokenOff struct{}

func (brokenOff) Read([]byte) (int, error) { return 0, errors.New("broken off") }

func TestALogBeginsWithAState(t *testing.T) {
	single := openMemory(t)
	set(t, single, "a", "1", "b/2", "2", "empty", "")
	l := newLane(t, single.Records)
	if err := store.StartLog(t.Context(), l.log, l.snapshots, nil); !errors.Is(err, store.ErrBegun) {
		t.Errorf("beginning again: %v", err)
	}
	r := l.open("a", true)
	set(t, r.DB(), "c", "3")
	want := []string{"a=1", "b/2=2", "c=3", "empty="}
	if diff := cmp.Diff(want, scan(t, r.DB(), "", "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var backup bytes.Buffer
	if err := r.Backup(&backup); err != nil {
		t.Fatal(err)
	}
	text := backup.Bytes()
	dir := filepath.Join(t.TempDir(), "single")
	if err := store.Write(dir, store.ReadBackup(bytes.NewReader(text)), nil); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, scan(t, db, "", "")); diff != "" {
		t.Errorf("written from a backup (-want +got):\n%s", diff)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenReplica(store.ReplicaOptions{Dir: dir, Log: l.log, Snapshots: l.snapshots, Name: "x"}); !errors.Is(err, store.ErrReplicated) {
		t.Errorf("a single node's folder opened as a replica: %v", err)
	}
	if err := store.Write(dir, store.ReadBackup(bytes.NewReader(text)), nil); err == nil {
		t.Error("a store was written over another")
	}
	for _, cut := range []int{0, 5, len(text) / 2, len(text) - 1} {
		if err := store.ReadBackup(bytes.NewReader(text[:cut]))(func(_, _ []byte) error { return nil }); err == nil {
			t.Errorf("a backup of %d bytes, cut at %d, was read", len(text), cut)
		}
	}
	for i := range text {
		damaged := bytes.Clone(text)
		damaged[i] ^= 0x40
		got := []string{}
		err := store.ReadBackup(bytes.NewReader(damaged))(func(k, v []byte) error {
			got = append(got, string(k)+"="+string(v))
			return nil
		})
		if err == nil && !slices.Equal(got, want) {
			t.Errorf("a backup with byte %d damaged was read as %q", i, got)
		}
	}
}

// later is a log whose clock can be moved.
type later struct {
	store.Log
	by atomicDuration
}

func (l *later) Follow(ctx context.Context, from uint64, fn func(uint64, time.Time, []byte) error) error {
	return l.Log.Follow(ctx, from, func(pos uint64, at time.Time, group []byte) error {
		return fn(pos, l.by.of(pos, at), group)
	})
}

// atomicDuration is how far the clock is moved, for each position as it was when
// that was read first.
type atomicDuration struct {
	mu    sync.Mutex
	d     int64
	taken map[uint64]time.Time
}

func (a *atomicDuration) Add(d int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.d += d
}

func (a *atomicDuration) of(pos uint64, at time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.taken == nil {
		a.taken = map[uint64]time.Time{}
	}
	if _, ok := a.taken[pos]; !ok {
		a.taken[pos] = at.Add(time.Duration(a.d))
	}
	return a.taken[pos]
}
