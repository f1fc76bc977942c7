package outbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/iotdm/iotdm/mqttdevice"
)

// fill takes all the space there is, to the last byte.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestFullDisk adds messages until a disk is full, several times, and each
// time sends them all while not a byte is free.
func TestFullDisk(t *testing.T) {
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=4m"); err != nil {
		if os.Getenv("IOTDM_REQUIRE_ALL") != "" {
			t.Fatalf("mount a tmpfs: %v", err)
		}
		t.Skipf("needs the right to mount a file system: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	dir, ballast := filepath.Join(mount, "box"), filepath.Join(mount, "ballast")
	b := open(t, dir, Options{})
	defer b.Close()
	added := 0
	for round := range 3 {
		var want []string
		for {
			payload := fmt.Sprint(added, strings.Repeat("x", 7000))
			err := b.Add(mqttdevice.Message{Payload: []byte(payload)})
			if errors.Is(err, syscall.ENOSPC) {
				if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "free some space") {
					t.Errorf("Add on a full disk: %v", err)
				}
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, payload)
			added++
		}
		fill(t, ballast)
		if len(want) < 300 {
			t.Fatalf("round %d: the disk was full after %d messages", round, len(want))
		}
		checkQueued(t, b, want...)
		if round == 1 { // it can be opened on a full disk too
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			b = open(t, dir, Options{})
		}
		half := len(want) / 2
		take(t, b, half)
		checkQueued(t, b, want[half:]...)
		var free syscall.Statfs_t
		if err := syscall.Statfs(mount, &free); err != nil {
			t.Fatal(err)
		}
		if free.Bavail == 0 {
			t.Error("what was sent gave no space back")
		}
		take(t, b, len(want)-half)
		s := b.Stats()
		if s.Queued != 0 || s.Sent != uint64(added) || s.Dropped+s.Damaged != 0 {
			t.Errorf("%+v after all %d were sent", s, added)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
}
