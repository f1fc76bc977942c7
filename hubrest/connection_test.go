package hubrest_test

import (
	"errors"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubrest"
)

func TestWhyADeviceIsNotConnected(t *testing.T) {
	h := hubtest.New(t)
	c := newHubClient(t, h, "service")
	h.Module("d1", "m1")
	if c.OwnHub() {
		t.Error("it knows its hub before that has answered")
	}
	for _, target := range []hubrest.Target{{DeviceID: "d1"}, {DeviceID: "d1", ModuleID: "m1"}} {
		id := hub.ID{Device: target.DeviceID, Module: target.ModuleID}
		h.Refused(hub.Peer{ID: id, Door: "mqtts", Remote: "192.0.2.1:1"}, "unauthorized", hub.ErrUnauthorizedAccess.With("a wrong key"))
		got, err := c.Connection(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		if r := got.LastRefusal; got.ConnectionState != "Disconnected" || got.Connection != nil || got.LastDisconnect != nil || r == nil ||
			r.Reason != "unauthorized" || r.Detail != "a wrong key" || r.Door != "mqtts" || r.Remote != "192.0.2.1:1" || r.Time.IsZero() {
			t.Errorf("%v: %+v, %+v", target, got, r)
		}
	}
	if !c.OwnHub() {
		t.Error("it does not know its hub")
	}
	if _, err := c.Connection(t.Context(), hubrest.Target{DeviceID: "d2"}); !errors.Is(err, hubrest.ErrNotFound) {
		t.Errorf("a device that there is not: %v", err)
	}
	all, err := c.Refusals(t.Context())
	if err != nil || all.Counts["unauthorized"] != 2 || len(all.Recent) != 2 || all.Recent[0].ModuleID != "m1" || all.Since.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestTraffic(t *testing.T) {
	h := hubtest.New(t)
	c := newHubClient(t, h, "service")
	h.Device("d1")
	if _, err := c.InvokeMethod(t.Context(), hubrest.Target{DeviceID: "d1"}, hubrest.Method{Name: "m"}); !errors.Is(err, hubrest.ErrNotOnline) {
		t.Fatal(err)
	}
	if _, err := c.PatchTwin(t.Context(), hubrest.Target{DeviceID: "d1"}, hubrest.TwinChange{Tags: map[string]int{"a": 1}}); err != nil {
		t.Fatal(err)
	}
	got, err := c.Traffic(t.Context())
	if want := (hubrest.Traffic{MethodCalls: 1, MethodFailures: 1, TwinWrites: 1}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}
