package provisioning_test

import (
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
)

var (
	neverAgain = &provisioning.Reprovision{}
	keepData   = &provisioning.Reprovision{UpdateHub: true, Migrate: true}
	resetData  = &provisioning.Reprovision{UpdateHub: true}
)

const (
	twinOfNorth = `{"tags":{"site":"north"},"properties":{"desired":{"interval":5}}}`
	asNew       = `{"site":"north"} {"interval":5} {}`
	asUsed      = `{"site":"north","room":3} {"interval":60} {"temperature":21}`
)

// use changes the twin as its service and its device do.
func (b bench) use(device string) {
	b.t.Helper()
	id := hub.ID{Device: device}
	_, err := b.hub.PatchTwin(id, hub.TwinChange{Tags: []byte(`{"room":3}`), Desired: []byte(`{"interval":60}`)}, hub.Match{})
	if err == nil {
		_, err = b.hub.PatchReported(id, []byte(`{"temperature":21}`), hub.AnyVersion)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// What a device gets that registers again with this hub, which has changed since.
func TestADeviceRegistersAgain(t *testing.T) {
	for name, c := range map[string]struct {
		policy    *provisioning.Reprovision
		substatus string
		twin      string
	}{
		"without a policy it is kept": {nil, "initialAssignment", asUsed},
		"never":                       {neverAgain, "initialAssignment", asUsed},
		"keeping its data":            {keepData, "initialAssignment", asUsed},
		"with its data reset":         {resetData, "deviceDataReset", asNew},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, node.Options{})
			e := byKey("d")
			e.InitialTwin, e.Reprovision = twinOf(t, twinOfNorth), c.policy
			e = b.put(e)
			p := bySAS(t, "d", e.Attestation.SymmetricKey.Primary)
			first := b.register(p, provisioning.Assigned)
			b.use("d")
			generation := b.identity("d").GenerationID

			second := b.register(p, provisioning.Assigned)
			if second.Substatus != c.substatus || second.Hub != first.Hub || !second.Created.Equal(first.Created) || second.ETag == first.ETag {
				t.Errorf("%+v, want substatus %s, after %+v", second, c.substatus, first)
			}
			if got := b.twin("d"); got != c.twin {
				t.Errorf("twin %s, want %s", got, c.twin)
			}
			if got := b.identity("d").GenerationID; got != generation {
				t.Errorf("it is another identity")
			}

			// It was deleted behind the service's back.
			if err := b.hub.DeleteIdentity(hub.ID{Device: "d"}, hub.Match{}); err != nil {
				t.Fatal(err)
			}
			b.register(p, provisioning.Assigned)
			if got := b.twin("d"); got != asNew {
				t.Errorf("made again, its twin is %s, want %s", got, asNew)
			}

			// Without a registration it is the first time, of a device that is there.
			b.use("d")
			if err := b.DeleteRegistration("D", hub.Match{}); err != nil {
				t.Fatal(err)
			}
			if r := b.register(p, provisioning.Assigned); r.Substatus != "initialAssignment" || b.twin("d") != asUsed {
				t.Errorf("after its registration was deleted: %+v, %s", r, b.twin("d"))
			}
		})
	}
}

func TestARegistrationOverwritesTheCredential(t *testing.T) {
	for name, policy := range map[string]*provisioning.Reprovision{"never": neverAgain, "keeping": keepData, "reset": resetData} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, node.Options{})
			reason := "in repair"
			if _, err := b.hub.PutIdentity(hub.ID{Device: "d"}, hub.IdentitySpec{Status: hub.StatusDisabled, StatusReason: &reason}, hub.Match{}); err != nil {
				t.Fatal(err)
			}
			e := byKey("d")
			e.Reprovision = policy
			e = b.put(e)
			b.register(bySAS(t, "d", e.Attestation.SymmetricKey.Primary), provisioning.Assigned)
			i := b.identity("d")
			if i.Auth.SymmetricKey != hub.SymmetricKey(*e.Attestation.SymmetricKey) {
				t.Errorf("the device has other keys than its enrollment")
			}
			if i.Status != hub.StatusDisabled || *i.StatusReason != reason {
				t.Errorf("the operator's status is %s", i.Status)
			}
			before := i.Version
			b.change(provisioning.Individual, "d", func(e *provisioning.Enrollment) {
				e.Attestation.SymmetricKey.Primary = "bmV3IGtleSBvZiBzaXh0ZWVuIGJ5dGVz"
			})
			b.register(bySAS(t, "d", "bmV3IGtleSBvZiBzaXh0ZWVuIGJ5dGVz"), provisioning.Assigned)
			if i := b.identity("d"); i.Auth.SymmetricKey.Primary != "bmV3IGtleSBvZiBzaXh0ZWVuIGJ5dGVz" || i.Version == before {
				t.Errorf("the new key has not come to the device")
			}
			b.register(bySAS(t, "d", e.Attestation.SymmetricKey.Secondary), provisioning.Assigned)
		})
	}
}

// The SDK for Node enrolls, registers and deletes the same id again and again.
func TestAnotherEnrollmentBeginsAnew(t *testing.T) {
	b := newBench(t, node.Options{})
	e := byKey("d")
	e.DeviceID, e.Reprovision = "one", neverAgain
	e = b.put(e)
	b.register(bySAS(t, "d", e.Attestation.SymmetricKey.Primary), provisioning.Assigned)
	if err := b.DeleteEnrollment(provisioning.Individual, "D", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Registration("d"); provisioning.RefusalOf(err).Code != 404201 {
		t.Errorf("the registration of an enrollment that was deleted: %v", err)
	}
	group := groupByKey("g")
	group.Reprovision = neverAgain
	key := b.put(group).Attestation.SymmetricKey.Primary
	p := bySAS(t, "d", derived(t, key, "d"))
	if r := b.register(p, provisioning.Assigned); r.DeviceID != "d" {
		t.Errorf("by the group it is %+v", r)
	}
	if err := b.DeleteEnrollment(provisioning.Group, "g", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "after the group was deleted", b.refused(p), 404201, "no enrollment d")
	if list, _, err := b.Registrations("g", "", 0); err != nil || len(list) != 1 {
		t.Errorf("registrations of the group that was deleted: %+v, %v", list, err)
	}
	b.identity("one")
	e.DeviceID = "two"
	e = b.put(byKey("d"))
	b.register(bySAS(t, "d", e.Attestation.SymmetricKey.Primary), provisioning.Assigned)
	if _, _, err := b.Registrations("g", "", 0); provisioning.RefusalOf(err).Code != 404204 {
		t.Errorf("registrations of a group that has none and was deleted: %v", err)
	}
}

// The device id of an enrollment is changed: as if it went to another hub.
func TestADeviceGetsAnotherID(t *testing.T) {
	for name, c := range map[string]struct {
		policy *provisioning.Reprovision
		device string
		twin   string
	}{
		"never":     {neverAgain, "old", asUsed},
		"migrating": {keepData, "new", asUsed},
		"resetting": {resetData, "new", asNew},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, node.Options{})
			e := byKey("d")
			e.DeviceID, e.InitialTwin, e.Reprovision = "old", twinOf(t, twinOfNorth), c.policy
			e = b.put(e)
			p := bySAS(t, "d", e.Attestation.SymmetricKey.Primary)
			b.register(p, provisioning.Assigned)
			b.use("old")
			b.change(provisioning.Individual, "d", func(e *provisioning.Enrollment) { e.DeviceID = "new" })
			if r := b.register(p, provisioning.Assigned); r.DeviceID != c.device {
				t.Errorf("it is %+v", r)
			}
			if got := b.twin(c.device); got != c.twin {
				t.Errorf("twin %s, want %s", got, c.twin)
			}
			other := map[string]string{"old": "new", "new": "old"}[c.device]
			if _, err := b.hub.Identity(hub.ID{Device: other}); hub.RefusalOf(err).Code != hub.ErrDeviceNotFound.Code {
				t.Errorf("device %s: %v", other, err)
			}
		})
	}
}

func TestADisabledEnrollment(t *testing.T) {
	b := newBench(t, node.Options{})
	e := byKey("d")
	e.Status = hub.StatusDisabled
	e = b.put(e)
	p := bySAS(t, "d", e.Attestation.SymmetricKey.Primary)
	r := b.register(p, provisioning.Disabled)
	if r.RegistrationID != "d" || r.ErrorMessage == "" || r.Hub != "" {
		t.Errorf("%+v", r)
	}
	if _, err := b.hub.Identity(hub.ID{Device: "d"}); err == nil {
		t.Errorf("it has a device all the same")
	}
	if _, err := b.Authenticate(p); err != nil {
		t.Errorf("it does not learn that: %v", err)
	}
	b.change(provisioning.Individual, "d", func(e *provisioning.Enrollment) { e.Status = "Enabled" })
	b.register(p, provisioning.Assigned)
	b.change(provisioning.Individual, "d", func(e *provisioning.Enrollment) { e.Status = hub.StatusDisabled })
	b.register(p, provisioning.Disabled)
	b.identity("d") // it keeps what it has
	if r, err := b.Lookup(p); err != nil || r.Status != provisioning.Disabled {
		t.Errorf("looked up: %+v, %v", r, err)
	}
}

func TestARegistrationTakesItsTime(t *testing.T) {
	c := clock.Stopped(time.Now())
	b := newBench(t, node.Options{Assigning: 90 * time.Second, Clock: c})
	key := b.put(byKey("d")).Attestation.SymmetricKey.Primary
	p := bySAS(t, "d", key)
	op, err := b.Register(t.Context(), p, provisioning.Request{})
	if err != nil || op.Status != provisioning.Assigning || op.HTTPStatus() != 202 || op.Registration != nil || op.RetryAfter < time.Second {
		t.Fatalf("%+v, %v", op, err)
	}
	if r, err := b.Registration("d"); err != nil || r.Status != provisioning.Assigning || r.Hub != "" {
		t.Errorf("for the service it is %+v, %v", r, err)
	}
	c.Advance(89500 * time.Millisecond)
	if op, err = b.Operation(p, op.ID); err != nil || op.Status != provisioning.Assigning || op.RetryAfter != time.Second {
		t.Errorf("after 89.5 s: %+v, %v", op, err)
	}
	c.Advance(500 * time.Millisecond)
	done, err := b.Operation(p, op.ID)
	if err != nil || done.ID != op.ID || done.Status != provisioning.Assigned || done.HTTPStatus() != 200 || done.Registration.Hub != "localhost" {
		t.Errorf("after 90 s: %+v, %v", done, err)
	}
	for name, id := range map[string]string{"none": "", "another": "4.d0a671905ea5b2c8.42d7", "one of before": op.ID} {
		if name == "one of before" {
			if _, err := b.Register(t.Context(), p, provisioning.Request{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Operation(p, id); provisioning.RefusalOf(err).HTTPStatus() != 404 {
			t.Errorf("operation %s: %v", name, err)
		}
	}
	b.change(provisioning.Individual, "d", func(e *provisioning.Enrollment) { e.Status = hub.StatusDisabled })
	if op, err := b.Operation(p, op.ID); err != nil || op.Status != provisioning.Disabled {
		t.Errorf("disabled in between: %+v, %v", op, err)
	}
	if err := b.DeleteEnrollment(provisioning.Individual, "d", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Operation(p, op.ID); provisioning.RefusalOf(err).Code != 404201 {
		t.Errorf("deleted in between: %v", err)
	}
}

// Whoever reads the events of a reset knows the twin.
func TestAResetIsOneWrite(t *testing.T) {
	b := newBench(t, node.Options{})
	e := byKey("d")
	e.InitialTwin, e.Reprovision = twinOf(t, twinOfNorth), resetData
	e = b.put(e)
	p := bySAS(t, "d", e.Attestation.SymmetricKey.Primary)
	b.register(p, provisioning.Assigned)
	b.use("d")
	before, err := b.hub.Twin(hub.ID{Device: "d"})
	if err != nil {
		t.Fatal(err)
	}
	b.register(p, provisioning.Assigned)
	after, err := b.hub.Twin(hub.ID{Device: "d"})
	if err != nil {
		t.Fatal(err)
	}
	doc := func(v hub.TwinView) (version float64, reported float64) {
		text, err := v.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		all := parsed(t, text)
		section := all["properties"].(map[string]any)["reported"].(map[string]any)
		return all["version"].(float64), section["$version"].(float64)
	}
	was, wasReported := doc(before)
	is, isReported := doc(after)
	if is != was+1 || isReported != wasReported+1 {
		t.Errorf("version %v after %v, of reported properties %v after %v", is, was, isReported, wasReported)
	}
	events := wiretest.Events(t, b.hub, hub.EventQuery{})
	last := parsed(t, events[len(events)-1].Body)
	properties := last["properties"].(map[string]any)
	if reported := properties["reported"].(map[string]any); reported["temperature"] != nil || last["version"] != is {
		t.Errorf("the event says %v", last)
	}
}
