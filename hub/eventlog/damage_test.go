package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"
)

// files are the segments of a folder.
type files map[string][]byte

func readFiles(t *testing.T, fs vfs.FS) files {
	t.Helper()
	names, err := fs.List("log")
	if err != nil {
		t.Fatal(err)
	}
	list := files{}
	for _, name := range names {
		f, err := fs.Open(fs.PathJoin("log", name))
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, info.Size())
		if len(data) > 0 {
			if _, err := f.ReadAt(data, 0); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
		list[name] = data
	}
	return list
}

func (list files) fs(t *testing.T) vfs.FS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("log", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range list {
		f, err := fs.Create(fs.PathJoin("log", name), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(bytes.Clone(data)); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return fs
}

func (list files) clone() files {
	c := files{}
	for name, data := range list {
		c[name] = bytes.Clone(data)
	}
	return c
}

// where returns the file of a record and its place in it.
func where(l *Log, r Record) (name string, from, to int64) {
	for _, s := range l.segments {
		if r.Offset >= s.base && r.Offset < s.base+s.size {
			from = s.header + r.Offset - s.base
			return l.fs.PathBase(l.path(s.base)), from, from + recordHeader + int64(len(r.Data))
		}
	}
	return "", 0, 0
}

// lines prints records, which are compared faster so.
func lines(list []Record) (text []string) {
	for _, r := range list {
		text = append(text, fmt.Sprintf("%d %d/%d %v %x", r.Offset, r.Partition, r.Sequence, r.Time, r.Data))
	}
	return text
}

// checkDamaged opens a log of the damaged files, in which written were the
// records of l, and checks the laws: all records are read that are as they were
// written, as a whole and by partition; none is read that was not written; the
// reader is told where records are missing; no number or offset is given out
// again.
func checkDamaged(t *testing.T, l *Log, written []Record, whole, damaged files) {
	t.Helper()
	fs := damaged.fs(t)
	once := mustOpen(t, fs, Options{Now: newClock().now})
	once.Close() // nothing is written by opening it
	for _, when := range []string{" opened", " opened again"} {
		after := mustOpen(t, fs, Options{Now: newClock().now})
		partitions := after.Partitions()
		var want, lost []Record
		for _, r := range written {
			name, from, to := where(l, r)
			if data := damaged[name]; int64(len(data)) >= to && bytes.Equal(data[from:to], whole[name][from:to]) {
				want = append(want, r)
			} else {
				lost = append(lost, r)
			}
		}
		for _, p := range []int{All, 0, partitions - 1} {
			got := slices.DeleteFunc(readRecords(t, after, p, Position{}), func(r Record) bool { return string(r.Data) == "more" })
			if diff := cmp.Diff(lines(model(want, p, Position{})), lines(got)); diff != "" {
				t.Fatalf("records of partition %d%s (-want +got):\n%s", p, when, diff)
			}
		}
		var told []Damage
		err := after.ReadOver(t.Context(), All, Position{}, nil, func(d Damage) error { told = append(told, d); return nil }, func(Record) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range lost {
			covered := r.Offset >= once.end() // in what is cut off, of which the numbers tell
			for _, d := range told {
				covered = covered || d.Offset <= r.Offset && r.Offset < d.Offset+d.Bytes
			}
			if !covered {
				t.Fatalf("record %d of partition %d, at %d, is lost, and only this was told%s: %+v", r.Sequence, r.Partition, r.Offset, when, told)
			}
		}
		if stats := after.Stats(); stats.Damaged < int64(len(told)) {
			t.Fatalf("%+v of %d places that were told", stats, len(told))
		}
		// Each partition goes on behind all that it ever had.
		for p, key := range keysOf(partitions) {
			appendAll(t, after, key, "more")
			got := readRecords(t, after, p, Position{})
			last := got[len(got)-1]
			for _, r := range written {
				if r.Offset >= last.Offset || r.Partition == p && r.Sequence >= last.Sequence {
					t.Fatalf("the next record of partition %d has number %d and offset %d, but %+v was before", p, last.Sequence, last.Offset, r)
				}
			}
		}
		after.Close()
	}
}

func TestWhateverIsDamagedTheRestIsRead(t *testing.T) {
	for seed := range uint64(90) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewMem()
		partitions := []int{1, 4, 32}[seed%3]
		l := mustOpen(t, fs, Options{MaxBytes: 128 << 10, Partitions: partitions, Now: newClock().now})
		for i := range 5 + rng.IntN(40) {
			data := make([]byte, rng.IntN(1000))
			for j := range data {
				data[j] = byte(rng.IntN(3))
			}
			appendAll(t, l, fmt.Sprint("d", i%7), string(data))
		}
		written := readRecords(t, l, All, Position{})
		whole := readFiles(t, fs)
		damaged := whole.clone()
		var names []string
		for _, s := range l.segments {
			names = append(names, fs.PathBase(l.path(s.base)))
		}
		for range 1 + rng.IntN(3) {
			data := damaged[names[rng.IntN(len(names))]]
			at, n := rng.IntN(len(data)), 1
			if rng.IntN(3) == 0 {
				n = rng.IntN(600)
			}
			if n > 1 && int64(at) < 2*headerSize(partitions) {
				at = int(2 * headerSize(partitions)) // whole headers have a test of their own
			}
			for ; n > 0 && at < len(data); n, at = n-1, at+1 {
				data[at] = byte(rng.IntN(256))
			}
		}
		if rng.IntN(3) == 0 { // as a crash cuts a batch
			name, from, to := where(l, written[len(written)-1])
			damaged[name] = damaged[name][:from+1+rng.Int64N(to-from)]
		}
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { checkDamaged(t, l, written, whole, damaged) })
	}
}

func TestASegmentWithoutAHeaderIsRead(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, Options{MaxBytes: 128 << 10, Now: newClock().now})
	for i := range 40 {
		appendAll(t, l, fmt.Sprint("d", i%7), fmt.Sprintf("%02d%0500d", i, 0))
	}
	written := readRecords(t, l, All, Position{})
	whole := readFiles(t, fs)
	n := len(l.segments)
	if n < 5 {
		t.Fatalf("%d segments", n)
	}
	for name, which := range map[string][]int{
		"the first": {0}, "one in the middle": {2}, "two in a row": {2, 3}, "the last": {n - 1}, "the last two": {n - 2, n - 1}, "all but one": {0, 1, 3, 4, n - 1},
	} {
		t.Run(name, func(t *testing.T) {
			damaged := whole.clone()
			for _, i := range which {
				clear(damaged[fs.PathBase(l.path(l.segments[i].base))][:2*headerSize(4)])
			}
			checkDamaged(t, l, written, whole, damaged)
		})
	}
	t.Run("all, which leaves nobody who knows the salt", func(t *testing.T) {
		damaged := whole.clone()
		for _, data := range damaged {
			clear(data[:2*headerSize(4)])
		}
		after := mustOpen(t, damaged.fs(t), Options{Now: newClock().now})
		if got := readRecords(t, after, All, Position{}); got != nil {
			t.Errorf("%d records", len(got))
		}
		if after.Stats().Damaged == 0 {
			t.Error("no damage is counted")
		}
		appendAll(t, after, "d0", "more")
		if got := readRecords(t, after, All, Position{}); len(got) != 1 || got[0].Offset < l.end() || got[0].Sequence < 40/4 {
			t.Errorf("records %+v behind a log that ended at %d", got, l.end())
		}
	})
}

func TestDamageToALogFromBeforeCostsOnlyItself(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/v1")); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil || len(names) != 3 {
		t.Fatalf("segments %v, %v", names, err)
	}
	damage := func(name string, at int64) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data[at]++
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage(names[0], firstHeaderSize(4)+recordHeader) // in its first record
	damage(names[1], 20)                              // in its only header
	damage(names[2], firstHeaderSize(4)+4)            // in the size of its first record
	clk := newClock()
	l, err := Open(dir, Options{Now: clk.now})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var got []string
	for _, r := range readRecords(t, l, All, Position{}) {
		got = append(got, string(r.Data))
	}
	want := []string{"event 5", "event 6", "event 7", "event 8", "event 9", "event 10", "event 11", "event 13", "event 14", "event 15"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// Damage is told to every reader, but logged and counted once.
func TestDamageIsCountedOnce(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, Options{Partitions: 1})
	appendAll(t, l, "d", "0", "1", "2")
	l.Close()
	list := readFiles(t, fs)
	data := list[fs.PathBase(l.path(0))]
	data[2*headerSize(1)+recordHeader+1+recordHeader]++
	l = mustOpen(t, list.fs(t), Options{})
	for range 3 {
		var got []string
		err := l.ReadOver(t.Context(), 0, Position{}, nil,
			func(d Damage) error { got = append(got, fmt.Sprint(d)); return nil },
			func(r Record) error { got = append(got, string(r.Data)); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"0", fmt.Sprint(Damage{recordHeader + 1, recordHeader + 1}), "2"}, got); diff != "" {
			t.Errorf("a reader gets (-want +got):\n%s", diff)
		}
	}
	want := Stats{Segments: 1, Bytes: 3 * (recordHeader + 1), Damaged: 1, DamagedBytes: recordHeader + 1}
	if diff := cmp.Diff(want, l.Stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

// A segment that was not made completely has the name of the next one, or
// another, and goes.
func TestWhatAFullDiskLeavesIsRemoved(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, Options{Partitions: 1})
	appendAll(t, l, "d", "0")
	l.Close()
	end := l.end()
	list := readFiles(t, fs)
	list[fs.PathBase(l.path(end))] = []byte("iotdmf01")
	list[fs.PathBase(l.path(end+100))] = nil
	fs2 := list.fs(t)
	l = mustOpen(t, fs2, Options{})
	if diff := cmp.Diff(Stats{Segments: 1, Bytes: recordHeader + 1}, l.Stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
	appendAll(t, l, "d", "1")
	l.Close()
	if names, _ := fs2.List("log"); len(names) != 2 {
		t.Errorf("files %v, want two", names)
	}
	l = mustOpen(t, fs2, Options{})
	if diff := cmp.Diff([]entry{{0, 0, "0"}, {0, 1, "1"}}, readAll(t, l, 0)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}

	full := errors.New("full")
	var fail atomic.Bool
	bad := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite && fail.Load() {
			return full
		}
		return nil
	}))
	l = mustOpen(t, bad, Options{})
	appendAll(t, l, "d", "0")
	fail.Store(true)
	for range 5 {
		if err := appendOne(l, "d", "lost"); !errors.Is(err, ErrUnwritten) || !errors.Is(err, full) {
			t.Errorf("Append on a full disk: %v, want ErrUnwritten", err)
		}
	}
	if names, _ := bad.List("log"); len(names) != 1 {
		t.Errorf("files %v, want one", names)
	}
	if got := l.Stats().Unwritten; got != 5 {
		t.Errorf("%d batches are counted, want 5", got)
	}
}
