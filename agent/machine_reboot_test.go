package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestRebootIntentIsDurable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hub", "d1.reboot.json")
	asked := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	m := &machineReboot{file: file, asked: make(chan struct{}, 1)}
	for range 2 { // also when it is asked for again before it happens
		if err := m.remember(asked); err != nil {
			t.Fatal(err)
		}
	}
	intent, found, err := (&machineReboot{file: file}).pending()
	if !found || err != nil || !intent.RequestedAt.Equal(asked) {
		t.Errorf("the next process finds %v, %v, %v; want %v", intent.RequestedAt, found, err, asked)
	}
	if len(m.requests()) != 1 {
		t.Errorf("%d reboots are asked for, want 1", len(m.requests()))
	}
	for range 2 {
		if err := m.forget(); err != nil {
			t.Fatal(err)
		}
	}
	if _, found, err := m.pending(); found || err != nil {
		t.Errorf("after it is forgotten, found is %v, error %v", found, err)
	}
}

func TestRebootThatHasNotHappened(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the stand-in for the boot clock is that of Linux")
	}
	proc := t.TempDir()
	t.Setenv("HOST_PROC", proc)
	for name, content := range map[string]string{"stat": "btime 1000000000\n", "uptime": "1000000000.00 0.00\n"} {
		if err := os.WriteFile(filepath.Join(proc, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := &machineReboot{file: filepath.Join(t.TempDir(), "d1.reboot.json"), asked: make(chan struct{}, 1)}
	if err := m.remember(time.Now()); err != nil {
		t.Fatal(err)
	}
	var notes []string
	a := &agent{machine: m, note: func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }}
	if err := a.reportRealReboot(t.Context()); err != nil || len(notes) != 1 {
		t.Errorf("error %v, notes %q; want one note and no report", err, notes)
	}
	if _, found, err := m.pending(); !found || err != nil {
		t.Errorf("what was asked for is forgotten (%v)", err)
	}
}
