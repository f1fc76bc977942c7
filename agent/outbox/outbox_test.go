package outbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/mqttdevice"
)

func open(t testing.TB, dir string, opt Options) *Box {
	t.Helper()
	b, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func add(t testing.TB, b *Box, payloads ...string) {
	t.Helper()
	for _, p := range payloads {
		if err := b.Add(mqttdevice.Message{Payload: []byte(p)}); err != nil {
			t.Fatal(err)
		}
	}
}

// queued returns the payloads of all messages that are there.
func queued(t testing.TB, b *Box) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // do not wait for more
	var all []string
	for r := b.reader(); ; {
		m, _, err := r.read(ctx)
		if errors.Is(err, context.Canceled) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(m.Payload))
	}
}

// take acknowledges the n oldest messages and returns their payloads.
func take(t testing.TB, b *Box, n int) []string {
	t.Helper()
	var all []string
	r := b.reader()
	for range n {
		m, sequence, err := r.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(m.Payload))
		b.acknowledged(sequence+1, 1)
	}
	return all
}

func checkQueued(t testing.TB, b *Box, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, queued(t, b)); diff != "" {
		t.Errorf("messages in the outbox (-want +got):\n%s", diff)
	}
}

// segmentFiles returns the segment files in the folder, oldest first.
func segmentFiles(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

// copyOf is the folder as a kill -9 would leave it.
func copyOf(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestMessagesSurviveARestartUntilTheyAreAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	b := open(t, dir, Options{})
	add(t, b, "1", "2", "3")
	take(t, b, 1)
	for range 2 {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := b.Add(mqttdevice.Message{}); err != ErrClosed {
		t.Errorf("Add to a closed outbox: %v", err)
	}
	b = open(t, dir, Options{})
	checkQueued(t, b, "2", "3")
	add(t, b, "4")
	checkQueued(t, b, "2", "3", "4")
	want := Stats{Queued: 3, Bytes: b.Stats().Bytes, Sent: 1}
	if diff := cmp.Diff(want, b.Stats()); diff != "" {
		t.Errorf("Stats (-want +got):\n%s", diff)
	}
}

func TestMessagesAreCompleted(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	b := open(t, t.TempDir(), Options{Now: func() time.Time { return now }})
	full := mqttdevice.Message{
		Payload: []byte{0, 255}, ID: "mine", CorrelationID: "c", UserID: "u", ContentType: "text/plain", ContentEncoding: "utf-8",
		Created: now.Add(-time.Hour), Output: "o", Component: "k", Properties: map[string]string{"a": "ü"},
	}
	if err := b.Add(full, mqttdevice.Message{Payload: []byte("bare")}); err != nil {
		t.Fatal(err)
	}
	r := b.reader()
	for _, want := range []mqttdevice.Message{full, {Payload: []byte("bare"), ID: b.prefix + "1", Created: now}} {
		got, _, err := r.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
	}
}

func TestMessageThatNoHubTakesIsRefused(t *testing.T) {
	b := open(t, t.TempDir(), Options{})
	err := b.Add(mqttdevice.Message{}, mqttdevice.Message{Payload: make([]byte, 256<<10+1)})
	if err == nil || !strings.Contains(err.Error(), "262") {
		t.Errorf("Add of a message that is too large: %v", err)
	}
	checkQueued(t, b)
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, Options{})
	_, err := Open(dir, Options{})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), filepath.Join(dir, "lock")) {
		t.Errorf("Open of an open outbox: %v", err)
	}
	b.Close()
	open(t, dir, Options{})
}

func TestOnlyTheUserMayRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "box")
	b := open(t, dir, Options{})
	add(t, b, "secret")
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestConcurrentAddsShareAnFsync holds the first fsync up until all have added.
func TestConcurrentAddsShareAnFsync(t *testing.T) {
	var syncs int
	hold, begun := make(chan struct{}), make(chan struct{}, 100)
	b := open(t, t.TempDir(), Options{})
	b.sync = func(*os.File) error {
		syncs++ // by the committer alone
		begun <- struct{}{}
		<-hold
		return nil
	}
	const adders = 64
	var wg sync.WaitGroup
	wg.Go(func() { add(t, b, "first") })
	<-begun
	for i := range adders {
		wg.Go(func() {
			if err := b.Add(mqttdevice.Message{Payload: fmt.Append(nil, i)}); err != nil {
				t.Error(err)
			}
		})
	}
	for gathered := uint64(0); gathered < adders; {
		b.mu.Lock()
		gathered = b.next.count
		b.mu.Unlock()
	}
	close(hold)
	wg.Wait()
	if syncs != 2 {
		t.Errorf("%d fsyncs, want 2", syncs)
	}
	if n := len(queued(t, b)); n != 1+adders {
		t.Errorf("%d messages, want %d", n, 1+adders)
	}
}

// TestTheOldestMakeRoom fills an outbox several times over.
func TestTheOldestMakeRoom(t *testing.T) {
	dir := t.TempDir()
	var told []uint64
	b := open(t, dir, Options{MaxBytes: MinBytes, OnDropped: func(n uint64) { told = append(told, n) }})
	payload := strings.Repeat("x", 10_000)
	const count = 300
	for i := range count {
		add(t, b, fmt.Sprintf("%03d%s", i, payload))
	}
	s := b.Stats()
	if s.Bytes > MinBytes || s.Bytes < MinBytes*9/10 || s.Queued+s.Dropped != count {
		t.Errorf("%+v, want nearly %d bytes and %d messages", s, MinBytes, count)
	}
	if len(told) == 0 || told[len(told)-1] != s.Dropped || !slices.IsSorted(told) {
		t.Errorf("OnDropped heard of %v, want up to %d", told, s.Dropped)
	}
	b.Close()
	b = open(t, dir, Options{MaxBytes: MinBytes})
	if diff := cmp.Diff(s, b.Stats()); diff != "" {
		t.Errorf("Stats after a restart (-before +after):\n%s", diff)
	}
	for i, got := range queued(t, b) {
		if want := fmt.Sprintf("%03d", int(s.Dropped)+i); got[:3] != want {
			t.Fatalf("message %d is %s, want %s", i, got[:3], want)
		}
	}
}

// TestWhatIsSentIsRemoved checks that an outbox that is drained takes no more
// than a segment.
func TestWhatIsSentIsRemoved(t *testing.T) {
	b := open(t, t.TempDir(), Options{MaxBytes: MinBytes})
	for range 20 {
		add(t, b, strings.Repeat("x", 20_000))
	}
	take(t, b, 20)
	if n := len(segmentFiles(t, b.dir)); n != 1 {
		t.Errorf("%d segments are left, want 1", n)
	}
	checkQueued(t, b)
}

func TestReaderWaits(t *testing.T) {
	b := open(t, t.TempDir(), Options{})
	got := make(chan string)
	go func() {
		defer close(got)
		for r := b.reader(); ; {
			m, _, err := r.read(context.Background())
			if err != nil {
				if err != ErrClosed {
					t.Error(err)
				}
				return
			}
			got <- string(m.Payload)
		}
	}()
	for i := range 3 {
		want := fmt.Sprint(i)
		add(t, b, want)
		if m := <-got; m != want {
			t.Errorf("read %s, want %s", m, want)
		}
	}
	b.Close()
	if m, ok := <-got; ok {
		t.Errorf("read %s after Close", m)
	}
}
