package dps_test

import (
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/hub/node"
)

// A hub under test does to requests of the provisioning service what it does to the
// hub's own, and takes them down without keys.
func TestFaultsAndTheJournal(t *testing.T) {
	h := startService(t, node.Options{})
	body := `{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"` + someKey + `","secondaryKey":"` + someKey + `"}}}`
	h.Fault(fault.Fault{On: fault.REST, Path: "/enrollments/*", Status: 503, RetryAfter: 7 * time.Second, Count: 1})
	a := h.do("PUT", "/enrollments/r1", body)
	if a.Status != 503 || a.Header.Get("Retry-After") != "7" || a.Text(t, "trackingId") == "" {
		t.Errorf("a fault of requests: %d %v %s", a.Status, a.Header, a.Body)
	}
	h.do("PUT", "/enrollments/r1", body).Want(t, 200, "")
	e := h.Await(journal.Filter{On: []journal.Kind{journal.REST}})
	if e.Verb != "PUT" || e.Path != "/enrollments/r1" || e.Status != 503 || e.Caller != node.ProvisioningPolicy {
		t.Errorf("the journal has %+v", e)
	}
	for _, e := range h.Journal(journal.Filter{}) {
		if strings.Contains(string(e.Body.Bytes()), someKey) {
			t.Error("the journal has a key")
		}
	}

	own := deviceToken(t, h.IDScope(), "r1", someKey, wiretest.Now.Add(time.Hour))
	register := wiretest.Call{Method: "PUT", Path: "/" + h.IDScope() + "/registrations/r1/register?api-version=2019-03-31", Token: own}
	h.Fault(fault.Fault{On: fault.Registration, Device: "r1", Status: 429, RetryAfter: 5 * time.Second, Count: 1})
	if a := h.Do(register); a.Status != 429 || a.Header.Get("Retry-After") != "5" {
		t.Errorf("a fault of registrations: %d %v %s", a.Status, a.Header, a.Body)
	}
	h.Fault(fault.Fault{On: fault.Registration, Device: "r1", Drop: true, Count: 1})
	if a, err := h.Try(t.Context(), register); err == nil {
		t.Errorf("a connection that is dropped: %d %s", a.Status, a.Body)
	}
	h.Do(register).Want(t, 200, "")
}
