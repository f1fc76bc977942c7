package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/store"
)

// openMemory opens a store of one node, or a replica in a test of TestAReplicaIsAStore.
func openMemory(t *testing.T) *store.DB {
	t.Helper()
	if strings.HasPrefix(t.Name(), "TestAReplicaIsAStore/") {
		return newLane(t, nil).open("a", true).DB()
	}
	db, err := store.OpenMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func set(t *testing.T, db *store.DB, pairs ...string) {
	t.Helper()
	err := db.Update("", func(tx *store.Tx) error {
		for i := 0; i < len(pairs); i += 2 {
			tx.Set([]byte(pairs[i]), []byte(pairs[i+1]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func scan(t *testing.T, db *store.DB, start, end string) []string {
	t.Helper()
	var lo, hi []byte
	if start != "" {
		lo = []byte(start)
	}
	if end != "" {
		hi = []byte(end)
	}
	var got []string
	err := db.Scan(lo, hi, func(k, v []byte) error {
		got = append(got, string(k)+"="+string(v))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	db := openMemory(t)
	set(t, db, "a", "1")
	boom := errors.New("boom")
	err := db.Update("x", func(tx *store.Tx) error {
		tx.Set([]byte("a"), []byte("2"))
		tx.Set([]byte("b"), []byte("2"))
		tx.OnCommit(func() { t.Error("OnCommit ran after an error") })
		return boom
	})
	if err != boom {
		t.Errorf("Update = %v, want the error of the function", err)
	}
	if diff := cmp.Diff([]string{"a=1"}, scan(t, db, "", "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTxSeesItsOwnWrites(t *testing.T) {
	db := openMemory(t)
	set(t, db, "p/1", "old", "p/2", "old", "q", "old")
	var got []string
	err := db.Update("x", func(tx *store.Tx) error {
		look := func(keys ...string) {
			for _, k := range keys {
				v, err := tx.Get([]byte(k))
				if errors.Is(err, store.ErrNotFound) {
					v = []byte("-")
				} else if err != nil {
					t.Error(err)
				}
				got = append(got, k+"="+string(v))
			}
		}
		tx.Set([]byte("q"), []byte("new"))
		tx.Set([]byte("empty"), nil)
		look("p/1", "q", "empty", "none")
		tx.Set([]byte("p/3"), []byte("new"))
		tx.DeletePrefix([]byte("p/"))
		tx.Set([]byte("p/2"), []byte("again"))
		tx.Delete([]byte("q"))
		look("p/1", "p/2", "p/3", "q")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"p/1=old", "q=new", "empty=", "none=-", "p/1=-", "p/2=again", "p/3=-", "q=-"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("inside (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"empty=", "p/2=again"}, scan(t, db, "", "")); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
}

func TestScanIsOrderedAndSeesOneInstant(t *testing.T) {
	db := openMemory(t)
	set(t, db, "a", "1", "b", "1", "c", "1", "d", "1")
	var got []string
	err := db.Scan([]byte("b"), []byte("d"), func(k, v []byte) error {
		got = append(got, string(k)+"="+string(v))
		set(t, db, "bb", "2", "c", "2")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"b=1", "c=1"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	n := 0
	if err := db.Scan(nil, nil, func(_, _ []byte) error { n++; return store.ErrStop }); n != 1 || err != nil {
		t.Errorf("a scan stopped at once made %d calls, error %v", n, err)
	}
}

func TestUpdatesUnderOneLockDoNotLoseEachOther(t *testing.T) {
	db := openMemory(t)
	const writers, each = 16, 50
	var seen []int // guarded by the lock of the updates
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				err := db.Update("counter", func(tx *store.Tx) error {
					v, err := tx.Get([]byte("n"))
					if err != nil && !errors.Is(err, store.ErrNotFound) {
						return err
					}
					n, _ := strconv.Atoi(string(v))
					tx.Set([]byte("n"), strconv.AppendInt(nil, int64(n+1), 10))
					tx.OnCommit(func() { seen = append(seen, n+1) })
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i, n := range seen {
		if n != i+1 {
			t.Fatalf("hook %d saw %d: out of order", i+1, n)
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d hooks ran, want %d", len(seen), writers*each)
	}
}

func TestAfterCloseEveryCallSaysSo(t *testing.T) {
	db := openMemory(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				key := fmt.Appendf(nil, "%d/%d", i, n)
				err := db.Update(string(key), func(tx *store.Tx) error { tx.Set(key, key); return nil })
				if errors.Is(err, store.ErrClosed) {
					return
				} else if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := db.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := db.Get([]byte("k")); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Get after Close: %v", err)
	}
	if err := db.Scan(nil, nil, nil); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Scan after Close: %v", err)
	}
}

func TestReopenedStoreHasItsValues(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "store")
	for i := range 3 {
		db, err := store.Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Open(dir, nil); !errors.Is(err, store.ErrLocked) {
			t.Errorf("second Open = %v, want ErrLocked", err)
		}
		set(t, db, strconv.Itoa(i), "v")
		if got := len(scan(t, db, "", "")); got != i+1 {
			t.Errorf("%d keys after opening %d times", got, i+1)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPrefixEnd(t *testing.T) {
	for _, tt := range []struct{ prefix, want string }{
		{"a/", "a0"},
		{"a\xfe", "a\xff"},
		{"a\xff\xff", "b"},
		{"\x00", "\x01"},
	} {
		prefix := []byte(tt.prefix)
		if got := string(store.PrefixEnd(prefix)); got != tt.want || string(prefix) != tt.prefix {
			t.Errorf("PrefixEnd(%q) = %q, want %q; the prefix is %q", tt.prefix, got, tt.want, prefix)
		}
	}
	for _, prefix := range []string{"", "\xff", "\xff\xff"} {
		if got := store.PrefixEnd([]byte(prefix)); got != nil {
			t.Errorf("PrefixEnd(%q) = %q, want nil", prefix, got)
		}
	}
}

// What lies between a prefix and its end is what starts with it.
func FuzzPrefixEnd(f *testing.F) {
	f.Add([]byte("a/"), []byte("a/b"))
	f.Add([]byte("a\xff"), []byte("b"))
	f.Add([]byte("\xff"), []byte("\xff\x00"))
	f.Fuzz(func(t *testing.T, prefix, key []byte) {
		end := store.PrefixEnd(prefix)
		between := bytes.Compare(key, prefix) >= 0 && (end == nil || bytes.Compare(key, end) < 0)
		if between != bytes.HasPrefix(key, prefix) {
			t.Errorf("%q is between %q and %q: %v", key, prefix, end, between)
		}
	})
}
