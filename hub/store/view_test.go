package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/store"
)

// view calls fn with a view of the store.
func view(t *testing.T, db *store.DB, fn func(*store.View)) {
	t.Helper()
	if err := db.View(func(v *store.View) error { fn(v); return nil }); err != nil {
		t.Fatal(err)
	}
}

// walk returns what a cursor sees.
func walk(t *testing.T, v *store.View, start, end string) (got []string) {
	t.Helper()
	c, err := v.Cursor([]byte(start), []byte(end))
	if err != nil {
		t.Fatal(err)
	}
	for ok := c.Seek([]byte(start)); ok; ok = c.Next() {
		value, err := c.Value()
		if err != nil {
			t.Error(err)
		}
		got = append(got, string(c.Key())+"="+string(value))
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	return got
}

func TestAViewSeesOneInstant(t *testing.T) {
	db := openMemory(t)
	set(t, db, "a", "1", "b", "1", "c", "1")
	view(t, db, func(v *store.View) {
		set(t, db, "a", "2", "bb", "2")
		if diff := cmp.Diff([]string{"a=1", "b=1"}, walk(t, v, "a", "c")); diff != "" {
			t.Errorf("cursor (-want +got):\n%s", diff)
		}
		if got, err := v.Get([]byte("a")); string(got) != "1" || err != nil {
			t.Errorf("Get(a) = %s, %v, want 1", got, err)
		}
		if _, err := v.Get([]byte("bb")); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get(bb) = %v, want ErrNotFound", err)
		}
		c, err := v.Cursor([]byte("a"), []byte("c"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if !c.Seek([]byte("aa")) || string(c.Key()) != "b" || c.Next() || c.Seek([]byte("bb")) {
			t.Error("Seek(aa) is not at b, or there is something behind it")
		}
	})
	boom := errors.New("boom")
	if err := db.View(func(*store.View) error { return boom }); err != boom {
		t.Errorf("View = %v, want the error of the function", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := db.View(nil); !errors.Is(err, store.ErrClosed) {
		t.Errorf("View after Close = %v", err)
	}
}

func TestSplitCutsIntoPartsOfSimilarSize(t *testing.T) {
	db := openMemory(t)
	random := make([]byte, 0, 64<<10)
	for i := uint64(1); len(random) < cap(random); i++ {
		random = binary.LittleEndian.AppendUint64(random, i*0x9e3779b97f4a7c15)
	}
	for i := range 40 {
		for j := range 10 {
			set(t, db, fmt.Sprintf("k%02d%d", i, j), string(random))
		}
		if i%4 == 3 {
			if err := store.Flush(db); err != nil {
				t.Fatal(err)
			}
		}
	}
	view(t, db, func(v *store.View) {
		keys, err := v.Split([]byte("k05"), []byte("k35"))
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) < 2 || len(keys) > 10 {
			t.Errorf("%d keys cut 20 MB", len(keys))
		}
		before := []byte("k05")
		for _, k := range keys {
			if bytes.Compare(k, before) <= 0 || string(k) >= "k35" {
				t.Errorf("key %s behind %s", k, before)
			}
			before = k
		}
		if keys, err := v.Split([]byte("x"), []byte("y")); len(keys) > 0 || err != nil {
			t.Errorf("nothing is cut at %s, %v", keys, err)
		}
	})
}
