package agent

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestDownloadFillsTheDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		if os.Getenv("IOTDM_REQUIRE_ALL") != "" {
			t.Fatalf("mount a tmpfs: %v", err)
		}
		t.Skipf("a small disk is a tmpfs, which needs the right to mount it: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	known := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(content[:1000]) })
	unknown := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		w.Write(content)
	})
	for _, tt := range []struct{ url, want string }{ // the last one leaves the disk full
		{known, "the disk has 64 KiB free; the package needs 1000 bytes, and 16 MiB are left alone"},
		{unknown, "the disk is full"},
	} {
		d := newDownload(t, tt.url)
		d.size, d.file = 0, dir+"/part"
		if err := d.run(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
}
