package wiretest

import (
	"slices"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
)

func NewServer(t *testing.T, opt node.Options) *node.Node {
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

func Create(t testing.TB, s *node.Node, id hub.ID, spec hub.IdentitySpec) hub.Identity {
	t.Helper()
	i, err := s.PutIdentity(id, spec, hub.Match{})
	if err != nil {
		t.Fatalf("create %s: %v", id, err)
	}
	return i
}

func SendMessage(t testing.TB, h *node.Node, device string, m hub.Message) {
	t.Helper()
	if err := h.SendMessage(device, m); err != nil {
		t.Fatal(err)
	}
}

func Text(body string) hub.Message { return hub.Message{Body: []byte(body)} }

func WantPending(t testing.TB, h *node.Node, device string, want int) {
	t.Helper()
	if got := h.ConnectionState(hub.ID{Device: device}).PendingMessages; got != want {
		t.Errorf("%d messages wait for %s, want %d", got, device, want)
	}
}

// eventsOf returns the events of a query. Their slices are copies.
func EventsOf(t testing.TB, h *node.Node, q hub.EventQuery) []hub.Event {
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

func TelemetryOf(t testing.TB, h *node.Node, device string) []hub.Event {
	t.Helper()
	return EventsOf(t, h, hub.EventQuery{Device: device, Sources: []hub.EventSource{hub.SourceTelemetry}})
}
