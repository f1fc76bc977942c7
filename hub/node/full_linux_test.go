package node_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A hub stops and starts on a disk that has not a byte left, says what it has,
// refuses what it cannot keep, and goes on by itself.
func TestAHubOnAFullDisk(t *testing.T) {
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=64m"); err != nil {
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
	dir, ballast := filepath.Join(mount, "hub"), filepath.Join(mount, "ballast")
	open := func() *node.Node {
		t.Helper()
		n, err := node.New(node.Options{Storage: node.Folder(dir)})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Publish(node.Info{HostName: "localhost", HTTPSAddr: "127.0.0.1:8443"}); err != nil {
			t.Errorf("Publish: %v", err)
		}
		return n
	}
	wantRefused := func(n *node.Node) {
		t.Helper()
		_, err := n.PutIdentity(hub.ID{Device: "d2"}, hub.IdentitySpec{}, hub.Match{})
		if e := hub.RefusalOf(err); err == nil || !errors.Is(e, hub.ErrServiceUnavailable) || e.RetryAfter() == 0 {
			t.Errorf("a device is created on a full disk: %v", err)
		}
	}
	n := open()
	wiretest.Create(t, n, hub.ID{Device: "d1"}, hub.IdentitySpec{})
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
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C { // the store looks at the disk now and then
		if _, err := n.PutIdentity(hub.ID{Device: "d3"}, hub.IdentitySpec{}, hub.Match{}); err != nil {
			break
		}
		if err := n.DeleteIdentity(hub.ID{Device: "d3"}, hub.Match{}); err != nil {
			break
		}
	}
	wantRefused(n)
	_ = n.Close() // it may say that the disk is full
	if _, err := node.ReadInfo(dir); !errors.Is(err, node.ErrNotRunning) {
		t.Errorf("a hub that was stopped: %v, want ErrNotRunning", err)
	}
	n = open()
	if info, err := node.ReadInfo(dir); err != nil || info.HTTPSAddr != "127.0.0.1:8443" {
		t.Errorf("a hub that runs on a full disk has published %+v, %v", info, err)
	}
	if _, err := n.Identity(hub.ID{Device: "d1"}); err != nil {
		t.Errorf("a device is read on a full disk: %v", err)
	}
	wantRefused(n)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for range tick.C {
		if _, err := n.PutIdentity(hub.ID{Device: "d2"}, hub.IdentitySpec{}, hub.Match{}); err == nil {
			break
		}
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}
