package wiretest

import (
	"slices"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
)

// NewNode returns a node that listens nowhere and closes with the test.
func NewNode(t testing.TB, opt node.Options) *node.Node {
	t.Helper()
	s, err := node.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// Create registers an identity.
func Create(t testing.TB, s *node.Node, id hub.ID, spec hub.IdentitySpec) hub.Identity {
	t.Helper()
	i, err := s.PutIdentity(id, spec, hub.Match{})
	if err != nil {
		t.Fatalf("create %s: %v", id, err)
	}
	return i
}

// SendMessage puts a message into a device's queue.
func SendMessage(t testing.TB, h *node.Node, device string, m hub.Message) {
	t.Helper()
	if err := h.SendMessage(device, m); err != nil {
		t.Fatal(err)
	}
}

// Message is a cloud-to-device message with nothing but a body.
func Message(body string) hub.Message { return hub.Message{Body: []byte(body)} }

// WantPending waits until so many cloud-to-device messages wait for a device: the
// hub itself may be dropping what has expired.
func WantPending(t testing.TB, h *node.Node, device string, want int) {
	t.Helper()
	got := 0
	pending := func() bool {
		got = h.ConnectionState(hub.ID{Device: device}).PendingMessages
		return got == want
	}
	if !Eventually(t, pending) {
		t.Errorf("%d messages wait for %s, want %d", got, device, want)
	}
}

// WantDisconnected waits until an identity is not connected: other nodes than the one
// that has closed the connection hear of that a moment later.
func WantDisconnected(t testing.TB, h *node.Node, id hub.ID) {
	t.Helper()
	if !Eventually(t, func() bool { return !h.ConnectionState(id).Connected }) {
		t.Errorf("%s is still connected", id)
	}
}

// Eventually reports whether check becomes true in time.
func Eventually(t testing.TB, check func() bool) bool {
	t.Helper()
	ctx := WithPatience(t)
	for !check() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Events returns the events of a query. Their slices are copies.
func Events(t testing.TB, h *node.Node, q hub.EventQuery) []hub.Event {
	t.Helper()
	var list []hub.Event
	for e, err := range h.Events(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		e.Body = slices.Clone(e.Body)
		list = append(list, e)
	}
	return list
}

// Telemetry returns the messages of a device and its modules.
func Telemetry(t testing.TB, h *node.Node, device string) []hub.Event {
	t.Helper()
	return Events(t, h, hub.EventQuery{Device: device, Sources: []hub.EventSource{hub.SourceTelemetry}})
}
