package node

import (
	"log/slog"
	"net"
	"testing"
	"time"
)

// TestANodeStopsWhileItIsAskedHowFarBehindItIs has the question take as long as the
// change.
func TestANodeStopsWhileItIsAskedHowFarBehindItIs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := ServeHealth(l, slog.New(slog.DiscardHandler))
	defer h.Close()
	h.serving, h.away = true, ""
	h.cluster = func() string {
		changed := make(chan struct{})
		go func() {
			h.forget()
			close(changed)
		}()
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Error("the change waits for the answer")
		}
		return "this node is 3s behind the others"
	}
	if s := h.state(); s.Status != "stopping" || s.Checks["cluster"] != "" {
		t.Errorf("a node that stops says %+v", s)
	}
}
