package provisioning_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/severaltest"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/sas"
)

func severalPeer(t *testing.T, id string, key sas.Key) provisioning.Peer {
	t.Helper()
	token, err := sas.Sign(severaltest.Scope+"/registrations/"+id, "registration", key, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return provisioning.Peer{Scope: severaltest.Scope, ID: id, Password: token}
}

func TestAnEnrollmentOfOneNodeIsGoodOnAnother(t *testing.T) {
	c := severaltest.Start(t, 3)
	e, err := c.Nodes[0].Provisioning.PutEnrollment(groupByKey("line"), hub.Match{})
	if err != nil {
		t.Fatal(err)
	}
	p := severalPeer(t, "pump", derived(t, e.Attestation.SymmetricKey.Primary, "pump"))
	done, err := c.Nodes[2].Provisioning.Register(t.Context(), p, provisioning.Request{})
	if err != nil || done.Status != provisioning.Assigned {
		t.Fatalf("the device is registered: %+v, %v", done, err)
	}
	again, err := c.Nodes[1].Provisioning.Operation(p, done.ID)
	if err != nil || again.Status != provisioning.Assigned || again.Registration.DeviceID != "pump" {
		t.Errorf("another node knows the operation as %+v, %v", again, err)
	}
	if _, err := c.Nodes[1].Identity(hub.ID{Device: "pump"}); err != nil {
		t.Errorf("another node knows the device as %v", err)
	}
	if err := c.Nodes[1].Provisioning.DeleteEnrollment(provisioning.Group, "line", hub.Match{Any: true}); err != nil {
		t.Fatal(err)
	}
	c.Settle(t, 2)
	if _, err := c.Nodes[2].Provisioning.Register(t.Context(), p, provisioning.Request{}); !errors.Is(err, provisioning.ErrRegistrationNotFound) {
		t.Errorf("without its enrollment: %v, want %v", err, provisioning.ErrRegistrationNotFound)
	}
}

func TestADeviceIsRegisteredOnOneNodeAtATime(t *testing.T) {
	c := severaltest.Start(t, 3)
	e, err := c.Nodes[0].Provisioning.PutEnrollment(byKey("pump"), hub.Match{})
	if err != nil {
		t.Fatal(err)
	}
	p := severalPeer(t, "pump", e.Attestation.SymmetricKey.Primary)
	operations := make(chan string, 12)
	var all sync.WaitGroup
	for i := range cap(operations) {
		all.Go(func() {
			done, err := c.Nodes[i%3].Provisioning.Register(t.Context(), p, provisioning.Request{})
			if err != nil || done.Status != provisioning.Assigned {
				t.Errorf("register on node %d: %+v, %v", i%3, done, err)
			}
			operations <- done.ID
		})
	}
	// An operator deletes the registration meanwhile, on a node of its own.
	all.Go(func() {
		for range 3 {
			if err := c.Nodes[1].Provisioning.DeleteRegistration("pump", hub.Match{}); err != nil && !errors.Is(err, provisioning.ErrRegistrationNotFound) {
				t.Error(err)
			}
		}
	})
	all.Wait()
	close(operations)
	seen := make(map[string]bool)
	for id := range operations {
		if seen[id] {
			t.Errorf("operation %s is of two requests", id)
		}
		seen[id] = true
	}
	c.Settle(t, 0, 1, 2)
	var versions []string
	for _, n := range c.Nodes {
		i, err := n.Identity(hub.ID{Device: "pump"})
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, fmt.Sprint(i.GenerationID, i.Version))
	}
	if versions[0] != versions[1] || versions[0] != versions[2] {
		t.Errorf("the nodes know the device as %v", versions)
	}
}

func TestTheClaimOfADeadNodeDoesNotCount(t *testing.T) {
	c := severaltest.Start(t, 3)
	e, err := c.Nodes[0].Provisioning.PutEnrollment(byKey("pump"), hub.Match{})
	if err != nil {
		t.Fatal(err)
	}
	p := severalPeer(t, "pump", e.Attestation.SymmetricKey.Primary)
	// A node has taken the registration's turn and dies.
	if err := c.Nodes[2].Provisioning.Claim(t.Context(), "pump"); err != nil {
		t.Fatal(err)
	}
	registered := make(chan error, 1)
	go func() {
		_, err := c.Nodes[1].Provisioning.Register(t.Context(), p, provisioning.Request{})
		registered <- err
	}()
	select {
	case err := <-registered:
		t.Fatalf("it does not wait for the other node: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	c.Kill(t, 2)
	select {
	case err := <-registered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(severaltest.Patience):
		t.Error("it waits for a node that is dead")
	}
}

func TestAClaimThatComesLateIsGivenBack(t *testing.T) {
	t.Parallel() // the log is waited for as long as users do
	c := severaltest.Start(t, 3)
	e, err := c.Nodes[0].Provisioning.PutEnrollment(byKey("pump"), hub.Match{})
	if err != nil {
		t.Fatal(err)
	}
	c.Settle(t, 1, 2)
	claimed := make(chan struct{}, 8)
	if err := c.Nodes[1].Subscribe(disk.Registering, func(store.Change) error { claimed <- struct{}{}; return nil }); err != nil {
		t.Fatal(err)
	}
	p := severalPeer(t, "pump", e.Attestation.SymmetricKey.Primary)
	c.Cut(2, true)
	if err := c.Nodes[2].Provisioning.DeleteRegistration("pump", hub.Match{}); !errors.Is(err, store.ErrNoLog) {
		t.Errorf("delete a registration while the log does not answer: %v, want %v", err, store.ErrNoLog)
	}
	c.Cut(2, false) // what was on its way goes on
	<-claimed
	for _, node := range []int{1, 2} {
		ctx, end := context.WithTimeout(t.Context(), severaltest.Patience/2)
		defer end()
		if done, err := c.Nodes[node].Provisioning.Register(ctx, p, provisioning.Request{}); err != nil || done.Status != provisioning.Assigned {
			t.Errorf("register on node %d after that: %+v, %v", node, done, err)
		}
	}
}
