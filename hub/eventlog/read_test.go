package eventlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"
)

// keysOf finds a key for each partition.
func keysOf(partitions int) []string {
	keys := make([]string, partitions)
	for i, found := 0, 0; found < partitions; i++ {
		key := fmt.Sprint("device-", i)
		if p := hash(key) % uint32(partitions); keys[p] == "" {
			keys[p] = key
			found++
		}
	}
	return keys
}

// model returns the records of want that Read is to find.
func model(want []Record, partition int, from Position) []Record {
	var list []Record
	for _, r := range want {
		if (partition == All || r.Partition == partition) &&
			r.Offset >= from.Offset && r.Sequence >= from.Sequence && !r.Time.Before(from.Time) && !from.End {
			list = append(list, r)
		}
	}
	return list
}

func TestReadersBeginAnywhere(t *testing.T) {
	for _, partitions := range []int{1, 4, 32} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			fs := vfs.NewMem()
			clk := newClock()
			opt := Options{Partitions: partitions, MaxAge: 32 * time.Minute, Now: clk.now}
			l := mustOpen(t, fs, opt)
			// Segments of a few records, of which the first are dropped; some
			// records share a time, and the last partition has only few.
			keys := keysOf(partitions)
			var want []Record
			var offset int64
			next := make([]int64, partitions)
			for i := range 60 {
				p := i * i % max(partitions-1, 1)
				if i == 20 || i == 40 {
					p = partitions - 1
				}
				data := fmt.Sprint("record ", i)
				appendAll(t, l, keys[p], data)
				want = append(want, Record{Offset: offset, Partition: p, Sequence: next[p], Time: clk.now(), Data: []byte(data)})
				offset += recordHeader + int64(len(data))
				next[p]++
				clk.move(time.Duration(i%3) * 40 * time.Second)
			}
			kept := readRecords(t, l, All, Position{})
			if len(kept) == len(want) || len(l.segments) < 10 {
				t.Fatalf("%d records are kept in %d segments", len(kept), len(l.segments))
			}
			want = want[len(want)-len(kept):]
			if diff := cmp.Diff(want, kept); diff != "" {
				t.Fatalf("records (-want +got):\n%s", diff)
			}

			positions := []Position{
				{}, {End: true}, {Offset: -1}, {Sequence: -1}, {Offset: math.MaxInt64}, {Sequence: math.MaxInt64},
				{Time: time.UnixMilli(math.MaxInt64)}, {Time: time.UnixMilli(math.MinInt64)}, {Offset: 1, Sequence: 1, Time: clk.now()},
			}
			for _, r := range want {
				for d := int64(-1); d <= 1; d++ {
					positions = append(positions, Position{Offset: r.Offset + d}, Position{Sequence: r.Sequence + d}, Position{Time: r.Time.Add(time.Duration(d))})
				}
				positions = append(positions, Position{Offset: r.Offset, Sequence: r.Sequence, Time: r.Time.Add(time.Second)})
			}
			check := func(l *Log) {
				t.Helper()
				for _, p := range slices.Compact([]int{All, 0, partitions / 2, partitions - 1}) {
					for _, from := range positions {
						want, got := model(want, p, from), readRecords(t, l, p, from)
						if !slices.EqualFunc(want, got, func(a, b Record) bool { return a.Offset == b.Offset && string(a.Data) == string(b.Data) }) {
							t.Errorf("partition %d from %+v (-want +got):\n%s", p, from, cmp.Diff(want, got))
						}
					}
				}
			}
			check(l)
			l.Close()
			check(l) // what is durable can still be read
			check(mustOpen(t, fs, opt))
		})
	}
}

func TestReadRefusesAPartitionThatIsNotThere(t *testing.T) {
	l := mustOpen(t, vfs.NewMem(), Options{Partitions: 2})
	for _, p := range []int{-2, 2} {
		if err := l.Read(t.Context(), p, Position{}, nil, nil); err == nil {
			t.Errorf("partition %d of 2 is read", p)
		}
	}
	for _, p := range []int{All, 2} {
		if b, err := l.Bounds(t.Context(), p); err == nil {
			t.Errorf("partition %d of 2 has bounds %+v", p, b)
		}
	}
}

func TestATimeIsFoundAfterTheClockWasSetBack(t *testing.T) {
	fs := vfs.NewMem()
	clk := newClock()
	opt := Options{MaxBytes: 128 << 10, Now: clk.now} // segments of 4 KiB
	l := mustOpen(t, fs, opt)
	write := func(from, to int) {
		for i := from; i < to; i++ {
			appendAll(t, l, "d", fmt.Sprintf("%03d%0500d", i, 0))
			clk.move(time.Second)
		}
	}
	write(0, 20)
	since := clk.now()
	write(20, 40)
	clk.move(-time.Hour)
	write(40, 60)
	l.Close()
	l = mustOpen(t, fs, opt)
	got := readRecords(t, l, All, Position{Time: since})
	if len(got) != 40 || string(got[0].Data[:3]) != "020" {
		t.Errorf("%d records, want 40 from 020 on", len(got))
	}
}

func TestBounds(t *testing.T) {
	for _, partitions := range []int{1, 4, 32} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			fs := vfs.NewMem()
			clk := newClock()
			opt := Options{Partitions: partitions, MaxAge: 32 * time.Minute, Now: clk.now}
			l := mustOpen(t, fs, opt)
			keys := keysOf(partitions)
			next := make([]int64, partitions)
			check := func(when string) {
				t.Helper()
				want := make([]Bounds, partitions)
				for p := range want {
					want[p] = Bounds{First: next[p], Next: next[p], End: l.end(), LastOffset: -1}
				}
				for _, r := range readRecords(t, l, All, Position{}) {
					b := &want[r.Partition]
					b.First = min(b.First, r.Sequence)
					b.LastOffset, b.LastTime = r.Offset, r.Time
				}
				var got []Bounds
				for p := range partitions {
					b, err := l.Bounds(t.Context(), p)
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, b)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("bounds %s (-want +got):\n%s", when, diff)
				}
			}
			reopen := func() {
				t.Helper()
				l.Close()
				l = mustOpen(t, fs, opt)
				opt.Partitions = opt.Partitions%32 + 1 // must not matter
				if got := l.Partitions(); got != partitions {
					t.Fatalf("the log has %d partitions, want %d", got, partitions)
				}
			}
			write := func(n int) {
				for i := range n {
					p := i * i % partitions
					appendAll(t, l, keys[p], fmt.Sprint("record ", i))
					next[p]++
					clk.move(20 * time.Second)
				}
			}
			check("of a new log")
			reopen()
			check("of a new log opened again")
			write(60)
			check("of records")
			reopen()
			check("of a log opened again")
			check("once the last records were found")
			write(60)
			check("after some were dropped")
			clk.move(time.Hour)
			l.Trim()
			check("of a log that is empty")
			if r := readRecords(t, l, All, Position{}); len(r) > 0 {
				t.Fatalf("%d records are kept, want none", len(r))
			}
			reopen()
			check("of an empty log opened again")
			reopen()
			write(60)
			check("after new ones")
			for p := range partitions {
				seq := next[p]
				for _, r := range slices.Backward(readRecords(t, l, p, Position{})) {
					if seq--; r.Sequence != seq {
						t.Fatalf("record %d of partition %d is where %d should be", r.Sequence, p, seq)
					}
				}
			}
		})
	}
}

func TestPartitionsAreBounded(t *testing.T) {
	for n, want := range map[int]int{0: 4, 1: 1, 32: 32, -1: 0, 33: 0} {
		l, err := OpenMemory(Options{Partitions: n})
		if err != nil {
			if want != 0 || !strings.Contains(err.Error(), "1 to 32") {
				t.Errorf("%d partitions: %v", n, err)
			}
			continue
		}
		if got := l.Partitions(); got != want {
			t.Errorf("%d partitions are %d, want %d", n, got, want)
		}
		l.Close()
	}
}

// The log in testdata was written when 4 was the only number of partitions: 16
// records of 8 devices, of which the first 4 were dropped.
func TestALogFromBeforeOpens(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/v1")); err != nil {
		t.Fatal(err)
	}
	start := newClock().now()
	clk := newClock()
	clk.move(time.Hour + 6*time.Minute)
	opt := Options{Partitions: 7, MaxAge: 32 * time.Minute, Now: clk.now}
	var want []Record
	for i, offset := range []int64{140, 175, 210, 245, 280, 315, 350, 386, 422, 458, 494, 530} {
		want = append(want, Record{
			Offset: offset, Partition: []int{2, 1, 0, 3}[i%4], Sequence: int64(1 + i/4),
			Time: start.Add(time.Hour + 80*time.Second + time.Duration(i)*20*time.Second),
			Data: fmt.Append(nil, "event ", 4+i),
		})
	}
	for _, more := range []string{"one", "two"} {
		l, err := Open(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Partitions(); got != 4 {
			t.Fatalf("the log has %d partitions, want 4", got)
		}
		last := want[len(want)-1]
		appendAll(t, l, "device-7", more)
		want = append(want, Record{
			Offset: last.next(), Partition: 3, Sequence: last.Sequence + 1, Time: clk.now(), Data: []byte(more),
		})
		for p := All; p < 4; p++ {
			if diff := cmp.Diff(model(want, p, Position{}), readRecords(t, l, p, Position{})); diff != "" {
				t.Errorf("partition %d (-want +got):\n%s", p, diff)
			}
		}
		l.Close()
	}
}

func TestNumbersOfAnEmptyLogOutliveAFailedWrite(t *testing.T) {
	broken := false // set while the log is closed
	boom := errors.New("boom")
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken && op.Kind == errorfs.OpFileWrite {
			return boom
		}
		return nil
	}))
	clk := newClock()
	opt := Options{Partitions: 3, MaxAge: time.Hour, Now: clk.now}
	l := mustOpen(t, fs, opt)
	appendAll(t, l, "d", "0", "1")
	clk.move(2 * time.Hour)
	l.Trim()
	l.Close()
	broken = true
	l = mustOpen(t, fs, opt)
	for range 2 {
		if err := appendOne(l, "d", "lost"); !errors.Is(err, boom) {
			t.Errorf("Append on a broken disk: %v, want %v", err, boom)
		}
	}
	l.Close()
	broken = false
	l = mustOpen(t, fs, Options{Now: clk.now})
	if got := l.Partitions(); got != 3 {
		t.Errorf("the log has %d partitions, want 3", got)
	}
	appendAll(t, l, "d", "2")
	got := readAll(t, l, 0)
	if diff := cmp.Diff([]entry{{got[0].Partition, 2, "2"}}, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func TestReadersGoOnBehindDamageToAnyPartition(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, Options{Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	keys := keysOf(2)
	for i := range 6 {
		appendAll(t, l, keys[i%2], fmt.Sprint("record ", i))
	}
	l.Close()
	if l, err = Open(dir, Options{}); err != nil { // the damage comes behind its back
		t.Fatal(err)
	}
	defer l.Close()
	data, err := os.ReadFile(l.path(0))
	if err != nil {
		t.Fatal(err)
	}
	data[2*headerSize(2)+2*(recordHeader+8)+4]++ // in the size of record 2
	if err := os.WriteFile(l.path(0), data, 0o600); err != nil {
		t.Fatal(err)
	}
	appendAll(t, l, keys[0], "record 6") // starts a segment
	for partition, want := range map[int]string{All: "0 1 3 4 5 6", 0: "0 4 6", 1: "1 3 5"} {
		var got []string
		for _, r := range readRecords(t, l, partition, Position{}) {
			got = append(got, strings.TrimPrefix(string(r.Data), "record "))
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("partition %d has records %s, want %s", partition, got, want)
		}
	}
}

func TestAFollowerGoesOnBehindDamage(t *testing.T) {
	l, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	appendAll(t, l, "d", "0", "1", "2")
	f, err := os.OpenFile(l.path(0), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("?"), 2*headerSize(4)+recordHeader+1+7); err != nil { // the size of 1
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var got string
	atEnd := func() {
		switch got {
		case "02":
			appendAll(t, l, "d", "3")
			got += " then "
		default:
			cancel()
		}
	}
	l.Read(ctx, All, Position{}, atEnd, func(r Record) error { got += string(r.Data); return nil })
	if got != "02 then 3" {
		t.Errorf("with record 1 damaged a follower got %q", got)
	}
}

func TestAFollowerOfAPartitionIsWokenByItsOwnRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustOpen(t, vfs.NewMem(), Options{MaxBytes: 128 << 10})
		keys := keysOf(4)
		appendAll(t, l, keys[1], "before")
		ctx, cancel := context.WithCancel(t.Context())
		atEnd := 0
		var got []entry
		ended := make(chan error, 1)
		go func() {
			ended <- l.Read(ctx, 1, Position{End: true}, func() { atEnd++ }, func(r Record) error {
				got = append(got, entry{r.Partition, r.Sequence, string(r.Data)})
				return nil
			})
		}()
		synctest.Wait()
		for range 20 { // more than a segment
			appendAll(t, l, keys[2], string(make([]byte, 500)))
			synctest.Wait()
		}
		if atEnd != 1 || got != nil {
			t.Errorf("records of another partition: came to the end %d times and got %v", atEnd, got)
		}
		appendAll(t, l, keys[1], "mine")
		synctest.Wait()
		appendAll(t, l, keys[0], "not mine")
		appendAll(t, l, keys[1], "mine too")
		synctest.Wait()
		if diff := cmp.Diff([]entry{{1, 1, "mine"}, {1, 2, "mine too"}}, got); diff != "" || atEnd != 3 {
			t.Errorf("came to the end %d times, want 3; got (-want +got):\n%s", atEnd, diff)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Read ended with %v, want %v", err, context.Canceled)
		}
		go func() { ended <- l.Read(t.Context(), 3, Position{}, func() {}, nil) }()
		synctest.Wait()
		l.Close()
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("Read of a closed log ended with %v, want %v", err, ErrClosed)
		}
	})
}

func TestAFollowerWaitsForAPlaceThatHasNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clk := newClock()
		l := mustOpen(t, vfs.NewMem(), Options{Partitions: 1, Now: clk.now})
		positions := map[string]Position{
			"offset":   {Offset: 3 * (recordHeader + 1)},
			"sequence": {Sequence: 3},
			"time":     {Time: clk.now().Add(3 * time.Second)},
		}
		ctx, cancel := context.WithCancel(t.Context())
		got := map[string]*string{}
		var readers sync.WaitGroup
		for name, from := range positions {
			seen := new(string)
			got[name] = seen
			readers.Go(func() {
				l.Read(ctx, 0, from, func() {}, func(r Record) error { *seen += string(r.Data); return nil })
			})
		}
		for i := range 6 {
			appendAll(t, l, "d", fmt.Sprint(i))
			clk.move(time.Second)
			synctest.Wait()
		}
		cancel()
		readers.Wait()
		for name, seen := range got {
			if *seen != "345" {
				t.Errorf("from a later %s on: %q, want 345", name, *seen)
			}
		}
	})
}

// Readers of one partition that stop and go on behind the last record they saw
// miss none and see none twice, while records come and segments follow.
func TestReadersGoOnBehindWhatTheySaw(t *testing.T) {
	const partitions, n = 4, 3000
	l := mustOpen(t, vfs.NewMem(), Options{Partitions: partitions, MaxBytes: 4 << 20})
	keys := keysOf(partitions)
	var all sync.WaitGroup
	for p, key := range keys {
		all.Go(func() {
			for range n {
				if err := l.Append(key, make([]byte, 100+p*100), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	pause := errors.New("pause")
	for p := range partitions {
		for _, by := range []string{"offset", "sequence"} {
			all.Go(func() {
				var from Position
				for seen := int64(0); seen < n; {
					stop := seen + 1 + seen*7%50
					err := l.Read(t.Context(), p, from, func() {}, func(r Record) error {
						if r.Partition != p || r.Sequence != seen || len(r.Data) != 100+p*100 {
							return fmt.Errorf("record %d of partition %d after %d of %d", r.Sequence, r.Partition, seen-1, p)
						}
						seen++
						from = Position{Offset: r.Offset + 1}
						if by == "sequence" {
							from = Position{Sequence: r.Sequence + 1}
						}
						if seen == stop || seen == n {
							return pause
						}
						return nil
					})
					if err != pause {
						t.Errorf("by %s: %v", by, err)
						return
					}
				}
			})
		}
	}
	all.Wait()
}

func TestReadEndsWhereTheLogEndedWhenItWasCalled(t *testing.T) {
	for name, opt := range map[string]Options{
		"in one segment":   {},
		"in many segments": {MaxBytes: 1 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			opt.Partitions = 1
			l := mustOpen(t, vfs.NewMem(), opt)
			appendAll(t, l, "d1", "1", "2")
			for _, partition := range []int{All, 0} {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				before := len(readRecords(t, l, partition, Position{}))
				var got int
				err := l.Read(ctx, partition, Position{}, nil, func(Record) error {
					got++
					return appendOne(l, "d1", strings.Repeat("x", 200))
				})
				if got != before || err != nil {
					t.Errorf("partition %d: %d records, %v, want %d", partition, got, err, before)
				}
			}
		})
	}
}
