package eventlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"
)

// entry is a record without what depends on its size.
type entry struct {
	Partition int
	Sequence  int64
	Data      string
}

// A clock stands still until it is moved.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.ns.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time       { return time.Unix(0, c.ns.Load()) }
func (c *clock) move(d time.Duration) { c.ns.Add(int64(d)) }

func mustOpen(t testing.TB, fs vfs.FS, opt Options) *Log {
	t.Helper()
	l, err := open(fs, "log", opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// appendAll appends the records and returns when they are durable.
func appendAll(t testing.TB, l *Log, key string, data ...string) {
	t.Helper()
	for _, d := range data {
		if err := appendOne(l, key, d); err != nil {
			t.Fatal(err)
		}
	}
}

func appendOne(l *Log, key, data string) error {
	done := make(chan error, 1)
	if err := l.Append(key, []byte(data), func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

func readAll(t testing.TB, l *Log, from int64) []entry {
	t.Helper()
	var list []entry
	for _, r := range readRecords(t, l, All, Position{Offset: from}) {
		list = append(list, entry{r.Partition, r.Sequence, string(r.Data)})
	}
	return list
}

func readRecords(t testing.TB, l *Log, partition int, from Position) []Record {
	t.Helper()
	var list []Record
	err := l.Read(t.Context(), partition, from, nil, func(r Record) error {
		r.Data = bytes.Clone(r.Data)
		list = append(list, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestRecordsKeepTheirOrderAndNumbers(t *testing.T) {
	fs := vfs.NewMem()
	l := mustOpen(t, fs, Options{})
	var want []entry
	next := map[int]int64{}
	partition := map[string]int{"a": -1, "b": -1, "c": -1, "d": -1, "e": -1}
	write := func(l *Log, from, to int) {
		for i := from; i < to; i++ {
			for _, key := range []string{"a", "b", "c", "d", "e"} {
				data := fmt.Sprintf("%s%d", key, i)
				appendAll(t, l, key, data)
				last := readAll(t, l, l.end()-recordHeader-int64(len(data)))
				if len(last) != 1 {
					t.Fatalf("the last record is %v", last)
				}
				got := last[0]
				if p := partition[key]; p != -1 && p != got.Partition {
					t.Errorf("records of %s are in partitions %d and %d", key, p, got.Partition)
				}
				partition[key] = got.Partition
				want = append(want, entry{got.Partition, next[got.Partition], data})
				next[got.Partition]++
			}
		}
	}
	write(l, 0, 3)
	if diff := cmp.Diff(want, readAll(t, l, 0)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	l.Close()
	l = mustOpen(t, fs, Options{})
	write(l, 3, 5)
	if diff := cmp.Diff(want, readAll(t, l, 0)); diff != "" {
		t.Errorf("records after reopening (-want +got):\n%s", diff)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append("a", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Close: %v, want %v", err, ErrClosed)
	}
}

func TestSendersAreToldInTheOrderOfTheLog(t *testing.T) {
	l := mustOpen(t, vfs.NewMem(), Options{})
	var mu sync.Mutex
	told := map[string][]string{}
	var senders, records sync.WaitGroup
	for s := range 8 {
		senders.Go(func() {
			key := fmt.Sprint(s)
			for i := range 200 {
				data := fmt.Sprint(i)
				records.Add(1)
				err := l.Append(key, []byte(key+"/"+data), func(err error) {
					defer records.Done()
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					told[key] = append(told[key], key+"/"+data)
					mu.Unlock()
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	senders.Wait()
	records.Wait()
	stored := map[string][]string{}
	next := map[int]int64{}
	for _, e := range readAll(t, l, 0) {
		stored[e.Data[:1]] = append(stored[e.Data[:1]], e.Data)
		if e.Sequence != next[e.Partition] {
			t.Fatalf("record %s has number %d in partition %d, want %d", e.Data, e.Sequence, e.Partition, next[e.Partition])
		}
		next[e.Partition]++
	}
	if diff := cmp.Diff(told, stored); diff != "" {
		t.Errorf("told and stored differ:\n%s", diff)
	}
}

// Records that nobody waits for share a fsync, and never make those wait that
// somebody does.
func TestLateRecords(t *testing.T) {
	for _, tt := range []struct {
		name  string
		then  func(*testing.T, *Log) // after three late records
		count int                    // of records in all
		took  time.Duration
	}{
		{"come together", nil, 3, lateness},
		{"come with one that is waited for", func(t *testing.T, l *Log) { appendAll(t, l, "a", "now") }, 4, 0},
		{"come with who reads", func(t *testing.T, l *Log) { readAll(t, l, 0) }, 3, 0},
		{"come when the log is trimmed", func(_ *testing.T, l *Log) { l.Trim() }, 3, 0},
		{"come when the log is closed", func(_ *testing.T, l *Log) { l.Close() }, 3, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs := vfs.NewMem()
				l := mustOpen(t, fs, Options{})
				began := time.Now()
				var took []time.Duration
				for i := range 3 {
					err := l.AppendLate("a", fmt.Append(nil, i), func(err error) {
						if err != nil {
							t.Error(err)
						}
						took = append(took, time.Since(began))
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				if tt.then != nil {
					tt.then(t, l)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if diff := cmp.Diff([]time.Duration{tt.took, tt.took, tt.took}, took); diff != "" {
					t.Errorf("durable after (-want +got):\n%s", diff)
				}
				l.Close()
				if got := len(readAll(t, mustOpen(t, fs, Options{}), 0)); got != tt.count {
					t.Errorf("%d records are kept, want %d", got, tt.count)
				}
			})
		})
	}
}

func TestNothingAcknowledgedIsMissingAfterACrash(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 0))
		fs := vfs.NewCrashableMem()
		clk := newClock()
		partitions := []int{1, 4, 32}[seed%3]
		l := mustOpen(t, fs, Options{MaxBytes: 128 << 10, Partitions: partitions, Now: clk.now}) // segments of 4 KiB
		var acked atomic.Int64
		crash := rng.IntN(300)
		crashed := make(chan *vfs.MemFS, 1)
		var ackedThen int64
		var records sync.WaitGroup
		for i := range 300 {
			data := fmt.Appendf(nil, "%d %s", i, bytes.Repeat([]byte("x"), rng.IntN(300)))
			records.Add(1)
			if err := l.Append(fmt.Sprint("d", i%7), data, func(error) { acked.Add(1); records.Done() }); err != nil {
				t.Fatal(err)
			}
			if i == crash {
				ackedThen = acked.Load()
				crashed <- fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			}
		}
		records.Wait()
		after := mustOpen(t, <-crashed, Options{Now: clk.now})
		if got := after.Partitions(); got != partitions {
			t.Fatalf("seed %d: the log has %d partitions, want %d", seed, got, partitions)
		}
		appendAll(t, after, "d", "more")
		got := readAll(t, after, 0)
		if int64(len(got)) <= ackedThen || got[len(got)-1].Data != "more" {
			t.Fatalf("seed %d: %d records were acknowledged before the crash, %d are there", seed, ackedThen, len(got)-1)
		}
		next, last := map[int]int64{}, -1
		for i, e := range got {
			// Of what was not acknowledged the crash may leave any part, and
			// numbers are left out for the rest.
			acked := int64(i) < ackedThen
			if left := e.Sequence - next[e.Partition]; left < 0 || left > 0 && acked {
				t.Fatalf("seed %d: record %d has number %d in partition %d, want %d", seed, i, e.Sequence, e.Partition, next[e.Partition])
			}
			next[e.Partition] = e.Sequence + 1
			if e.Data == "more" && i == len(got)-1 {
				continue
			}
			var n int
			if _, err := fmt.Sscan(e.Data, &n); err != nil || n <= last || acked && n != i {
				t.Fatalf("seed %d: record %d is %.10q, behind %d", seed, i, e.Data, last)
			}
			last = n
		}
	}
}

func TestOldRecordsGo(t *testing.T) {
	clk := newClock()
	fs := vfs.NewMem()
	l := mustOpen(t, fs, Options{MaxAge: 32 * time.Minute, Now: clk.now})
	for i := range 40 {
		appendAll(t, l, "d", fmt.Sprint(i))
		clk.move(90 * time.Second)
	}
	got := readAll(t, l, 0)
	if first := got[0].Sequence; first < 40-1-(32+2)*60/90 || first > 40-1-32*60/90 {
		t.Errorf("after an hour the first record is %d", first)
	}
	end := l.end()
	clk.move(33 * time.Minute)
	l.Trim()
	if got := readAll(t, l, 0); got != nil {
		t.Errorf("%d records are left long after the last", len(got))
	}
	appendAll(t, l, "d", "again")
	want := []entry{{got[0].Partition, 40, "again"}}
	if diff := cmp.Diff(want, readAll(t, l, 0)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if l.end() <= end {
		t.Errorf("the log ended at %d and ends at %d", end, l.end())
	}
	if names, _ := fs.List("log"); len(names) != 1 {
		t.Errorf("files %v, want one", names)
	}
}

func TestALargeLogIsCut(t *testing.T) {
	fs := vfs.NewMem()
	const most = 256 << 10
	l := mustOpen(t, fs, Options{MaxBytes: most})
	for i := range 1000 {
		appendAll(t, l, "d", fmt.Sprintf("%04d%01000d", i, 0))
	}
	var size int64
	names, _ := fs.List("log")
	for _, name := range names {
		info, err := fs.Stat(filepath.Join("log", name))
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > most+most/segmentsPerLog || size < most*3/4 {
		t.Errorf("the log takes %d bytes, want about %d", size, most)
	}
	got := readAll(t, l, 0)
	if last := got[len(got)-1].Sequence; last != 999 {
		t.Errorf("the last record is %d, want 999", last)
	}
}

func TestReadersFollow(t *testing.T) {
	l := mustOpen(t, vfs.NewMem(), Options{MaxBytes: 128 << 10})
	const n = 500
	seen := make(chan int64)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- l.Read(ctx, All, Position{}, func() {}, func(r Record) error { seen <- r.Sequence; return nil })
	}()
	go func() {
		for range n {
			if err := l.Append("d", make([]byte, 100), nil); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := range int64(n) {
		if got := <-seen; got != i {
			t.Fatalf("record %d after %d", got, i-1)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Read ended with %v, want %v", err, context.Canceled)
	}
	go func() {
		ended <- l.Read(t.Context(), All, Position{End: true}, func() {}, func(Record) error { return nil })
	}()
	l.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("Read of a closed log ended with %v, want %v", err, ErrClosed)
	}
}

func TestAFailedWriteIsReportedAndForgotten(t *testing.T) {
	var fail atomic.Bool
	boom := errors.New("boom")
	for name, kind := range map[string]errorfs.OpKind{"write": errorfs.OpFileWrite, "fsync": errorfs.OpFileSyncData} {
		t.Run(name, func(t *testing.T) {
			fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == kind && fail.Load() {
					return boom
				}
				return nil
			}))
			l := mustOpen(t, fs, Options{})
			appendAll(t, l, "d", "1")
			fail.Store(true)
			for range 3 {
				if err := appendOne(l, "d", "lost"); !errors.Is(err, boom) {
					t.Errorf("Append on a broken disk: %v, want %v", err, boom)
				}
			}
			fail.Store(false)
			appendAll(t, l, "d", "2")
			p := readAll(t, l, 0)[0].Partition
			want := []entry{{p, 0, "1"}, {p, 1, "2"}}
			if diff := cmp.Diff(want, readAll(t, l, 0)); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
			l.Close()
			l = mustOpen(t, fs, Options{})
			if diff := cmp.Diff(want, readAll(t, l, 0)); diff != "" {
				t.Errorf("records after reopening (-want +got):\n%s", diff)
			}
		})
	}
}

func TestADamagedRecordCostsOnlyItself(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, Options{MaxBytes: 128 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		appendAll(t, l, "d", fmt.Sprintf("%02d%01000d", i, 0))
	}
	l.Close()
	names, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil || len(names) < 3 {
		t.Fatalf("segments %v, %v", names, err)
	}
	data, err := os.ReadFile(names[1])
	if err != nil {
		t.Fatal(err)
	}
	data[2*headerSize(4)+recordHeader+1500]++ // in the second record
	if err := os.WriteFile(names[1], data, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var got []string
	for _, e := range readAll(t, l, 0) {
		got = append(got, e.Data[:2])
	}
	// Four records fill a segment of 4 KiB.
	want := []string{"00", "01", "02", "03", "04", "06", "07", "08", "09", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func TestALogWithSeveralOpenReadersAndNoRoomGoesOn(t *testing.T) {
	l := mustOpen(t, vfs.NewMem(), Options{MaxBytes: 128 << 10})
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	var reached [4]atomic.Int64
	for i := range reached {
		wg.Go(func() {
			last := int64(-1)
			l.Read(ctx, All, Position{}, func() {}, func(r Record) error {
				if r.Sequence <= last {
					t.Errorf("record %d after %d", r.Sequence, last)
				}
				last = r.Sequence
				if last == 1999 {
					reached[i].Store(last)
					return errors.New("enough")
				}
				return nil
			})
		})
	}
	for range 2000 {
		appendAll(t, l, "d", string(make([]byte, 500)))
	}
	wg.Wait()
	cancel()
	for i := range reached {
		if got := reached[i].Load(); got != 1999 {
			t.Errorf("reader %d ended at %d", i, got)
		}
	}
}

// FuzzOpen states the law: whatever is in the folder, the log opens, is read to
// its end, as a whole and by partition, and takes records.
func FuzzOpen(f *testing.F) {
	for _, partitions := range []int{4, 1, 32} {
		l, err := Open(f.TempDir(), Options{Partitions: partitions})
		if err != nil {
			f.Fatal(err)
		}
		appendAll(f, l, "d", "1", "22", "333")
		l.Close()
		good, err := os.ReadFile(l.path(0))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(good, []byte{})
		f.Add(good[:len(good)-1], good)
		f.Add(good[:2*headerSize(partitions)], good[:len(good)-1])
		f.Add(good[headerSize(partitions):], good)
		f.Add(good, append(make([]byte, 2*headerSize(partitions)), good[2*headerSize(partitions):]...))
		f.Add([]byte("?"), good)
		f.Add(good[:headerSize(partitions)], good[:7])
		f.Add(good, good[:20])
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("log", 0o700); err != nil {
			t.Fatal(err)
		}
		for base, data := range map[int64][]byte{0: first, 40: second} {
			file, err := fs.Create((&Log{fs: fs, dir: "log"}).path(base), vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			file.Write(bytes.Clone(data))
			file.Close()
		}
		l, err := open(fs, "log", Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		before := readAll(t, l, 0)
		for p := range l.Partitions() {
			for _, r := range readRecords(t, l, p, Position{}) {
				if !slices.Contains(before, entry{r.Partition, r.Sequence, string(r.Data)}) {
					t.Errorf("record %d of partition %d is not one of the log", r.Sequence, p)
				}
			}
			if _, err := l.Bounds(t.Context(), p); err != nil {
				t.Error(err)
			}
		}
		appendAll(t, l, "d", "more")
		if got := len(readAll(t, l, 0)); got != len(before)+1 {
			t.Errorf("%d records and one more are %d", len(before), got)
		}
	})
}
