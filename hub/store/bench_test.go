package store_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/iotdm/iotdm/hub/cluster/memlog"
	"github.com/iotdm/iotdm/hub/store"
)

var values = flag.Int("values", 20_000, "how many values the benchmarks of a filled store use")

func deviceKey(i int) []byte { return fmt.Appendf(nil, "d/device-%07d", i) }

// twin returns a document of about 1 KB, as compressible as twins are.
func twin(i int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 0))
	doc := fmt.Appendf(nil, `{"deviceId":"device-%07d","etag":"%x","properties":{"desired":{`, i, r.Uint64())
	for n := 0; len(doc) < 1000; n++ {
		doc = fmt.Appendf(doc, `"setting%d":{"value":%d,"$lastUpdated":"2026-03-01T12:%02d:%02d.%07dZ"},`, n, r.IntN(1e6), r.IntN(60), r.IntN(60), r.IntN(1e7))
	}
	return append(doc[:len(doc)-1], `}}}`...)
}

// BenchmarkUpdate is to be compared with BenchmarkFsync of the same run.
func BenchmarkUpdate(b *testing.B) {
	for _, writers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			benchmarkUpdates(b, writers, openDir(b, filepath.Join(b.TempDir(), "store")))
		})
	}
}

// BenchmarkUpdateReplicated is what several nodes cost besides their log, which is
// one in memory: each applies every change, on a disk, without fsync.
func BenchmarkUpdateReplicated(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		for _, writers := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("nodes=%d/writers=%d", nodes, writers), func(b *testing.B) {
				log, snapshots := memlog.New(), &memlog.Snapshots{}
				if err := store.StartLog(b.Context(), log, snapshots, nil); err != nil {
					b.Fatal(err)
				}
				var dbs []*store.DB
				for i := range nodes {
					name := fmt.Sprint("node-", i)
					r, err := store.OpenReplica(store.ReplicaOptions{Dir: filepath.Join(b.TempDir(), name), Log: log, Snapshots: snapshots, Name: name})
					if err != nil {
						b.Fatal(err)
					}
					b.Cleanup(func() { _ = r.Close() })
					if _, err := r.Join(b.Context()); err != nil {
						b.Fatal(err)
					}
					dbs = append(dbs, r.DB())
				}
				benchmarkUpdates(b, writers, dbs...)
			})
		}
	}
}

// benchmarkUpdates has writers, some for each store, read and write documents.
func benchmarkUpdates(b *testing.B, writers int, dbs ...*store.DB) {
	value := twin(0)
	var n atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for w := range writers {
		db := dbs[w%len(dbs)]
		wg.Go(func() {
			for i := int(n.Add(1)); i <= b.N; i = int(n.Add(1)) {
				key := deviceKey(i % 100_000)
				err := db.Update(string(key), func(tx *store.Tx) error {
					if _, err := tx.Get(key); err != nil && !errors.Is(err, store.ErrNotFound) {
						return err
					}
					tx.Set(key, value)
					return nil
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkFsync appends as much to a bare file and syncs it.
func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	value := twin(0)
	for b.Loop() {
		if _, err := f.Write(value); err != nil {
			b.Fatal(err)
		}
		if err := fdatasync(f); err != nil {
			b.Fatal(err)
		}
	}
}

func openDir(b *testing.B, dir string) *store.DB {
	b.Helper()
	db, err := store.Open(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	return db
}

var filled struct {
	once        sync.Once
	root        string
	dir, killed string // closed, and as a kill leaves it
}

// fill makes a store with *values twins, once.
func fill(b *testing.B) {
	b.Helper()
	filled.once.Do(func() {
		root, err := os.MkdirTemp("", "store-bench-")
		if err != nil {
			b.Fatal(err)
		}
		filled.root, filled.dir, filled.killed = root, filepath.Join(root, "store"), filepath.Join(root, "killed")
		db := openDir(b, filled.dir)
		var n atomic.Int64
		var wg sync.WaitGroup
		const each = 100
		for range 4 {
			wg.Go(func() {
				for i := int(n.Add(each)) - each; i < *values; i = int(n.Add(each)) - each {
					err := db.Update(fmt.Sprint(i), func(tx *store.Tx) error {
						for j := i; j < min(i+each, *values); j++ {
							tx.Set(deviceKey(j), twin(j))
						}
						return nil
					})
					if err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		copyLive(b, filled.killed, filled.dir)
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	})
	if filled.killed == "" {
		b.Fatal("the store was not filled")
	}
}

// copyLive copies the folder of an open store, which may remove a file at any time.
func copyLive(b *testing.B, to, from string) {
	b.Helper()
	for {
		err := os.CopyFS(to, os.DirFS(from))
		if err == nil {
			return
		}
		if !errors.Is(err, fs.ErrNotExist) {
			b.Fatal(err)
		}
		if err := os.RemoveAll(to); err != nil {
			b.Fatal(err)
		}
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	status := m.Run()
	if filled.root != "" {
		_ = os.RemoveAll(filled.root)
	}
	os.Exit(status)
}

func BenchmarkReopen(b *testing.B) {
	fill(b)
	b.Run("closed", func(b *testing.B) {
		for b.Loop() {
			if err := openDir(b, filled.dir).Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("killed", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			dir := filepath.Join(b.TempDir(), "store")
			if err := os.CopyFS(dir, os.DirFS(filled.killed)); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			db := openDir(b, dir)
			b.StopTimer()
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
			if err := os.RemoveAll(dir); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}

func BenchmarkGet(b *testing.B) {
	fill(b)
	db := openDir(b, filled.dir)
	for _, bm := range []struct {
		name string
		key  func(i int) []byte
	}{
		{"anywhere", func(int) []byte { return deviceKey(rand.IntN(*values)) }},
		{"same", func(int) []byte { return deviceKey(1) }},
		{"missing", func(int) []byte { return append(deviceKey(rand.IntN(*values)), 'x') }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := db.Get(bm.key(i)); err != nil && !errors.Is(err, store.ErrNotFound) {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkScan reads all values and looks for a word in each.
func BenchmarkScan(b *testing.B) {
	fill(b)
	db := openDir(b, filled.dir)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		err := db.Scan(nil, nil, func(_, v []byte) error {
			if bytes.Contains(v, []byte("setting0")) {
				n++
			}
			return nil
		})
		if err != nil || n != *values {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(*values), "ns/value")
}
