package store_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/store"
)

// A Tx must behave as a map does, whether it holds few writes or many.
func TestTxBehavesAsAMap(t *testing.T) {
	db := openMemory(t)
	model := map[string]string{}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 0))
		err := db.Update("x", func(tx *store.Tx) error {
			for range 1 + r.IntN(1<<r.IntN(10)) {
				key := fmt.Sprintf("%c/%d", 'a'+r.IntN(3), r.IntN(1000))
				switch r.IntN(20) {
				default:
					value := fmt.Sprint(seed, r.IntN(1000))
					tx.Set([]byte(key), []byte(value))
					model[key] = value
				case 0, 1, 2:
					tx.Delete([]byte(key))
					delete(model, key)
				case 3:
					prefix := key[:2+r.IntN(len(key)-1)]
					tx.DeletePrefix([]byte(prefix))
					maps.DeleteFunc(model, func(k, _ string) bool { return strings.HasPrefix(k, prefix) })
				case 4, 5, 6, 7:
					got, err := tx.Get([]byte(key))
					want, ok := model[key]
					if ok != (err == nil) || err != nil && !errors.Is(err, store.ErrNotFound) || string(got) != want {
						t.Errorf("seed %d: Get(%s) = %q, %v, want %q, %v", seed, key, got, err, want, ok)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, k := range slices.Sorted(maps.Keys(model)) {
			want = append(want, k+"="+model[k])
		}
		if diff := cmp.Diff(want, scan(t, db, "", "")); diff != "" {
			t.Fatalf("after seed %d (-want +got):\n%s", seed, diff)
		}
	}
}

func TestDeletePrefixOfManyKeys(t *testing.T) {
	db := openMemory(t)
	for _, n := range []int{255, 256, 257, 3000} {
		err := db.Update("x", func(tx *store.Tx) error {
			for i := range n {
				tx.Set(fmt.Appendf(nil, "p/%d", i), nil)
			}
			tx.Set([]byte("p0"), nil) // the key after all of them
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Update("x", func(tx *store.Tx) error { tx.DeletePrefix([]byte("p/")); return nil }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"p0="}, scan(t, db, "", "")); diff != "" {
			t.Errorf("after deleting %d (-want +got):\n%s", n, diff)
		}
	}
}

func TestUpdateThatPanicsLeavesNothingBehind(t *testing.T) {
	db := openMemory(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = db.Update("x", func(tx *store.Tx) error {
			tx.Set([]byte("k"), nil)
			panic("boom")
		})
	}()
	set(t, db, "other", "1")
	if err := db.Update("x", func(tx *store.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"other=1"}, scan(t, db, "", "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUpdatesUnderOtherLocksGoOn(t *testing.T) {
	db := openMemory(t)
	err := db.Update("slow", func(*store.Tx) error {
		for i := range 200 { // some of them share a shard with "slow"
			if err := put(db, fmt.Sprint("lock", i), nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Close waits for an Update that is running, hooks included.
func TestCloseWaitsForUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := store.OpenMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		inside, leave := make(chan struct{}), make(chan struct{})
		ended, closed := false, false
		go func() {
			err := db.Update("x", func(tx *store.Tx) error {
				tx.Set([]byte("k"), nil)
				tx.OnCommit(func() { close(inside); <-leave })
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			ended = true
		}()
		<-inside
		go func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			closed = true
		}()
		synctest.Wait()
		if closed {
			t.Error("Close has not waited")
		}
		close(leave)
		synctest.Wait()
		if !ended || !closed {
			t.Errorf("Update ended: %v, Close ended: %v", ended, closed)
		}
	}) // fails if a goroutine is left
}

func BenchmarkTxGet(b *testing.B) {
	db, err := store.OpenMemory(nil)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	for _, writes := range []int{1, 8, 9, 1000} {
		b.Run(fmt.Sprintf("after=%d", writes), func(b *testing.B) {
			boom := errors.New("discard")
			_ = db.Update("x", func(tx *store.Tx) error {
				for i := range writes {
					tx.Set(deviceKey(i), nil)
				}
				key := deviceKey(0)
				for b.Loop() {
					if _, err := tx.Get(key); err != nil {
						b.Fatal(err)
					}
				}
				return boom
			})
		})
	}
}
