package store_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/iotdm/iotdm/hub/cluster/memlog"
	"github.com/iotdm/iotdm/hub/store"
)

// What is read as a group is written as the same bytes; all else is refused.
func FuzzGroup(f *testing.F) {
	l := newSeedLog(f)
	for _, group := range l {
		f.Add(group)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		again, err := store.Recode(bytes.Clone(b))
		switch {
		case err == nil && !bytes.Equal(again, b):
			t.Fatalf("%x was read as %x", b, again)
		case err != nil && !errors.Is(err, store.ErrMalformed) && !errors.Is(err, store.ErrNewerLog):
			t.Fatal(err)
		}
	})
}

// newSeedLog returns the groups of two members that do all that there is to do.
func newSeedLog(t testing.TB) (groups [][]byte) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	log, snapshots := memlog.New(), &memlog.Snapshots{}
	seen := spy{log, func(group []byte) { groups = append(groups, bytes.Clone(group)) }}
	must(store.StartLog(t.Context(), seen, snapshots, nil))
	open := func(name string) *store.Replica {
		r, err := store.OpenReplica(store.ReplicaOptions{Log: seen, Snapshots: snapshots, Name: name, About: []byte("about")})
		must(err)
		t.Cleanup(func() { must(r.Close()) })
		_, err = r.Join(t.Context())
		must(err)
		return r
	}
	a, b := open("a"), open("b")
	must(a.DB().Update("lock", func(tx *store.Tx) error {
		tx.Set([]byte("k"), []byte("value"))
		tx.Set([]byte("empty"), nil)
		tx.Delete([]byte("gone"))
		for i := range 300 {
			tx.Set([]byte{'p', '/', byte(i), byte(i >> 8)}, nil)
		}
		tx.Tell("kind", []byte("told"))
		return nil
	}))
	must(a.DB().Update("lock", func(tx *store.Tx) error { tx.DeletePrefix([]byte("p/")); return nil }))
	must(a.Beat(t.Context()))
	must(a.DB().Barrier(t.Context()))
	must(a.Expel(t.Context(), store.Epoch(b)))
	for range 3 {
		must(putKey(a.DB(), "k", "v"))
		must(a.Snapshot(t.Context()))
	}
	must(a.Leave(t.Context()))
	return groups
}
