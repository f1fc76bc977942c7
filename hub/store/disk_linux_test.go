package store_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/iotdm/iotdm/hub/store"
)

// zeros is an endless file.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestRealFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128m"); err != nil {
		if os.Getenv("IOTDM_REQUIRE_ALL") != "" {
			t.Fatalf("mount a tmpfs: %v", err)
		}
		t.Skipf("needs the right to mount a file system: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	folder, ballast := filepath.Join(dir, "store"), filepath.Join(dir, "ballast")
	db, err := store.Open(folder, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := startWriters(db, 16, 4<<10)
	for range 3 {
		n := 0
		w.await(func() bool { n = len(w.acked); return true })
		w.await(func() bool { return len(w.acked) > n+100 })
		f, err := os.Create(ballast)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("filling the disk ended with %v", err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		w.await(func() bool { n = w.full; return true })
		w.await(func() bool { return w.full > n+100 })
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	w.await(func() bool { n = len(w.acked); return true })
	w.await(func() bool { return len(w.acked) > n+100 })
	w.end()
	if w.err != nil {
		t.Errorf("Update = %v", w.err)
	}
	checkHas(t, db, w.acked)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = store.Open(folder, nil); err != nil {
		t.Fatal(err)
	}
	checkHas(t, db, w.acked)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
