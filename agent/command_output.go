package agent

import (
	"bytes"
	"fmt"
	"strings"
)

// A boundedBuffer keeps what is written to it until that is too much.
type boundedBuffer struct {
	kept  bytes.Buffer // not embedded: its ReadFrom would go round Write
	limit int
	full  func() error // called when it is too much; what it returns, the writer gets
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if room := b.limit - b.kept.Len(); len(p) > room {
		b.kept.Write(p[:room])
		return room, b.full()
	}
	return b.kept.Write(p)
}

// A tailBuffer keeps the end of what is written to it.
type tailBuffer struct {
	limit int
	b     []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.b = append(t.b, p[max(0, len(p)-t.limit):]...)
	if extra := len(t.b) - t.limit; extra > 0 {
		t.b = append(t.b[:0], t.b[extra:]...)
	}
	return len(p), nil
}

func (t *tailBuffer) String() string { return strings.ToValidUTF8(string(t.b), "\uFFFD") }

// clip returns text if it has at most n bytes, and else its beginning and dots.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	const dots = "..."
	return strings.ToValidUTF8(text[:n-len(dots)], "") + dots
}

// byteCount writes a size for people.
func byteCount(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < len(units)-1 {
		v, unit = v/1024, unit+1
	}
	text := strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
	return fmt.Sprintf("%s %ciB", text, units[unit])
}
