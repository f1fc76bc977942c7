package hubamqp_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
)

// A cable is the way to an address, which can be cut.
type cable struct {
	addr string
	to   string
	l    net.Listener

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
	out   bool
}

func newCable(t testing.TB, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{addr: l.Addr().String(), to: to, l: l}
	c.wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.carry(near) })
		}
	})
	t.Cleanup(func() { c.pull(); c.wg.Wait() })
	return c
}

func (c *cable) carry(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer far.Close()
	c.mu.Lock()
	c.conns = append(c.conns, near, far)
	out := c.out
	c.mu.Unlock()
	if out {
		return
	}
	c.wg.Go(func() { io.Copy(far, near); far.Close() })
	io.Copy(near, far)
}

// cut ends all connections; others may be made.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// pull is cut without others.
func (c *cable) pull() {
	c.mu.Lock()
	c.out = true
	c.mu.Unlock()
	c.l.Close()
	c.cut()
}

// A hearing is a logger of which a test hears lines.
type hearing struct {
	slog.Handler
	lines chan string
}

func hear() (*slog.Logger, *hearing) {
	h := &hearing{slog.DiscardHandler, make(chan string, 1000)}
	return slog.New(h), h
}

func (h *hearing) Enabled(context.Context, slog.Level) bool { return true }

func (h *hearing) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	select {
	case h.lines <- line:
	default:
	}
	return nil
}

// await waits for a line that begins with text.
func (h *hearing) await(t testing.TB, text string) string {
	t.Helper()
	for {
		if line := next(t, h.lines); strings.HasPrefix(line, text) {
			return line
		}
	}
}
