package hubtest

import (
	"context"
	"time"

	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/journal"
)

// Fault has something go wrong from now on; docs/TEST-CONTROLS.md says what each fault does over each protocol.
//
//	h.Fault(fault.Fault{On: fault.Telemetry, Device: "thermostat-1", Status: 429, Count: 3})
func (h *Hub) Fault(f fault.Fault) fault.Active {
	h.t.Helper()
	h.needControls()
	a, err := h.AddFault(f)
	if err != nil {
		h.t.Fatalf("hubtest: %v", err)
	}
	return a
}

// Journal returns what was asked of the hub so far and what it did: the first journal.MaxPage entries of those that the
// filter lets pass.
func (h *Hub) Journal(f journal.Filter) []journal.Entry {
	h.t.Helper()
	h.needControls()
	return h.Server.Journal().Read(f, 0, 0).Entries
}

// patience is how long Await waits.
const patience = 10 * time.Second

// Await returns the first entry of the journal that the filter lets pass, which may be there already, and ends the test if
// none comes within ten seconds.
//
//	h.Await(journal.Filter{Device: "thermostat-1", On: []journal.Kind{journal.Telemetry}})
func (h *Hub) Await(f journal.Filter) journal.Entry {
	h.t.Helper()
	h.needControls()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	page := h.Server.Journal().Wait(ctx, f, 0, 1)
	if len(page.Entries) == 0 {
		h.t.Fatalf("hubtest: no such entry in the journal within %v: %s %v %s", patience, f.Device, f.On, f.What)
	}
	return page.Entries[0]
}
