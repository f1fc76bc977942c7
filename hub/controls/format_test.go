package controls

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/iotdm/iotdm/hub/store"
)

// What decodes is what was encoded: the records of a store, in order, that make
// the same snapshot again. Nothing else decodes, and nothing panics.
func FuzzDecode(f *testing.F) {
	db, err := store.OpenMemory(nil)
	if err != nil {
		f.Fatal(err)
	}
	defer db.Close()
	for _, keys := range []string{"", "a", "ab"} {
		err := db.Update("x", func(tx *store.Tx) error {
			for _, k := range keys {
				tx.Set([]byte(string(k)), []byte("value"))
			}
			return nil
		})
		if err != nil {
			f.Fatal(err)
		}
		data, err := encode(db)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[len(magic) : len(data)-sha256.Size])
	}
	f.Add([]byte("\x01a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, body []byte) {
		data := append([]byte(magic), body...)
		sum := sha256.Sum256(data)
		data = append(data, sum[:]...)
		records, err := decode(data)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("decode: %v", err)
			}
			return
		}
		db, err := store.OpenMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.Replace(t.Context(), records, func() {}); err != nil {
			t.Fatal(err)
		}
		again, err := encode(db)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := decode(again); err != nil || want == nil {
			t.Fatalf("what was loaded and saved: %v", err)
		}
		if len(again) > len(data) || len(again) == len(data) && !bytes.Equal(again, data) { // a length may be longer than it has to be
			t.Errorf("saved again it is %q, was %q", again, data)
		}
	})
}
