package words

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A Limited is a log for lines that peers can cause as often as they like: a
// burst of maxBurst, and then one every linePause. The next line says how many
// were left out.
type Limited struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex // guards what follows
	free    time.Time  // when all of the burst is there again
	leftOut int
}

const (
	maxBurst  = 100
	linePause = 100 * time.Millisecond
)

// NewLimited returns a limited log that writes to log.
func NewLimited(log *slog.Logger) *Limited { return &Limited{log: log, now: time.Now} }

// Info writes a line, or counts it.
func (l *Limited) Info(msg string, attrs ...slog.Attr) { l.write(slog.LevelInfo, msg, attrs) }

// Warn does the same at its level.
func (l *Limited) Warn(msg string, attrs ...slog.Attr) { l.write(slog.LevelWarn, msg, attrs) }

func (l *Limited) write(level slog.Level, msg string, attrs []slog.Attr) {
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	leftOut, ok := l.take()
	if !ok {
		return
	}
	if leftOut > 0 {
		attrs = append(attrs, slog.Int(LogLeftOut, leftOut))
	}
	l.log.LogAttrs(context.Background(), level, msg, attrs...)
}

func (l *Limited) take() (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.free.Before(now) {
		l.free = now
	}
	if l.free.Sub(now) > (maxBurst-1)*linePause {
		l.leftOut++
		return 0, false
	}
	l.free = l.free.Add(linePause)
	leftOut, l.leftOut = l.leftOut, 0
	return leftOut, true
}
