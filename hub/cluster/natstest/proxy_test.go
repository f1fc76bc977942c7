package natstest

import (
	"io"
	"net"
	"testing"
	"time"
)

// TestAProxyThatIsCut sees that what was cut does not come, and that it comes when
// that is healed.
func TestAProxyThatIsCut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	p := NewProxy(t, l.Addr().String())
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say := func(patience time.Duration) error {
		t.Helper()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Read(make([]byte, 1))
		return err
	}
	for _, d := range []Direction{Forth, Back, Both} {
		if err := say(time.Minute); err != nil {
			t.Fatalf("before a cut: %v", err)
		}
		p.Cut(d)
		if err := say(50 * time.Millisecond); err == nil {
			t.Errorf("something came through a cut of %d", d)
		}
		p.Cut(None)
		if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("what was held back by a cut of %d: %v", d, err)
		}
	}
}
