package store_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/iotdm/iotdm/hub/cluster/memlog"
	"github.com/iotdm/iotdm/hub/store"
)

var restoreTwins = flag.Int("restore.twins", 10_000, "how many twins BenchmarkRestore restores")

// fileSnapshots keep one state in a file.
type fileSnapshots struct {
	file string
	pos  uint64
}

func (s *fileSnapshots) Put(_ context.Context, pos uint64, state io.Reader) error {
	f, err := os.Create(s.file)
	if err != nil {
		return err
	}
	defer f.Close()
	s.pos = pos
	_, err = io.Copy(f, state)
	return err
}

func (s *fileSnapshots) Latest(context.Context) (pos uint64, state io.ReadCloser, err error) {
	state, err = os.Open(s.file)
	return s.pos, state, err
}

// BenchmarkRestore is how long a new node takes to begin with a snapshot of twins of
// 3 KB, and how long that takes to be written.
func BenchmarkRestore(b *testing.B) {
	raw := 0
	twins := func(record func(key, value []byte) error) error {
		r := rand.New(rand.NewPCG(1, 2))
		var v []byte
		for i := range *restoreTwins {
			v = v[:0]
			for p := range 40 {
				v = fmt.Appendf(v, `{"path":"reported.sensors.s%02d","value":{"temperature":%.3f,"state":"ok","at":"2026-11-30T%02d:%02d:00Z"}},`, p, 20+5*r.Float64(), r.IntN(24), r.IntN(60))
			}
			key := fmt.Appendf(nil, "twin/device-%08d", i)
			v = v[:min(len(v), 3000)]
			raw += len(key) + len(v)
			if err := record(key, v); err != nil {
				return err
			}
		}
		return nil
	}
	log, snapshots := memlog.New(), &fileSnapshots{file: filepath.Join(b.TempDir(), "snapshot")}
	if err := store.StartLog(b.Context(), log, snapshots, twins); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(snapshots.file)
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	for i := 0; b.Loop(); i++ {
		r, err := store.OpenReplica(store.ReplicaOptions{Dir: filepath.Join(dir, fmt.Sprint(i)), Log: log, Snapshots: snapshots, Name: "a"})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.DB().Get(fmt.Appendf(nil, "twin/device-%08d", *restoreTwins-1)); err != nil {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, fmt.Sprint(i))); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(raw)/1e6, "MB")
	b.ReportMetric(float64(info.Size())/1e6, "MB-packed")
	b.ReportMetric(float64(*restoreTwins)*float64(b.N)/b.Elapsed().Seconds(), "twins/s")
}
