package agent

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestRebootIntentIsDurable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hub", "d1.reboot.json")
	asked := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	m := &machineReboot{file: file}
	for range 2 { // also when it is asked for again before it happens
		if err := m.remember(asked); err != nil {
			t.Fatal(err)
		}
	}
	intent, found, err := (&machineReboot{file: file}).pending()
	if !found || err != nil || !intent.RequestedAt.Equal(asked) {
		t.Errorf("the next process finds %v, %v, %v; want %v", intent.RequestedAt, found, err, asked)
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
	m := &machineReboot{file: filepath.Join(t.TempDir(), "d1.reboot.json")}
	if err := m.remember(time.Now()); err != nil {
		t.Fatal(err)
	}
	var notes []string
	a := &Agent{machine: m, opt: Options{Note: func(text string) { notes = append(notes, text) }}}
	if err := a.reportRealReboot(t.Context()); err != nil || len(notes) != 1 {
		t.Errorf("error %v, notes %q; want one note and no report", err, notes)
	}
	if _, found, err := m.pending(); !found || err != nil {
		t.Errorf("what was asked for is forgotten (%v)", err)
	}
}
