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
			l := openBench(b)
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
		l := openBench(b)
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

// BenchmarkRead measures reading 1 KB records that the system has cached.
func BenchmarkRead(b *testing.B) {
	l := openBench(b)
	for range 20_000 {
		if err := l.Append("device", make([]byte, 1024), nil); err != nil {
			b.Fatal(err)
		}
	}
	appendAll(b, l, "device", "last")
	b.SetBytes(20_000 * 1024)
	for b.Loop() {
		n := 0
		if err := l.Read(b.Context(), 0, nil, func(Record) error { n++; return nil }); err != nil || n != 20_001 {
			b.Fatal(n, err)
		}
	}
}

func openBench(b *testing.B) *Log {
	b.Helper()
	b.ReportAllocs()
	l, err := Open(filepath.Join(b.TempDir(), "log"), Options{})
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
