package provisioning_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/sas"
)

// goes is the group "fleet" whose devices go to a hub, with a policy for those that
// are somewhere already.
func (h *twoHubs) goes(to string, policy *provisioning.Reprovision) provisioning.Enrollment {
	h.t.Helper()
	return h.group("fleet", func(e *provisioning.Enrollment) {
		e.Allocation, e.HostName, e.Reprovision = provisioning.Static, to, policy
		e.InitialTwin = initialTwin(`{"site":"berlin"}`, `{"rate":5}`)
	})
}

var (
	migrate = &provisioning.Reprovision{UpdateHub: true, Migrate: true}
	reset   = &provisioning.Reprovision{UpdateHub: true}
	never   = &provisioning.Reprovision{}
)

const (
	initially = `[{"site":"berlin"},{"rate":5},{}]`
	lived     = `[{"owner":"ann"},{"rate":6,"unit":"C"},{"firmware":"1.1","log":[1,{"a":2}]}]`
)

// live has the twin of a device changed to that of lived.
func (h *twoHubs) live(in devices, id string) {
	h.t.Helper()
	h.write(in, id, `{"site":null,"owner":"ann"}`, `{"rate":6,"unit":"C"}`, `{"firmware":"1.1","log":[1,{"a":2}]}`)
	if got := twinText(h.t, in, id); got != lived {
		h.t.Fatalf("the twin is %s", got)
	}
}

func TestADeviceMovesWithItsTwin(t *testing.T) {
	h := newTwoHubs(t)
	e := h.goes(here, migrate)
	h.assigned(e, "d1", here, "initialAssignment")
	h.live(h.here, "d1")

	e = h.goes(there, migrate)
	h.assigned(e, "d1", there, "deviceDataMigrated")
	h.only(h.there, e, "d1", lived)
	h.assigned(e, "d1", there, "deviceDataMigrated") // it stays, with all that it has
	h.only(h.there, e, "d1", lived)

	h.write(h.there, "d1", `{"moved":true}`, `{}`, `{"firmware":"1.2"}`)
	e = h.goes(here, migrate)
	h.assigned(e, "d1", here, "deviceDataMigrated")
	h.only(h.here, e, "d1", `[{"moved":true,"owner":"ann"},{"rate":6,"unit":"C"},{"firmware":"1.2","log":[1,{"a":2}]}]`)
}

func TestADeviceBeginsAgain(t *testing.T) {
	h := newTwoHubs(t)
	e := h.goes(here, reset)
	h.assigned(e, "d1", here, "initialAssignment")
	h.live(h.here, "d1")
	h.assigned(e, "d1", here, "deviceDataReset")
	h.only(h.here, e, "d1", initially)

	h.live(h.here, "d1")
	e = h.goes(there, reset)
	h.assigned(e, "d1", there, "deviceDataReset")
	h.only(h.there, e, "d1", initially)

	h.live(h.there, "d1")
	h.assigned(e, "d1", there, "deviceDataReset")
	h.only(h.there, e, "d1", initially)

	h.live(h.there, "d1")
	e = h.goes(here, reset)
	h.assigned(e, "d1", here, "deviceDataReset")
	h.only(h.here, e, "d1", initially)
}

func TestADeviceStaysWhereItIs(t *testing.T) {
	for _, at := range []string{here, there} {
		h := newTwoHubs(t)
		in, other := devices(h.here), there
		if at == there {
			in, other = h.there, here
		}
		e := h.goes(at, never)
		h.assigned(e, "d1", at, "initialAssignment")
		h.live(in, "d1")
		e = h.goes(other, never)
		h.assigned(e, "d1", at, "initialAssignment")
		h.only(in, e, "d1", lived)
		h.assigned(e, "d2", other, "initialAssignment") // a new one does not
	}
}

// The credential of the identity follows the enrollment's, and all else of a device
// in a linked hub stays as it is.
func TestKeysOfADeviceInALinkedHubAreReplaced(t *testing.T) {
	h := newTwoHubs(t)
	e := h.goes(there, migrate)
	h.assigned(e, "d1", there, "initialAssignment")
	h.live(h.there, "d1")
	before, err := h.there.Identity(hub.ID{Device: "d1"})
	if err != nil {
		t.Fatal(err)
	}
	e.Attestation.SymmetricKey = &provisioning.SymmetricKey{Primary: sas.NewKey(), Secondary: sas.NewKey()}
	if e, err = h.PutEnrollment(e, hub.Match{Any: true}); err != nil {
		t.Fatal(err)
	}
	h.assigned(e, "d1", there, "initialAssignment")
	h.only(h.there, e, "d1", lived)
	after, err := h.there.Identity(hub.ID{Device: "d1"})
	if err != nil || after.GenerationID != before.GenerationID {
		t.Errorf("it is another device now: %v", err)
	}

	// And once more, with nothing to change: nothing is written.
	h.mu.Lock()
	h.asked = nil
	h.mu.Unlock()
	h.assigned(e, "d1", there, "initialAssignment")
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.ContainsFunc(h.asked, func(s string) bool { return !strings.HasPrefix(s, http.MethodGet) }) {
		t.Errorf("the other hub was asked to change something: %q", h.asked)
	}
}

func TestALinkedHubThatIsDown(t *testing.T) {
	for _, status := range []int{0, 401, 500, 403} {
		h := newTwoHubs(t)
		e := h.goes(there, migrate)
		h.failing("", status, func() { h.failed(e, "d1", there) })
		h.assigned(e, "d1", there, "initialAssignment")
		h.only(h.there, e, "d1", initially)

		// Nobody who is here already is lost.
		e = h.goes(here, migrate)
		h.assigned(e, "d2", here, "initialAssignment")
		h.live(h.here, "d2")
		e = h.goes(there, migrate)
		h.failing("", status, func() { h.failed(e, "d2", there) })
		h.only(h.here, e, "d2", lived)
		h.assigned(e, "d2", there, "deviceDataMigrated")
		h.only(h.there, e, "d2", lived)

		// Nor is one that is there, whose twin cannot be had now.
		e = h.goes(here, migrate)
		h.failing("", status, func() { h.failed(e, "d2", there) })
		h.only(h.there, e, "d2", lived)
		h.assigned(e, "d2", here, "deviceDataMigrated")
		h.only(h.here, e, "d2", lived)
	}
}

// What a move leaves behind is removed by the next registration, if the hub does not
// take it now. The device works by then.
func TestWhatCannotBeRemovedIsRemovedLater(t *testing.T) {
	h := newTwoHubs(t)
	e := h.goes(there, migrate)
	h.assigned(e, "d1", there, "initialAssignment")
	h.live(h.there, "d1")
	e = h.goes(here, migrate)
	h.failing(http.MethodDelete, 500, func() { h.assigned(e, "d1", here, "deviceDataMigrated") })
	if _, err := h.there.Identity(hub.ID{Device: "d1"}); err != nil {
		t.Fatalf("it is gone from the other hub: %v", err)
	}
	if got := twinText(t, h.here, "d1"); got != lived {
		t.Errorf("the twin is %s, want %s", got, lived)
	}
	h.write(h.here, "d1", `{"more":1}`, `{}`, `{}`)
	h.assigned(e, "d1", here, "deviceDataMigrated")
	h.only(h.here, e, "d1", strings.Replace(lived, `{"owner"`, `{"more":1,"owner"`, 1))

	// Back again, before what was left is removed: it is not removed then.
	e = h.goes(there, migrate)
	h.assigned(e, "d1", there, "deviceDataMigrated")
	e = h.goes(here, migrate)
	h.failing(http.MethodDelete, 0, func() { h.assigned(e, "d1", here, "deviceDataMigrated") })
	e = h.goes(there, migrate)
	h.write(h.here, "d1", `{"more":2}`, `{}`, `{}`)
	h.assigned(e, "d1", there, "deviceDataMigrated")
	h.only(h.there, e, "d1", strings.Replace(lived, `{"owner"`, `{"more":2,"owner"`, 1))
}

// A move that is cut off when the device is in both hubs, by a crash or an answer
// that is lost, is finished by the next registration.
func TestAMoveThatIsCutOff(t *testing.T) {
	h := newTwoHubs(t)
	e := h.goes(here, migrate)
	h.assigned(e, "d1", here, "initialAssignment")
	h.live(h.here, "d1")
	e = h.goes(there, migrate)
	h.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		// It is done, and nobody hears of it.
		if _, err := h.there.PutIdentity(hub.ID{Device: "d1"}, hub.IdentitySpec{}, hub.Match{}); err != nil && !errors.Is(err, hub.ErrDeviceAlreadyExists) {
			t.Error(err)
		}
		panic(http.ErrAbortHandler)
	})
	h.failed(e, "d1", there)
	h.set(nil)
	if got := twinText(t, h.here, "d1"); got != lived {
		t.Errorf("the twin is %s, want %s", got, lived)
	}
	h.assigned(e, "d1", there, "deviceDataMigrated")
	h.only(h.there, e, "d1", lived)
}

func TestADeviceThatWasDeletedBehindOurBack(t *testing.T) {
	for _, at := range []string{here, there} {
		h := newTwoHubs(t)
		e := h.goes(at, migrate)
		in, s := devices(h.here), h.here
		if at == there {
			in, s = h.there, h.there.Server
		}
		h.assigned(e, "d1", at, "initialAssignment")
		h.live(in, "d1")
		if err := s.DeleteIdentity(hub.ID{Device: "d1"}, hub.Match{Any: true}); err != nil {
			t.Fatal(err)
		}
		r := h.register(e, "d1")
		if r.Status != provisioning.Assigned || r.Hub != at {
			t.Errorf("registered as %+v", r)
		}
		h.only(in, e, "d1", initially)
	}
}
