package store_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/store"
)

// records are pairs as Replace takes them.
func records(pairs ...string) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		for i := 0; i < len(pairs); i += 2 {
			if !yield([]byte(pairs[i]), []byte(pairs[i+1])) {
				return
			}
		}
	}
}

func replace(t *testing.T, db *store.DB, pairs ...string) {
	t.Helper()
	called := 0
	if err := db.Replace(t.Context(), records(pairs...), func() { called++ }); err != nil {
		t.Fatal(err)
	}
	if called != 1 {
		t.Errorf("it has been told %d times that the records are there", called)
	}
}

func TestReplaceLeavesTheRecordsAlone(t *testing.T) {
	db := openMemory(t)
	replace(t, db) // nothing by nothing
	set(t, db, "a", "1", "b", "1", "\xff\xff", "1")
	replace(t, db, "b", "2", "c", "")
	if diff := cmp.Diff([]string{"b=2", "c="}, scan(t, db, "", "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	set(t, db, "a", "3")
	replace(t, db)
	if got := scan(t, db, "", ""); len(got) > 0 {
		t.Errorf("there is still %q", got)
	}
	set(t, db, "a", "4")
	if diff := cmp.Diff([]string{"a=4"}, scan(t, db, "", "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Writers count in a record of their own and in one that they share: a change
// that is part in the old state and part in the new would show as a difference.
func TestReplaceRunsAlone(t *testing.T) {
	db := openMemory(t)
	const writers = 8
	add := func(tx *store.Tx, key string) error {
		old, err := tx.Get([]byte(key))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		tx.Set([]byte(key), append(old, 'x'))
		return nil
	}
	var writing sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	var inside, committed sync.Map
	for i := range writers {
		own := fmt.Sprint("own/", i)
		writing.Go(func() {
			for ctx.Err() == nil {
				err := db.Update(own, func(tx *store.Tx) error {
					inside.Store(own, true)
					tx.OnCommit(func() {
						inside.Delete(own)
						n, _ := committed.LoadOrStore(own, 0)
						committed.Store(own, n.(int)+1)
					})
					return errors.Join(add(tx, own), add(tx, own+"/twice"))
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 100 {
		err := db.Replace(t.Context(), records("marker", "1"), func() {
			inside.Range(func(k, _ any) bool {
				t.Errorf("%s is being changed while all is replaced", k)
				return true
			})
			committed.Clear()
			if diff := cmp.Diff([]string{"marker=1"}, scan(t, db, "", "")); diff != "" {
				t.Errorf("before the next change (-want +got):\n%s", diff)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	stop()
	writing.Wait()
	for i := range writers {
		own := fmt.Sprint("own/", i)
		n, _ := committed.Load(own)
		want, _ := n.(int)
		for _, key := range []string{own, own + "/twice"} {
			got, err := db.Get([]byte(key))
			if want > 0 && err != nil || len(got) != want {
				t.Errorf("%s was changed %d times, the last time all was replaced and since: it has %d, %v", key, want, len(got), err)
			}
		}
	}
}

func TestReplaceWaitsAsLongAsItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t)
		set(t, db, "a", "1")
		hold, held := make(chan struct{}), make(chan struct{})
		var updates sync.WaitGroup
		updates.Go(func() {
			err := db.Update("x", func(tx *store.Tx) error {
				close(held)
				<-hold
				tx.Set([]byte("b"), []byte("1"))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-held
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := db.Replace(ctx, records(), func() { t.Error("it was replaced") })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Replace = %v, want that time is up", err)
		}
		set(t, db, "c", "1") // who comes later does not wait for it any more
		close(hold)
		updates.Wait()
		if diff := cmp.Diff([]string{"a=1", "b=1", "c=1"}, scan(t, db, "", "")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestAReplaceIsWholeAfterLossOfPower(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	states := [][]string{nil, nil}
	for i := range states {
		for n := range 200 + 300*i {
			states[i] = append(states[i], fmt.Sprintf("%d/%04d=%s", i, n, strings.Repeat("v", r.IntN(3000))))
		}
	}
	pairs := func(state []string) (list []string) {
		for _, s := range state {
			k, v, _ := strings.Cut(s, "=")
			list = append(list, k, v)
		}
		return list
	}
	mem := vfs.NewCrashableMem()
	db, err := store.OpenFS(mem, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	set(t, db, pairs(states[0])...)
	found := make(map[int]int)
	look := func(must int) {
		clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})
		crashed, err := store.OpenFS(clone, "", nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer crashed.Close()
		got := scan(t, crashed, "", "")
		which := slices.IndexFunc(states, func(state []string) bool { return slices.Equal(state, got) })
		if which < 0 || must >= 0 && which != must {
			t.Errorf("after the crash there are %d records of neither state, or of the wrong one (%d)", len(got), which)
		}
		found[which]++
	}
	for i := range 20 {
		next := 1 - i%2
		done := make(chan struct{})
		go func() {
			defer close(done)
			replace(t, db, pairs(states[next])...)
		}()
		for waiting := true; waiting; {
			select {
			case <-done:
				waiting = false
			default:
				look(-1)
			}
		}
		look(next)
	}
	t.Logf("found %v", slices.Sorted(maps.Keys(found)))
}
