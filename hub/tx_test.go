package hub_test

import (
	"errors"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func TestTheEventOfABulkCreateShowsTheTwin(t *testing.T) {
	now := time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)
	s := wiretest.NewNode(t, node.Options{Clock: clock.Stopped(now)})
	next, stop := follow(t, s, hub.EventQuery{})
	defer stop()
	for name, tt := range map[string]struct {
		entry hub.BulkEntry
		want  string
	}{
		"with tags, desired and reported": {
			hub.BulkEntry{
				ID:       hub.ID{Device: "d1"},
				Mode:     hub.ImportCreate,
				Twin:     hub.TwinChange{Tags: []byte(`{"site":"A"}`), Desired: []byte(`{"x":1}`)},
				Reported: []byte(`{"y":2}`),
			},
			`{"deviceId":"d1","etag":"AAAAAAAAAAE=","version":2,"tags":{"site":"A"},"properties":{` +
				`"desired":{"x":1,"$metadata":{"$lastUpdated":"2026-03-14T09:26:53Z","$lastUpdatedVersion":2,` +
				`"x":{"$lastUpdated":"2026-03-14T09:26:53Z","$lastUpdatedVersion":2}},"$version":2},` +
				`"reported":{"y":2,"$metadata":{"$lastUpdated":"2026-03-14T09:26:53Z","y":{"$lastUpdated":"2026-03-14T09:26:53Z"}},"$version":2}}}`,
		},
		"with tags alone": {
			hub.BulkEntry{ID: hub.ID{Device: "d2"}, Twin: hub.TwinChange{Tags: []byte(`{"site":"B"}`)}},
			`{"deviceId":"d2","etag":"AAAAAAAAAAE=","version":2,"tags":{"site":"B"},"properties":{` +
				`"desired":{"$metadata":{"$lastUpdated":"2026-03-14T09:26:53Z"},"$version":1},` +
				`"reported":{"$metadata":{"$lastUpdated":"2026-03-14T09:26:53Z"},"$version":1}}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if failed, err := s.Bulk([]hub.BulkEntry{tt.entry}); err != nil || len(failed) > 0 {
				t.Fatalf("Bulk: %v, %v", failed, err)
			}
			e := next()
			if diff := cmp.Diff(tt.want, string(e.Body)); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func TestADeviceThatAnnouncesItsModelIsConfigured(t *testing.T) {
	h := hubtest.New(t)
	id := hub.ID{Device: "d1"}
	cs := h.Device(id.Device)
	wiretest.PutConfiguration(t, h.Node, wiretest.DeviceConfiguration("cfg", "modelId = 'dtmi:a;1'", 1, map[string]string{"rate": "5"}), hub.Match{})
	wiretest.WantConfigured(t, h.Node, id, `{} `)
	announcing := func(model string) func(*packets.ConnectPacket) {
		return func(p *packets.ConnectPacket) { p.Username += "&model-id=" + model }
	}
	wiretest.DialTLS(t, h).Connect(cs, wiretest.CleanSession, announcing("dtmi:a;1"))
	wiretest.WantConfigured(t, h.Node, id, `{"rate":5} {"cfg":{"status":"Applied"}}`)
	wiretest.DialTLS(t, h).Connect(cs, wiretest.CleanSession, announcing("dtmi:b;1"))
	wiretest.WantConfigured(t, h.Node, id, `{} `)
}

func TestSystemModulesComeAndGoWithTheirEvents(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	next, stop := follow(t, s, hub.EventQuery{Sources: []hub.EventSource{hub.SourceDeviceLifecycle}})
	defer stop()
	want := func(step string, list ...string) {
		t.Helper()
		var got []string
		for range list {
			got = append(got, described(next()))
		}
		if diff := cmp.Diff(list, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step, diff)
		}
	}
	id := hub.ID{Device: "e1"}
	put := func(m hub.Match, edge bool) {
		t.Helper()
		if _, err := s.PutIdentity(id, hub.IdentitySpec{IoTEdge: edge}, m); err != nil {
			t.Fatal(err)
		}
	}
	put(hub.Match{}, true)
	want("an IoT Edge device is created", "create e1", "create e1/$edgeAgent", "create e1/$edgeHub")
	put(hub.Match{Any: true}, false)
	want("it becomes a plain one", "delete e1/$edgeAgent", "delete e1/$edgeHub")
	put(hub.Match{Any: true}, true)
	want("and an IoT Edge device again", "create e1/$edgeAgent", "create e1/$edgeHub")
	put(hub.Match{Any: true}, true)
	if err := s.DeleteIdentity(id, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	want("it is deleted", "delete e1/$edgeAgent", "delete e1/$edgeHub", "delete e1")
	put(hub.Match{}, false)
	want("and comes back as a plain one", "create e1") // nothing else came in between
}

// A Tx that deletes a device takes along the modules that it made itself, and
// reports none twice.
func TestATxDeletesWhatItHasLeftOfADevice(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	device, older, newer := hub.ID{Device: "d"}, hub.ID{Device: "d", Module: "older"}, hub.ID{Device: "d", Module: "newer"}
	wiretest.Create(t, s, device, hub.IdentitySpec{})
	wiretest.Create(t, s, older, hub.IdentitySpec{})
	if err := s.Update("d", func(tx *hub.Tx) error {
		if _, err := tx.Create(newer, hub.IdentitySpec{}, nil); err != nil {
			return err
		}
		return errors.Join(tx.Delete(older, hub.Match{}), tx.Delete(device, hub.Match{}))
	}); err != nil {
		t.Fatal(err)
	}
	wiretest.Create(t, s, device, hub.IdentitySpec{})
	next, stop := follow(t, s, hub.EventQuery{})
	defer stop()
	for _, want := range []string{"create d", "create d/older", "create d/newer", "delete d/older", "delete d/newer", "delete d", "create d"} {
		if got := described(next()); got != want {
			t.Errorf("event %q, want %q", got, want)
		}
	}
	for _, id := range []hub.ID{older, newer} {
		if _, err := s.Twin(id); err == nil {
			t.Errorf("%s still has a twin", id)
		}
	}
}

// described returns what an event of an identity's life says.
func described(e hub.Event) string {
	switch operation(e) {
	case "createDeviceIdentity":
		return "create " + e.From.String()
	case "deleteDeviceIdentity":
		return "delete " + e.From.String()
	}
	return operation(e) + " " + e.From.String()
}

func operation(e hub.Event) string {
	for _, p := range e.Properties {
		if p.Name == "opType" {
			return p.Value
		}
	}
	return ""
}
