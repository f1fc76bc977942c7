package eventlog

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkAppend measures durable records of 1 KB next to a bare append and
// fdatasync. Each sender waits for its record; "pipelined" does not.
func BenchmarkAppend(b *testing.B) {
	data := make([]byte, 1024)
	b.Run("fdatasync", func(b *testing.B) {
		f, err := vfs.Default.Create(filepath.Join(b.TempDir(), "f"), vfs.WriteCategoryUnspecified)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		for b.Loop() {
			if _, err := f.Write(data); err != nil {
				b.Fatal(err)
			}
			if err := f.SyncData(); err != nil {
				b.Fatal(err)
			}
		}
		perSecond(b)
	})
	for _, senders := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("senders=%d", senders), func(b *testing.B) {
			l := openBench(b, Options{})
			var wg sync.WaitGroup
			for s := range senders {
				wg.Go(func() {
					key := fmt.Sprint("device-", s)
					done := make(chan error, 1)
					called := func(err error) { done <- err }
					for range share(b.N, senders, s) {
						if err := l.Append(key, data, called); err != nil {
							b.Error(err)
							return
						}
						if err := <-done; err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			perSecond(b)
		})
	}
	b.Run("pipelined", func(b *testing.B) {
		l := openBench(b, Options{})
		var wg sync.WaitGroup
		wg.Add(b.N)
		called := func(err error) { wg.Done() }
		for range b.N {
			if err := l.Append("device", data, called); err != nil {
				b.Fatal(err)
			}
		}
		wg.Wait()
		perSecond(b)
	})
}

// BenchmarkRead measures reading 1 KB records that the system has cached: all
// of them, and one partition of many. B/s count all that is in the log.
func BenchmarkRead(b *testing.B) {
	const n = 20_000
	read := func(partitions, partition int) func(*testing.B) {
		return func(b *testing.B) {
			l := openBench(b, Options{Partitions: partitions})
			fill(b, l, n)
			want := n + 1
			if partition != All {
				bounds, err := l.Bounds(b.Context(), partition)
				if err != nil {
					b.Fatal(err)
				}
				want = int(bounds.Next)
			}
			b.SetBytes(n * 1024)
			for b.Loop() {
				got := 0
				err := l.Read(b.Context(), partition, Position{}, nil, func(Record) error { got++; return nil })
				if err != nil || got != want {
					b.Fatal(got, want, err)
				}
			}
		}
	}
	b.Run("all", read(4, All))
	b.Run("one of 4", read(4, 1))
	b.Run("one of 32", read(32, 1))
}

// BenchmarkFind measures reading the newest record of a log of 64 MB in 32
// segments.
func BenchmarkFind(b *testing.B) {
	l := openBench(b, Options{MaxBytes: 64 << 20})
	fill(b, l, 60_000)
	bounds, err := l.Bounds(b.Context(), 1)
	if err != nil {
		b.Fatal(err)
	}
	for name, from := range map[string]Position{
		"offset":   {Offset: bounds.LastOffset},
		"sequence": {Sequence: bounds.Next - 1},
		"time":     {Time: bounds.LastTime},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				got := 0
				err := l.Read(b.Context(), 1, from, nil, func(Record) error { got++; return nil })
				if err != nil || got == 0 {
					b.Fatal(got, err)
				}
			}
		})
	}
}

// fill appends n records of 1 KB from many devices.
func fill(b *testing.B, l *Log, n int) {
	data := make([]byte, 1024)
	for i := range n {
		if err := l.Append(fmt.Sprint("device-", i%1000), data, nil); err != nil {
			b.Fatal(err)
		}
	}
	flushed := make(chan error)
	if err := l.Append("device-0", nil, func(err error) { flushed <- err }); err != nil {
		b.Fatal(err)
	}
	if err := <-flushed; err != nil {
		b.Fatal(err)
	}
}

func openBench(b *testing.B, opt Options) *Log {
	b.Helper()
	b.ReportAllocs()
	l, err := Open(filepath.Join(b.TempDir(), "log"), opt)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		l.Close()
		os.RemoveAll(l.dir)
	})
	b.ResetTimer()
	return l
}

// share splits n into parts.
func share(n, parts, part int) int {
	k := n / parts
	if part < n%parts {
		k++
	}
	return k
}

func perSecond(b *testing.B) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
