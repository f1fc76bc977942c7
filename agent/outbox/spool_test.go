package outbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/mqttdevice"
)

func TestSpooledMessagesAreTakenInOrder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "box") // which nobody has made
	want := mqttdevice.Message{Payload: []byte{0, 1}, ID: "x", Created: time.Unix(1e9, 0).UTC(), Properties: map[string]string{"a": "b"}}
	if err := Spool(dir, want, mqttdevice.Message{Payload: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir, Options{})
	for i := 2; i < 5; i++ {
		if err := Spool(dir, mqttdevice.Message{Payload: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := b.collect(); err != nil {
			t.Fatal(err)
		}
	}
	checkQueued(t, b, "\x00\x01", "1", "2", "3", "4")
	first, _, err := b.reader().read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "spool")); len(left) > 0 || err != nil {
		t.Errorf("left in the spool: %v, %v", left, err)
	}
}

func TestSpooledMessagesKeepTheirID(t *testing.T) {
	dir := t.TempDir()
	if err := Spool(dir, mqttdevice.Message{}); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir, Options{})
	// A kill between adding and removing leaves the file.
	kept := copyOf(t, filepath.Join(dir, "spool"))
	for range 2 {
		if err := b.collect(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "spool")); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(dir, "spool"), os.DirFS(kept)); err != nil {
			t.Fatal(err)
		}
	}
	r := b.reader()
	var ids []string
	for range 2 {
		m, _, err := r.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.ID)
	}
	if ids[0] == "" || ids[0] != ids[1] {
		t.Errorf("ids are %q, want the same twice", ids)
	}
}

func TestSpooledByHand(t *testing.T) {
	for _, tt := range []struct{ name, content, want string }{
		{"body", `{"body": {"t": 1}}`, `application/json utf-8 {"t": 1}`},
		{"payload", `{"payload": "aGk=", "contentType": "text/plain"}`, "text/plain  hi"},
		{"two lines and an empty one", "{\"body\": 1}\n\n{\"body\": 2}", "application/json utf-8 1\napplication/json utf-8 2"},
		{"nothing", "", ""},
		{"neither", "{}", "  "},
		{"no JSON", "hello", "rejected"},
		{"a name that is misspelt", `{"boddy": 1}`, "rejected"},
		{"two payloads", `{"body": 1, "payload": ""}`, "rejected"},
		{"too large", `{"body": "` + strings.Repeat("x", 256<<10) + `"}`, "rejected"},
		{"one good and one bad line", "{\"body\": 1}\n{", "rejected"},
		{"two on a line", `{"body": 1} {"body": 2}`, "rejected"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t, t.TempDir(), Options{})
			dir := filepath.Join(b.dir, "spool")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for name, content := range map[string]string{"1.json": tt.content, ".2.json": `{"body": "hidden"}`, "3.txt": "other"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.collect(); err != nil {
				t.Fatal(err)
			}
			var got []string
			if _, err := os.Stat(filepath.Join(dir, "1.json.rejected")); err == nil {
				got = append(got, "rejected")
			}
			r := b.reader()
			for range b.Stats().Queued {
				m, _, err := r.read(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprintf("%s %s %s", m.ContentType, m.ContentEncoding, m.Payload))
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, "\n")); diff != "" {
				t.Errorf("taken (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSpoolGoesOnAfterAnError(t *testing.T) {
	syncs := 0
	b := open(t, t.TempDir(), Options{})
	b.sync = func(*os.File) error {
		if syncs++; syncs == 2 { // by the committer alone
			return errBroken
		}
		return nil
	}
	for round := range 2 { // the next file begins at its beginning
		messages, want := make([]mqttdevice.Message, spoolBatch+1), make([]string, spoolBatch+1)
		for i := range messages {
			want[i] = fmt.Sprint(round, i)
			messages[i].Payload = []byte(want[i])
		}
		if err := Spool(b.dir, messages...); err != nil {
			t.Fatal(err)
		}
		if err := b.collect(); round == 0 && !errors.Is(err, errBroken) {
			t.Errorf("collect on a broken disk: %v", err)
		}
		if err := b.collect(); err != nil {
			t.Error(err)
		}
		checkQueued(t, b, want...)
		take(t, b, len(want))
	}
}

func TestSpoolIsBounded(t *testing.T) {
	dir := t.TempDir()
	if err := Spool(dir, mqttdevice.Message{Payload: make([]byte, 256<<10+1)}); err == nil {
		t.Error("a message that is too large is taken")
	}
	for i := range maxSpoolFiles {
		if err := os.WriteFile(filepath.Join(dir, "spool", fmt.Sprint(i, ".json")), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Spool(dir, mqttdevice.Message{}); !errors.Is(err, ErrSpoolFull) {
		t.Errorf("Spool to a full one: %v", err)
	}
}
