package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/cluster/memlog"
	"github.com/iotdm/iotdm/hub/store"
)

// A lane is a log and its snapshots.
type lane struct {
	t         *testing.T
	log       *memlog.Log
	snapshots *memlog.Snapshots
}

func newLane(t *testing.T, from store.Records) *lane {
	t.Helper()
	l := &lane{t, memlog.New(), &memlog.Snapshots{}}
	if err := store.StartLog(t.Context(), l.log, l.snapshots, from); err != nil {
		t.Fatal(err)
	}
	return l
}

// open opens a replica, which joins if it should.
func (l *lane) open(name string, join bool) *store.Replica {
	l.t.Helper()
	return l.openBy(name, l.log, join)
}

// openBy opens a replica with another way to the log.
func (l *lane) openBy(name string, log store.Log, join bool) *store.Replica {
	l.t.Helper()
	r, err := store.OpenReplica(store.ReplicaOptions{Log: log, Snapshots: l.snapshots, Name: name})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := r.Close(); err != nil {
			l.t.Error(err)
		}
	})
	if join {
		if _, err := r.Join(context.Background()); err != nil {
			l.t.Fatal(err)
		}
	}
	return r
}

func (l *lane) barrier(rs ...*store.Replica) {
	l.t.Helper()
	for _, r := range rs {
		if err := r.DB().Barrier(context.Background()); err != nil {
			l.t.Fatal(err)
		}
	}
}

func putKey(db *store.DB, key, value string) error {
	return db.Update(key, func(tx *store.Tx) error { tx.Set([]byte(key), []byte(value)); return nil })
}

func awaitDone(t *testing.T, r *store.Replica, want error) {
	t.Helper()
	select {
	case <-r.Done():
	case <-time.After(time.Minute):
		t.Fatalf("the replica goes on, and should end with: %v", want)
	}
	if err := r.Err(); !errors.Is(err, want) {
		t.Errorf("the replica ended with %v, want %v", err, want)
	}
	if err := putKey(r.DB(), "k", "v"); !errors.Is(err, want) {
		t.Errorf("a change after the end: %v, want %v", err, want)
	}
	if _, err := r.DB().Get([]byte("none")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a read after the end: %v", err)
	}
}

func TestAReplicaIsAStore(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"UpdateIsAllOrNothing":                  TestUpdateIsAllOrNothing,
		"TxSeesItsOwnWrites":                    TestTxSeesItsOwnWrites,
		"ScanIsOrderedAndSeesOneInstant":        TestScanIsOrderedAndSeesOneInstant,
		"UpdatesUnderOneLockDoNotLoseEachOther": TestUpdatesUnderOneLockDoNotLoseEachOther,
		"AfterCloseEveryCallSaysSo":             TestAfterCloseEveryCallSaysSo,
		"TxBehavesAsAMap":                       TestTxBehavesAsAMap,
		"DeletePrefixOfManyKeys":                TestDeletePrefixOfManyKeys,
		"UpdateThatPanicsLeavesNothingBehind":   TestUpdateThatPanicsLeavesNothingBehind,
		"UpdatesUnderOtherLocksGoOn":            TestUpdatesUnderOtherLocksGoOn,
		"AViewSeesOneInstant":                   TestAViewSeesOneInstant,
	} {
		t.Run(name, test)
	}
}

// What one node refuses because it does not know yet what another has written is
// no refusal.
func TestARefusalIsOfTheNewestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, nil)
		slow := l.log.Client(memlog.Faults{Delay: 400 * time.Millisecond})
		a, b := l.open("a", true), l.openBy("b", slow, true)
		for i := range 20 {
			key := fmt.Sprint(i)
			if err := putKey(a.DB(), key, "v"); err != nil {
				t.Fatal(err)
			}
			err := b.DB().Update(key, func(tx *store.Tx) error {
				_, err := tx.Get([]byte(key))
				return err
			})
			if err != nil {
				t.Errorf("what another node has just written: %v", err)
			}
		}
		if err := b.DB().Update("x", func(tx *store.Tx) error { _, err := tx.Get([]byte("x")); return err }); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("what nobody has written: %v", err)
		}
	})
}

func TestWithoutTheLogAnUpdateMayYetCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, nil)
		way := l.log.Client(memlog.Faults{})
		a, b := l.openBy("a", way, true), l.open("b", true)
		way.Cut(true)
		began := time.Now()
		var wg sync.WaitGroup
		var commits atomic.Int32
		wg.Go(func() {
			err := a.DB().Update("k", func(tx *store.Tx) error {
				tx.Set([]byte("k"), []byte("late"))
				tx.OnCommit(func() { commits.Add(1) })
				return nil
			})
			if took := time.Since(began); !errors.Is(err, store.ErrNoLog) || took != 10*time.Second {
				t.Errorf("without the log: %v after %v", err, took)
			}
		})
		time.Sleep(time.Second)
		if err := putKey(a.DB(), "k", "next"); !errors.Is(err, store.ErrNoLog) {
			t.Errorf("behind it: %v", err)
		}
		wg.Wait()
		if err := a.DB().Barrier(t.Context()); !errors.Is(err, store.ErrNoLog) {
			t.Errorf("Barrier: %v", err)
		}
		way.Cut(false)
		time.Sleep(5 * time.Second)
		l.barrier(a, b)
		if got, err := b.DB().Get([]byte("k")); err != nil || string(got) != "late" || commits.Load() != 1 {
			t.Errorf("the log is back: %q, %v, OnCommit ran %d times", got, err, commits.Load())
		}
		if err := putKey(a.DB(), "k", "next"); err != nil {
			t.Errorf("the log is back, and the lock is not: %v", err)
		}
	})
}

func TestMembersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, nil)
		a, b := l.open("a", false), l.open("b", false)
		if err := putKey(a.DB(), "k", "v"); !errors.Is(err, store.ErrFenced) {
			t.Errorf("before it joins: %v", err)
		}
		var told []string
		a.OnMembers(func() {
			names := ""
			for _, m := range a.Members() {
				names += m.Name
			}
			told = append(told, names)
		})
		for _, r := range []*store.Replica{a, b} {
			if _, err := r.Join(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		first := store.Epoch(b)
		for range 4 { // a beats, and b is silent
			time.Sleep(time.Second)
			if err := a.Beat(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		members := a.Members()
		if members[0].Silent != 0 || members[1].Silent != 4 {
			t.Errorf("silent for %d and %d seconds, want 0 and 4", members[0].Silent, members[1].Silent)
		}
		// A node of the same name replaces the first.
		second := l.open("b", true)
		l.barrier(a, b)
		if err := putKey(b.DB(), "k", "v"); !errors.Is(err, store.ErrReplaced) || !errors.Is(err, store.ErrFenced) || !errors.Is(b.WhyFenced(), store.ErrReplaced) {
			t.Errorf("a node that was replaced: %v", err)
		}
		if a.Alive(first) || a.Leader() != store.Epoch(a) || second.WhyFenced() != nil {
			t.Errorf("after the replacement: alive %v, leader %d", a.Alive(first), a.Leader())
		}
		if err := a.Leave(t.Context()); err != nil {
			t.Error(err)
		}
		l.barrier(second)
		if second.Leader() != store.Epoch(second) {
			t.Errorf("the leader has left, and %d leads", second.Leader())
		}
		if err := a.Beat(t.Context()); !errors.Is(err, store.ErrFenced) {
			t.Errorf("a beat of who has left: %v", err)
		}
		if diff := cmp.Diff([]string{"a", "ab", "ab", "b"}, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func TestQuitEndsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, nil)
		way := l.log.Client(memlog.Faults{})
		a := l.openBy("a", way, true)
		way.Cut(true)
		cause := errors.New("cut off")
		began := time.Now()
		time.AfterFunc(time.Second, func() { a.Quit(cause) })
		if err := putKey(a.DB(), "k", "v"); !errors.Is(err, cause) || !errors.Is(err, store.ErrFenced) || time.Since(began) != time.Second {
			t.Errorf("what waits: %v after %v", err, time.Since(began))
		}
		<-a.Fenced()
		way.Cut(false)
		if _, err := a.Join(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := putKey(a.DB(), "k", "v"); err != nil {
			t.Error(err)
		}
	})
}

func TestALogThatWentBackStopsEveryNode(t *testing.T) {
	l := newLane(t, nil)
	behind := l.log.Client(memlog.Faults{})
	a, b := l.open("a", true), l.openBy("b", behind, true)
	l.barrier(a, b)
	behind.Cut(true)
	for i := range 5 {
		if err := putKey(a.DB(), fmt.Sprint(i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	l.log.Lose(3)
	// What a has read and the log has lost is gone: a says so with its next group,
	// which comes to a place where it has read another.
	go func() { _ = a.Beat(t.Context()) }()
	behind.Cut(false)
	awaitDone(t, b, store.ErrLogWentBack)
	// b is done, and a hears of others again.
	c, err := store.OpenReplica(store.ReplicaOptions{Log: l.log, Snapshots: l.snapshots, Name: "c"})
	if err != nil {
		t.Fatal(err)
	}
	awaitDone(t, c, store.ErrLogWentBack)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// A node that has read more than the log holds does not follow it any more.
func TestANodeThatIsAheadOfTheLogStops(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, nil)
		a := l.open("a", true)
		for i := range 5 {
			if err := putKey(a.DB(), fmt.Sprint(i), "v"); err != nil {
				t.Fatal(err)
			}
		}
		l.log.Lose(3)
		for range 30 {
			time.Sleep(time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_ = a.Beat(ctx)
			cancel()
		}
		awaitDone(t, a, store.ErrLogWentBack)
	})
	l := newLane(t, nil)
	open := func(log store.Log) (*store.Replica, error) {
		return store.OpenReplica(store.ReplicaOptions{Dir: dir, Log: log, Snapshots: l.snapshots, Name: "a"})
	}
	a, err := open(l.log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := putKey(a.DB(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	// The folder is a node's, and this log another one's that is as long.
	if _, err := store.Open(dir, nil); !errors.Is(err, store.ErrReplicated) {
		t.Errorf("opened as the store of one node: %v", err)
	}
	other := newLane(t, nil)
	b := other.open("b", true)
	for range 3 {
		if err := putKey(b.DB(), "k", "v"); err != nil {
			t.Fatal(err)
		}
	}
	again, err := open(other.log)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-again.Done():
	case <-time.After(time.Minute):
		t.Fatal("a node follows another cluster's log")
	}
	if err := again.Err(); !errors.Is(err, store.ErrLogWentBack) && !errors.Is(err, store.ErrOtherLog) {
		t.Errorf("another log: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestGroupsOfOthers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		group func(sent []byte) []byte
		want  error // nil: it is passed over
	}{
		{"nothing", func([]byte) []byte { return nil }, nil},
		{"noise", func([]byte) []byte { return []byte("\x01noise") }, nil},
		{"one that is cut", func(g []byte) []byte { return g[:len(g)-1] }, nil},
		{"one that is too long", func(g []byte) []byte { return append(g, 0xff) }, nil},
		{"a newer form", func(g []byte) []byte { g[0] = 2; return g }, store.ErrNewerLog},
		{"another log's", func(g []byte) []byte { g[5] ^= 1; return g }, store.ErrOtherLog},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLane(t, nil)
			var sent []byte
			a := l.openBy("a", spy{l.log, func(group []byte) { sent = bytes.Clone(group) }}, true)
			b := l.open("b", true)
			if err := putKey(a.DB(), "k", "v"); err != nil {
				t.Fatal(err)
			}
			if err := l.log.Append(t.Context(), "foreign", tt.group(bytes.Clone(sent))); err != nil {
				t.Fatal(err)
			}
			if tt.want != nil {
				awaitDone(t, a, tt.want)
				awaitDone(t, b, tt.want)
				return
			}
			if err := putKey(a.DB(), "k", "w"); err != nil {
				t.Fatal(err)
			}
			l.barrier(b)
			if got, err := b.DB().Get([]byte("k")); err != nil || string(got) != "w" {
				t.Errorf("behind it: %q, %v", got, err)
			}
		})
	}
}

// spy is a log that shows what is appended.
type spy struct {
	store.Log
	see func(group []byte)
}

func (s spy) Append(ctx context.Context, id string, group []byte) error {
	s.see(group)
	return s.Log.Append(ctx, id, group)
}

// TestABarrierDoesNotTakeAnOldEnd asks who orders the log no more, and says so, or names an end
// before what the node has read.
func TestABarrierDoesNotTakeAnOldEnd(t *testing.T) {
	for _, sure := range []bool{false, true} {
		l := newLane(t, nil)
		a := l.open("a", true)
		old := &oldEnd{Log: l.log, sure: sure}
		b, stranger := l.openBy("b", old, true), l.openBy("stranger", &oldEnd{Log: l.log}, false)
		l.barrier(b)
		for i := range 50 {
			pos, _, _ := b.Applied()
			old.end.Store(pos)
			want := fmt.Sprint(i)
			if err := putKey(a.DB(), "k", want); err != nil {
				t.Fatal(err)
			}
			l.barrier(b)
			if got, err := b.DB().Get([]byte("k")); err != nil || string(got) != want {
				t.Fatalf("behind a barrier with an old end, sure: %v: %q, %v, want %q", sure, got, err, want)
			}
		}
		l.barrier(stranger)
	}
}

// oldEnd is a log that names an end of some time ago.
type oldEnd struct {
	store.Log
	end  atomic.Uint64
	sure bool
}

func (o *oldEnd) End(context.Context) (end uint64, sure bool, err error) {
	return o.end.Load(), o.sure, nil
}

// TestACopyKnowsItsLogAtOnce has a copy begin that has applied nothing when it is asked
// which log it follows.
func TestACopyKnowsItsLogAtOnce(t *testing.T) {
	l := newLane(t, nil)
	want := l.open("a", true).LogID()
	if got := l.openBy("b", &onceFollowed{Log: l.log}, false).LogID(); got != want || strings.Trim(got, "0") == "" {
		t.Errorf("it follows the log %q, want %q", got, want)
	}
}

// onceFollowed is a log that can be followed once, and then does not answer.
type onceFollowed struct {
	store.Log
	followed atomic.Bool
}

func (o *onceFollowed) Follow(ctx context.Context, from uint64, fn func(uint64, time.Time, []byte) error) error {
	if o.followed.Swap(true) {
		<-ctx.Done()
		return ctx.Err()
	}
	return o.Log.Follow(ctx, from, fn)
}

func TestLocksOfLongAgoAreForgotten(t *testing.T) {
	l := newLane(t, nil)
	a, b := l.open("a", true), l.open("b", true)
	var wg sync.WaitGroup
	for w := range 50 {
		wg.Go(func() {
			for i := range 100 {
				if err := putKey(a.DB(), fmt.Sprintf("%d/%d", i, w), "v"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for range 2 {
		if err := a.Beat(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := a.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := putKey(b.DB(), "young", "v"); err != nil {
			t.Fatal(err)
		}
	}
	l.barrier(a, b)
	for _, r := range []*store.Replica{a, b} {
		if n, err := store.CountLocks(r.DB()); err != nil || n != 1 {
			t.Errorf("%s knows %d locks, error %v, want the young one alone", r.Name(), n, err)
		}
	}
	if err := putKey(b.DB(), "1/1", "w"); err != nil {
		t.Error(err)
	}
}

// Whatever a log holds, nodes that read it hold the same, or stop for the same
// reason.
func TestNodesMakeTheSameOfAnything(t *testing.T) {
	for s := range *seeds {
		r := rand.New(rand.NewPCG(s, 3))
		l := newLane(t, nil)
		var sent [][]byte
		a := l.openBy("a", spy{l.log, func(group []byte) { sent = append(sent, bytes.Clone(group)) }}, true)
		b := l.open("b", false)
		for i := range 5 {
			if err := putKey(a.DB(), fmt.Sprint(i%2), fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 20 {
			group := bytes.Clone(sent[r.IntN(len(sent))])
			for range r.IntN(3) {
				// Behind the log's id and what the sender has seen nodes read on.
				group[17+r.IntN(len(group)-17)] = byte(r.Uint32() >> r.IntN(32))
			}
			if err := l.log.Append(t.Context(), fmt.Sprint("foreign ", i), group); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range []*store.Replica{a, b} {
			_ = r.DB().Barrier(t.Context()) // or it has stopped
		}
		if fmt.Sprint(a.Err()) != fmt.Sprint(b.Err()) {
			t.Fatalf("seed %d: one ended with %v, the other with %v", s, a.Err(), b.Err())
		}
		one, err := store.StateHash(a.DB())
		other, otherErr := store.StateHash(b.DB())
		if err != nil || otherErr != nil || one != other {
			t.Fatalf("seed %d: the nodes differ, errors %v and %v", s, err, otherErr)
		}
	}
}

// A node without space refuses its own changes, and keeps up with the others.
func TestANodeWithoutSpaceFollows(t *testing.T) {
	l := newLane(t, nil)
	a := l.open("a", true)
	fs := newBadFS(vfs.NewMem())
	b, err := store.OpenReplicaFS(fs, "", store.ReplicaOptions{Log: l.log, Snapshots: l.snapshots, Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	fs.free.Store(1000)
	// What it has been told of the space holds for a moment.
	for err = nil; err == nil; {
		err = putKey(b.DB(), "own", "v")
	}
	if !errors.Is(err, store.ErrFull) {
		t.Errorf("without space: %v", err)
	}
	if err := putKey(a.DB(), "other", "v"); err != nil {
		t.Fatal(err)
	}
	l.barrier(b)
	if got, err := b.DB().Get([]byte("other")); err != nil || string(got) != "v" {
		t.Errorf("the other's change: %q, %v", got, err)
	}
	fs.free.Store(1 << 30)
	for err = store.ErrFull; errors.Is(err, store.ErrFull); {
		err = putKey(b.DB(), "own", "v")
	}
	if err != nil {
		t.Errorf("with space again: %v", err)
	}
}

func TestWhatIsReservedIsNotSeen(t *testing.T) {
	l := newLane(t, nil)
	r := l.open("a", true)
	set(t, r.DB(), "a", "1")
	if diff := cmp.Diff([]string{"a=1"}, scan(t, r.DB(), "", "")); diff != "" {
		t.Errorf("Scan (-want +got):\n%s", diff)
	}
	err := r.DB().View(func(v *store.View) error {
		c, err := v.Cursor(nil, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		if c.Seek(nil); string(c.Key()) != "a" {
			t.Errorf("a cursor sees %q", c.Key())
		}
		if _, err := v.Get([]byte("\x00applied")); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("View.Get: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.DB().Get([]byte("\x00applied")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if err := putKey(r.DB(), "\x00applied", "x"); err == nil || !strings.Contains(err.Error(), "reserved") {
		t.Errorf("Set: %v", err)
	}
	if err := putKey(r.DB(), "big", strings.Repeat("x", 800<<10)); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("a large value: %v", err)
	}
	if err := r.DB().Replace(t.Context(), func(func(k, v []byte) bool) {}, nil); !errors.Is(err, store.ErrReplicated) {
		t.Errorf("Replace: %v", err)
	}
}

// Whoever subscribes while others write sees each key at its first state and each
// change behind that, none twice and none left out.
func TestASubscriptionBeginsBetweenTwoChanges(t *testing.T) {
	t.Run("one node", func(t *testing.T) {
		db := openMemory(t)
		trySubscriptions(t, db, db)
	})
	t.Run("two nodes", func(t *testing.T) {
		l := newLane(t, nil)
		a, b := l.open("a", true), l.open("b", true)
		trySubscriptions(t, a.DB(), b.DB())
	})
}

// trySubscriptions subscribes to b again and again while changes come by a and b.
func trySubscriptions(t *testing.T, a, b *store.DB) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i, db := range []*store.DB{a, b} {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := putKey(db, fmt.Sprintf("k/%d/%d", i, n%5), strconv.Itoa(n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 50 {
		var mu sync.Mutex // changes of different locks come at the same time
		seen := map[string]int{}
		cancel, err := b.Subscribe("k/", func(c store.Change) {
			n, err := strconv.Atoi(string(c.Value))
			mu.Lock()
			defer mu.Unlock()
			if old, ok := seen[string(c.Key)]; err != nil || ok && n != old+5 {
				t.Errorf("%s at %d: %q after %d", c.Key, c.Pos, c.Value, old)
			}
			seen[string(c.Key)] = n
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := putKey(b, "other", ""); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	close(stop)
	wg.Wait()
}

// TestLag has the copy of a node fall behind, and catch up.
func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(t, nil)
		r := l.open("a", false)
		if lag := r.Lag(); lag != 0 {
			t.Errorf("one that is no member is %v behind", lag)
		}
		if _, err := r.Join(t.Context()); err != nil {
			t.Fatal(err)
		}
		goOn := make(chan bool)
		if _, err := r.DB().Subscribe("slow", func(store.Change) { <-goOn }); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- putKey(r.DB(), "slow", "1") }()
		synctest.Wait()
		time.Sleep(3 * time.Second)
		if lag := r.Lag(); lag != 3*time.Second {
			t.Errorf("it is %v behind, want 3s", lag)
		}
		close(goOn)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if lag := r.Lag(); lag != 0 {
			t.Errorf("it is %v behind when it has caught up", lag)
		}
	})
}
