package provisioning

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// What was read is written as it was, whatever an older hub or damage has left, and
// the index is as the record says.
func FuzzDecodeRecord(f *testing.F) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 100, time.UTC)
	f.Add(words.MustMarshal(record{
		Shown:  Registration{RegistrationID: "Dev-1", Created: now, Hub: "localhost", DeviceID: "Dev-1", Status: Assigned, Payload: []byte(`{"a":1}`), X509: new(struct{})},
		Source: source{Group, "Line-A", 7}, Place: place{Device: "Dev-1"}, Left: []place{{"other", "Dev-1"}}, Operation: "4.1.2", Ready: now,
	}))
	f.Add([]byte(`{"shown":{"registrationId":"d"},"source":{"kind":0}}`))
	f.Add([]byte("{}"))
	f.Add([]byte("\x01"))
	db, err := store.OpenMemory(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q has lines", err)
			}
			return
		}
		text := words.MustMarshal(r)
		again, err := decodeRecord(text)
		if err != nil || !bytes.Equal(text, words.MustMarshal(again)) {
			t.Errorf("%s is written as %s, %v", data, text, err)
		}
		err = db.Update("x", func(tx *store.Tx) error {
			r.put(tx, &record{})
			if index := r.indexKey(); index != nil {
				if _, err := tx.Get(index); err != nil {
					t.Errorf("no index: %v", err)
				}
			}
			r.remove(tx)
			for _, key := range [][]byte{r.indexKey(), registrationKey(r.Shown.RegistrationID)} {
				if _, err := tx.Get(key); err == nil {
					t.Errorf("%q is left", key)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if shown := r.as(now); !json.Valid(words.MustMarshal(shown)) {
			t.Errorf("shown: %+v", shown)
		}
	})
}
