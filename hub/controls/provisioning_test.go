package controls_test

import (
	"errors"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/sas"
)

// A reset, and a snapshot that is loaded, have enrollments and registrations as the
// state has them: those in memory, too.
func TestProvisioningIsResetAndPutBy(t *testing.T) {
	const key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	seed, err := node.ParseSeed([]byte(`{"enrollmentGroups":[{"enrollmentGroupId":"g","attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"` + key + `"}}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	now := clock.Stopped(wiretest.Now)
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Seed: seed, Clock: now}))
	register := func(id string) (provisioning.Operation, error) {
		t.Helper()
		derived, err := sas.DeriveKey(key, id)
		if err != nil {
			t.Fatal(err)
		}
		return h.Provisioning.Register(t.Context(), provisioning.Peer{
			Scope: h.IDScope(), ID: id, Door: "mqtts",
			Password: wiretest.Sign(t, h.IDScope()+"/registrations/"+id, "registration", derived, h.Now().Add(time.Hour)),
		}, provisioning.Request{})
	}
	want := func(when string, registered bool) {
		t.Helper()
		_, err := h.Provisioning.Registration("r1")
		if (err == nil) != registered || err != nil && !errors.Is(err, provisioning.ErrRegistrationNotFound) {
			t.Errorf("%s: the registration: %v, there should be %t", when, err, registered)
		}
		if _, err := h.Identity(hub.ID{Device: "r1"}); (err == nil) != registered {
			t.Errorf("%s: the identity: %v, there should be %t", when, err, registered)
		}
	}
	if o, err := register("r1"); err != nil || o.Status != provisioning.Assigned {
		t.Fatalf("register: %+v, %v", o, err)
	}
	want("in the beginning", true)
	h.SaveSnapshot("one")
	if err := h.Provisioning.DeleteEnrollment(provisioning.Group, "g", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	if _, err := register("r2"); err == nil {
		t.Error("registered by a group that is deleted")
	}
	h.Reset()
	want("after a reset", false)
	if o, err := register("r2"); err != nil || o.Status != provisioning.Assigned {
		t.Errorf("after a reset, by the group of the seed: %+v, %v", o, err)
	}
	h.LoadSnapshot("one")
	want("with the snapshot", true)
	if _, err := h.Provisioning.Registration("r2"); !errors.Is(err, provisioning.ErrRegistrationNotFound) {
		t.Errorf("what is not in the snapshot: %v", err)
	}
	h.ResetTo(`{"enrollments":[{"registrationId":"r9","attestation":{"type":"symmetricKey"}}]}`)
	if _, err := register("r1"); err == nil {
		t.Error("registered by a group that another seed does not have")
	}
	if _, err := h.Provisioning.Enrollment(provisioning.Individual, "r9"); err != nil {
		t.Errorf("the enrollment of another seed: %v", err)
	}
}
