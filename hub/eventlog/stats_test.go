package eventlog

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

func TestStatsTellWhatIsOnDiskAndDamaged(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, Options{MaxBytes: 128 << 10})
	if err != nil {
		t.Fatal(err)
	}
	var syncs atomic.Int64
	l.OnSync(func(time.Duration) { syncs.Add(1) })
	for i := range 20 {
		appendAll(t, l, "d", fmt.Sprintf("%02d%01000d", i, 0))
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Records != 20 || s.Segments != len(names) || s.Bytes < 20*1000 || s.Waiting != 0 || s.Unwritten != 0 || s.Damaged != 0 || syncs.Load() == 0 {
		t.Errorf("Stats = %+v after %d fsyncs, want 20 records in %d segments", s, syncs.Load(), len(names))
	}
	l.Close()

	data, err := os.ReadFile(names[1])
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2]++
	if err := os.WriteFile(names[1], data, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	readAll(t, l, 0)
	if s := l.Stats(); s.Damaged == 0 {
		t.Errorf("Stats = %+v after damage was read, want it counted", s)
	}
}
