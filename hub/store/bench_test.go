package store_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/iotdm/iotdm/hub/store"
)

func benchmarkUpdate(b *testing.B, writers int) {
	db, err := store.Open(filepath.Join(b.TempDir(), "s"), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	value := make([]byte, 1024)
	rand.Read(value)
	var n atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for {
				i := n.Add(1)
				if i > int64(b.N) {
					return
				}
				key := fmt.Appendf(nil, "device/%d", i%100000)
				if err := db.Update(string(key), func(tx *store.Tx) error { tx.Set(key, value); return nil }); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkUpdate(b *testing.B) {
	for _, w := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(w), func(b *testing.B) { benchmarkUpdate(b, w) })
	}
}

func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 1100)
	for b.Loop() {
		f.Write(value)
		f.Sync()
	}
}
