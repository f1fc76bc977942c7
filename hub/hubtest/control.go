package hubtest

import (
	"time"

	"github.com/iotdm/iotdm/hub/controls"
)

// Reset makes the hub what it was when it began: its seed, if WithOptions gave it
// one, and nothing else. Connections of devices end; see
// [github.com/iotdm/iotdm/hub/controls.Controls.Reset].
func (h *Hub) Reset() {
	h.t.Helper()
	h.must(h.controls().Reset(h.t.Context()))
}

// ResetTo is Reset to a seed in YAML or JSON, such as "devices: [{deviceId: d1}]".
func (h *Hub) ResetTo(seed string) {
	h.t.Helper()
	h.must(h.controls().ResetTo(h.t.Context(), []byte(seed)))
}

// SaveSnapshot puts by what the hub has, for LoadSnapshot.
func (h *Hub) SaveSnapshot(name string) {
	h.t.Helper()
	_, err := h.controls().SaveSnapshot(name)
	h.must(err)
}

// LoadSnapshot makes the hub what it was when the snapshot was saved. Connections
// of devices end.
func (h *Hub) LoadSnapshot(name string) {
	h.t.Helper()
	h.must(h.controls().LoadSnapshot(h.t.Context(), name))
}

// Advance moves the hub's clock by d, above 0, and with it all that waits for the
// hub's time.
func (h *Hub) Advance(d time.Duration) {
	h.t.Helper()
	if h.many {
		h.Clock().Advance(d)
		return
	}
	_, err := h.controls().Advance(d)
	h.must(err)
}

func (h *Hub) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("hubtest: %v", err)
	}
}

func (h *Hub) controls() *controls.Controls {
	h.t.Helper()
	h.needControls()
	if h.Controls == nil {
		h.t.Fatal("hubtest: the hub of a benchmark has test controls only with node.Options.TestControls")
	}
	return h.Controls
}

// needControls skips a test where hubs are of several nodes, which have no test controls.
func (h *Hub) needControls() {
	h.t.Helper()
	if h.many {
		OneNode(h.t, "it needs test controls")
	}
}
