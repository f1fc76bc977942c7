package hubtest

import "time"

// Reset makes the hub what it was when it began: its seed, if WithOptions gave it
// one, and nothing else. Connections of devices end; see
// [github.com/iotdm/iotdm/hub/controls.Controls.Reset].
func (h *Hub) Reset() {
	h.t.Helper()
	h.must(h.Controls.Reset(h.t.Context()))
}

// ResetTo is Reset to a seed in YAML or JSON, such as "devices: [{deviceId: d1}]".
func (h *Hub) ResetTo(seed string) {
	h.t.Helper()
	h.must(h.Controls.ResetTo(h.t.Context(), []byte(seed)))
}

// SaveSnapshot puts by what the hub has, for LoadSnapshot.
func (h *Hub) SaveSnapshot(name string) {
	h.t.Helper()
	_, err := h.Controls.SaveSnapshot(name)
	h.must(err)
}

// LoadSnapshot makes the hub what it was when the snapshot was saved. Connections
// of devices end.
func (h *Hub) LoadSnapshot(name string) {
	h.t.Helper()
	h.must(h.Controls.LoadSnapshot(h.t.Context(), name))
}

// Advance moves the hub's clock by d, above 0, and with it all that waits for the
// hub's time.
func (h *Hub) Advance(d time.Duration) {
	h.t.Helper()
	_, err := h.Controls.Advance(d)
	h.must(err)
}

func (h *Hub) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("hubtest: %v", err)
	}
}
