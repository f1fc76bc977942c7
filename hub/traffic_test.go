package hub_test

import (
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/severaltest"
)

func TestTrafficIsCounted(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	id := hub.ID{Device: "d1"}
	for range 3 {
		stored := make(chan error, 1)
		if err := h.ReceiveTelemetry(hub.Peer{ID: id}, hub.Telemetry{Body: []byte("x")}, func(err error) { stored <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-stored; err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.InvokeMethod(t.Context(), id, hub.MethodCall{Name: "m"}); err == nil {
		t.Fatal("a device that is not there has answered")
	}
	got := h.Traffic(t.Context())
	if want := (hub.Traffic{Telemetry: 3, MethodCalls: 1, MethodFailures: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestTrafficOfANodeThatDoesNotAnswer has a node be away for one reading of three:
// what it told before counts, and the third is no leap.
func TestTrafficOfANodeThatDoesNotAnswer(t *testing.T) {
	c := severaltest.Start(t, 3)
	c.Nodes[0].Create(t, "d1")
	c.Settle(t, 0, 1, 2)
	call := func(node int) {
		t.Helper()
		if _, err := c.Nodes[node].InvokeMethod(t.Context(), hub.ID{Device: "d1"}, hub.MethodCall{Name: "m"}); err == nil {
			t.Fatal("a device that is not there has answered")
		}
	}
	calls := func(want uint64) {
		t.Helper()
		if got := c.Nodes[0].Traffic(t.Context()).MethodCalls; got != want {
			t.Errorf("%d calls, want %d", got, want)
		}
	}
	for node := range 3 {
		call(node)
		call(node)
	}
	calls(6)
	c.Cut(2, true)
	call(1)
	calls(7)
	c.Cut(2, false)
	call(2)
	calls(8)
	c.Kill(t, 2)
	calls(5)
}
