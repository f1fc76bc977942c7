package outbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/mqttdevice"
)

var errBroken = errors.New("the disk is broken")

// noSync is for tests of what a kill leaves, for which no fsync is needed.
func noSync(*os.File) error { return nil }

// FuzzFaults plays a source, a hub and a machine that fails, against a list.
//
// Each byte of the input is one step.
func FuzzFaults(f *testing.F) {
	f.Add([]byte{1, 2, 8, 3, 16, 1, 9, 4, 20, 5, 6, 7, 28, 250, 200, 100, 0})
	f.Add([]byte{6, 6, 6, 4, 1, 6, 4, 2, 6, 3, 7, 3})
	f.Add(slices.Repeat([]byte{120, 121, 3, 5, 1, 122}, 20))
	random := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		var steps []byte
		for range 60 {
			steps = append(steps, byte(random.Uint32()))
		}
		f.Add(steps)
	}
	f.Fuzz(func(t *testing.T, steps []byte) {
		if len(steps) > 120 {
			t.Skip("long enough")
		}
		fail := false
		opt := Options{MaxBytes: MinBytes, sync: func(*os.File) error {
			if fail {
				return errBroken
			}
			return nil
		}}
		dir := t.TempDir()
		b := open(t, dir, opt)
		var model []string                          // what was added and not acknowledged by the hub; some of it is dropped
		added, state, stateOf := 0, []byte(nil), "" // the segment that the position is in
		for _, step := range steps {
			n := int(step / 8)
			switch step % 8 {
			case 0, 1, 2: // a source adds messages
				before := b.Stats().Dropped
				var batch []mqttdevice.Message
				for i := range n%4 + 1 {
					payload := fmt.Sprintf("%d %s", added, strings.Repeat("x", n*i*500))
					batch = append(batch, mqttdevice.Message{Payload: []byte(payload)})
					model = append(model, payload)
					added++
				}
				if err := b.Add(batch...); err != nil {
					t.Fatal(err)
				}
				model = model[b.Stats().Dropped-before:]
			case 3: // the hub takes some
				n = min(n, len(model))
				if diff := cmp.Diff(model[:n], take(t, b, n)); n > 0 && diff != "" {
					t.Fatalf("sent (-want +got):\n%s", diff)
				}
				model = model[n:]
			case 4: // kill -9
				dir = copyOf(t, dir)
				b.Close()
				b = open(t, dir, opt)
			case 5: // a power cut: the position is an old one, and a batch was half written
				dir = copyOf(t, dir)
				sent := b.Stats()
				b.Close()
				files := segmentFiles(t, dir)
				if len(files) > 0 {
					appendTo(t, files[len(files)-1], slices.Repeat([]byte{step, 0}, n))
				}
				// A segment goes only when the position behind it is durable.
				if state != nil && len(files) > 0 && filepath.Base(files[0]) == stateOf && sent.Dropped == 0 && sent.Damaged == 0 {
					if err := os.WriteFile(filepath.Join(dir, "state"), state, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				b = open(t, dir, opt)
				got := queued(t, b)
				if len(got) < len(model) {
					t.Fatalf("%d messages are left of %d", len(got), len(model))
				}
				again := len(got) - len(model)
				if diff := cmp.Diff(model, got[again:]); len(model) > 0 && diff != "" {
					t.Fatalf("after a power cut (-want +got):\n%s", diff)
				}
				model = got // what the hub had taken is sent again
			case 6: // an fsync fails
				fail = true
				before := b.Stats().Dropped
				if err := b.Add(mqttdevice.Message{Payload: []byte("failed")}); !errors.Is(err, errBroken) {
					t.Fatalf("Add on a broken disk: %v", err)
				}
				fail = false
				model = model[b.Stats().Dropped-before:]
			case 7: // remember the position, for a power cut
				content, err := os.ReadFile(filepath.Join(dir, "state"))
				if err != nil {
					t.Fatal(err)
				}
				if files := segmentFiles(t, dir); len(files) == 1 {
					state, stateOf = content, filepath.Base(files[0])
				}
			}
			s := b.Stats()
			if s.Queued != uint64(len(model)) || s.Damaged != 0 {
				t.Fatalf("%+v, want %d messages", s, len(model))
			}
		}
		if diff := cmp.Diff(model, queued(t, b)); len(model) > 0 && diff != "" {
			t.Errorf("in the end (-want +got):\n%s", diff)
		}
	})
}

func appendTo(t testing.TB, file string, content []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// filled returns the folder of a closed outbox with messages "00" to "59" in
// several segments.
func filled(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	b := open(t, dir, Options{MaxBytes: MinBytes, sync: noSync})
	for i := range 60 {
		add(t, b, fmt.Sprintf("%02d%s", i, strings.Repeat("x", 5000)))
	}
	b.Close()
	if n := len(segmentFiles(t, dir)); n < 5 {
		t.Fatalf("%d segments are not enough", n)
	}
	return dir
}

// numbers returns what the messages in the outbox begin with.
func numbers(t testing.TB, b *Box) []string {
	var all []string
	for _, m := range queued(t, b) {
		all = append(all, m[:2])
	}
	return all
}

func TestDamageIsSkippedAndCounted(t *testing.T) {
	edit := func(change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, file string) {
			content, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file, change(content), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	for _, tt := range []struct {
		name    string
		segment int // negative: from the end
		damage  func(t *testing.T, file string)
		lost    int
	}{
		{"a bit of a payload", 1, edit(flip(200)), 1},
		{"a bit of the first payload", 0, edit(flip(200)), 1},
		{"a bit of a payload in the last segment", -1, edit(flip(200)), 1},
		{"a size", 1, edit(flip(5)), 1},
		{"a size in the last segment", -1, edit(flip(5)), 1},
		{"a number", 1, edit(flip(8)), 1},
		{"a number in the last segment", -1, edit(flip(8)), 1},
		{"two sizes in a row", 1, edit(func(b []byte) []byte { return flip(5)(flip(format.Size(b) + 6)(b)) }), 2},
		{"the size of the second message", 1, edit(func(b []byte) []byte { return flip(format.Size(b) + 5)(b) }), 1},
		{"half a segment", 1, edit(func(b []byte) []byte { return b[:len(b)/2] }), -1},
		{"an empty segment", 1, edit(func([]byte) []byte { return nil }), -1},
		{"more at the end", 1, edit(func(b []byte) []byte { return append(b, b...) }), 0},
		{"a segment that is gone", 1, func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filled(t)
			files := segmentFiles(t, dir)
			tt.damage(t, files[(tt.segment+len(files))%len(files)])
			b := open(t, dir, Options{MaxBytes: MinBytes, sync: noSync})
			add(t, b, "60")
			got := numbers(t, b)
			lost := 61 - len(got)
			if tt.lost >= 0 && lost != tt.lost || tt.lost < 0 && (lost < 2 || lost > 7) {
				t.Errorf("%d messages are lost: there are %v", lost, got)
			}
			if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) || got[len(got)-1] != "60" {
				t.Errorf("messages %v are not in order", got)
			}
			if s := b.Stats(); s.Damaged != uint64(lost) {
				t.Errorf("%+v, want %d damaged", s, lost)
			}
			// They do not stand in the way of what is removed.
			take(t, b, len(got))
			if s := b.Stats(); s.Queued != 0 || len(segmentFiles(t, dir)) > 1 {
				t.Errorf("%+v and files %v after all is sent", s, segmentFiles(t, dir))
			}
		})
	}
}

func TestDamagedMessagesAtTheEndArePassed(t *testing.T) {
	b := open(t, t.TempDir(), Options{sync: noSync})
	add(t, b, "good", "bad")
	file := segmentFiles(t, b.dir)[0]
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-1] ^= 1
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	checkQueued(t, b, "good")
	take(t, b, 1)
	if s := b.Stats(); s.Queued != 0 || s.Damaged != 1 {
		t.Errorf("%+v, want none queued and one damaged", s)
	}
	add(t, b, "next")
	checkQueued(t, b, "next")
}

func TestLostPositionSendsAllAgain(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, Options{sync: noSync})
	add(t, b, "1", "2")
	take(t, b, 1)
	b.Close()
	if err := os.WriteFile(filepath.Join(dir, "state"), make([]byte, stateSize), 0o600); err != nil {
		t.Fatal(err)
	}
	checkQueued(t, open(t, dir, Options{sync: noSync}), "1", "2")
}

// FuzzDamage changes a byte anywhere. Whatever it is, the outbox opens, what it
// reads is in order and was added, and it takes new messages.
func FuzzDamage(f *testing.F) {
	dir := filled(f)
	names := []string{"state"}
	for _, file := range segmentFiles(f, dir) {
		names = append(names, filepath.Base(file))
	}
	f.Add(uint8(0), uint16(4096), byte(1))
	f.Add(uint8(1), uint16(0), byte(255))
	f.Add(uint8(len(names)-1), uint16(6), byte(128))
	f.Fuzz(func(t *testing.T, which uint8, at uint16, change byte) {
		dir := copyOf(t, dir)
		file := filepath.Join(dir, names[int(which)%len(names)])
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		content[int(at)%len(content)] ^= change
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		b := open(t, dir, Options{MaxBytes: MinBytes, sync: noSync})
		add(t, b, "60")
		got := numbers(t, b)
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) || got[len(got)-1] != "60" {
			t.Errorf("messages %v are not in order", got)
		}
		if len(got) < 60 {
			t.Errorf("a byte costs more than a message: there are %v", got)
		}
	})
}
