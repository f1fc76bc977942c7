package words

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLimited(t *testing.T) {
	var out bytes.Buffer
	l := NewLimited(slog.New(slog.NewTextHandler(&out, nil)))
	now := time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	l.now = func() time.Time { return now }
	write := func(n int) (lines int, last string) {
		out.Reset()
		for range n {
			l.Info("refused", slog.String(LogRemote, "192.0.2.1:1"))
		}
		text := strings.TrimSpace(out.String())
		return strings.Count(out.String(), "\n"), text[strings.LastIndexByte(text, '\n')+1:]
	}
	if lines, last := write(maxBurst + 50); lines != maxBurst || strings.Contains(last, LogLeftOut) {
		t.Errorf("%d lines, want %d; the last is %s", lines, maxBurst, last)
	}
	now = now.Add(linePause)
	if lines, last := write(7); lines != 1 || !strings.HasSuffix(last, "remote=192.0.2.1:1 left_out=50") {
		t.Errorf("after a pause: %d lines, want 1; the last is %s", lines, last)
	}
	now = now.Add(time.Hour)
	if lines, last := write(maxBurst); lines != maxBurst || strings.Contains(last, LogLeftOut) {
		t.Errorf("after an hour: %d lines, want %d; the last is %s", lines, maxBurst, last)
	}
}

func TestLimitedKeepsTheLevel(t *testing.T) {
	var out bytes.Buffer
	l := NewLimited(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})))
	l.Info("refused")
	if out.Len() != 0 || !l.free.IsZero() {
		t.Errorf("a line that nobody wants is written or counted: %s", &out)
	}
}
