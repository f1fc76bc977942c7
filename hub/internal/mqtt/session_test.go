package mqtt_test

import (
	"errors"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// takesMethods reports whether a connected device is sent direct methods.
func takesMethods(t *testing.T, h *hubtest.Hub, d *wiretest.Client, id hub.ID) bool {
	t.Helper()
	read := make(chan struct{})
	go func() {
		defer close(read)
		p, err := packets.ReadPacket(d)
		if p, ok := p.(*packets.PublishPacket); ok && err == nil {
			wiretest.PublishPacket(0, 0, "$iothub/methods/res/200/?$rid="+wiretest.RequestID(p), "1").Write(d)
		}
	}()
	got := <-invoke(h, id, hub.MethodCall{Name: "m"})
	if errors.Is(got.err, hub.ErrDeviceNotOnline) {
		d.Send(packets.NewControlPacket(packets.Pingreq)) // for the goroutine
	} else if got.err != nil {
		t.Fatal(got.err)
	}
	<-read
	return got.err == nil
}

func TestSessionOutlivesTheConnection(t *testing.T) {
	h := hubtest.New(t)
	wiretest.EachTransport(t, h, func(t *testing.T, dial func() *wiretest.Client) {
		cs := h.Device("d1")
		id := hub.ID{Device: "d1"}

		d := dial()
		d.Connect(cs, wiretest.CleanSession)
		if d = dial(); d.Connect(cs) {
			t.Error("session present after a clean session")
		}
		d.Subscribe(1, "$iothub/methods/POST/#", "$iothub/twin/res/#")
		d.Disconnect()

		if d = dial(); !d.Connect(cs) {
			t.Error("no session present after a disconnect")
		}
		if !takesMethods(t, h, d, id) {
			t.Error("the subscription is lost after a disconnect")
		}
		d.Close()

		if d = dial(); !d.Connect(cs) || !takesMethods(t, h, d, id) {
			t.Error("the session is lost after a drop")
		}
		d.Send(&packets.UnsubscribePacket{FixedHeader: packets.FixedHeader{MessageType: packets.Unsubscribe, Qos: 1}, MessageID: 3, Topics: []string{"$iothub/methods/POST/#"}})
		wiretest.Receive[*packets.UnsubackPacket](d)
		d.Disconnect()

		if d = dial(); !d.Connect(cs) {
			t.Error("no session present after UNSUBSCRIBE")
		}
		if takesMethods(t, h, d, id) {
			t.Error("the subscription is back after UNSUBSCRIBE and a reconnect")
		}
		d.Subscribe(1, "$iothub/methods/POST/#")
		d.Disconnect()

		d = dial()
		if d.Connect(cs, wiretest.CleanSession) || takesMethods(t, h, d, id) {
			t.Error("a clean session has something of the old one")
		}
		d.Subscribe(1, "$iothub/methods/POST/#")
		d.Disconnect()
		if d = dial(); d.Connect(cs) || takesMethods(t, h, d, id) {
			t.Error("a clean session has left something")
		}
	})
}

func TestSessionOutlivesTheHub(t *testing.T) {
	dir := t.TempDir()
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}))
	device, module := h.Device("d1"), h.Module("d1", "m1")
	d, m := wiretest.DialTLS(t, h), wiretest.DialTLS(t, h)
	d.Connect(device)
	d.Subscribe(1, "$iothub/methods/POST/#")
	m.Connect(module)
	m.Subscribe(1, "$iothub/methods/POST/#")
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	d.WantClosed()

	h = hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}))
	d, m = wiretest.DialTLS(t, h), wiretest.DialTLS(t, h)
	if !d.Connect(device) || !takesMethods(t, h, d, hub.ID{Device: "d1"}) {
		t.Error("the device's session is lost")
	}
	if !m.Connect(module) || !takesMethods(t, h, m, hub.ID{Device: "d1", Module: "m1"}) {
		t.Error("the module's session is lost")
	}
}

func TestSessionEndsWithTheIdentity(t *testing.T) {
	h := hubtest.New(t)
	for _, id := range []hub.ID{{Device: "d1"}, {Device: "d1", Module: "m1"}} {
		d := wiretest.DialTLS(t, h)
		cs := h.Device("d1")
		if id.Module != "" {
			cs = h.Module("d1", "m1")
		}
		d.Connect(cs)
		d.Subscribe(1, "$iothub/methods/POST/#")
		if err := h.DeleteIdentity(hub.ID{Device: "d1"}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
		d.WantClosed()
		cs = h.Device("d1")
		if id.Module != "" {
			cs = h.Module("d1", "m1")
		}
		if d = wiretest.DialTLS(t, h); d.Connect(cs) {
			t.Errorf("%v: a new identity has the session of an old one", id)
		}
	}
}

func TestSubscriptions(t *testing.T) {
	h := hubtest.New(t)
	device, module := h.Device("d1"), h.Module("d1", "m1")
	for _, tt := range []struct {
		name    string
		module  bool
		qos     byte
		filters []string
		granted []byte // nil: the connection is closed
	}{
		{"C subscribes to all in one packet", false, 0, []string{"$iothub/twin/res/#", "$iothub/methods/POST/#", "$iothub/twin/PATCH/properties/desired/#", "devices/d1/messages/devicebound/#"}, []byte{0, 0, 0, 0}},
		{"QoS 2 is granted as 1", false, 2, []string{"$iothub/twin/res/#"}, []byte{1}},
		{"embedded C writes a wildcard for the id", false, 1, []string{"devices/+/messages/devicebound/#"}, []byte{1}},
		{"Java's module asks for messages", true, 1, []string{"devices/d1/modules/m1/messages/devicebound/#"}, []byte{1}},
		{"module inputs", true, 1, []string{"devices/d1/modules/m1/inputs/#"}, []byte{1}},
		{"everything of a module", true, 1, []string{"devices/d1/modules/m1/#"}, []byte{1}},
		{"one method only", false, 1, []string{"$iothub/methods/POST/reboot/#"}, []byte{1}},
		{"five filters", false, 1, []string{"$iothub/1", "$iothub/2", "$iothub/3", "$iothub/4", "$iothub/5"}, []byte{1, 1, 1, 1, 1}},
		{"six filters", false, 1, []string{"$iothub/1", "$iothub/2", "$iothub/3", "$iothub/4", "$iothub/5", "$iothub/6"}, nil},
		{"another device", false, 1, []string{"devices/d2/messages/devicebound/#"}, nil},
		{"a device whose id begins alike", false, 1, []string{"devices/d10/messages/devicebound/#"}, nil},
		{"everything", false, 1, []string{"#"}, nil},
		{"a topic of another broker", false, 1, []string{"home/kitchen"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := wiretest.DialTLS(t, h)
			cs := device
			if tt.module {
				cs = module
			}
			d.Connect(cs, wiretest.CleanSession)
			if tt.granted == nil {
				d.Send(wiretest.SubscribePacket(1, tt.qos, tt.filters...))
				d.WantClosed()
				return
			}
			if diff := cmp.Diff(tt.granted, d.Subscribe(tt.qos, tt.filters...)); diff != "" {
				t.Errorf("granted (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSixthFilterInALaterPacket(t *testing.T) {
	h := hubtest.New(t)
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("d1"))
	for _, f := range []string{"$iothub/1", "$iothub/2", "$iothub/3", "$iothub/4", "$iothub/5", "$iothub/5"} {
		d.Subscribe(0, f) // the same filter again is no sixth
	}
	d.Send(wiretest.SubscribePacket(9, 0, "$iothub/6"))
	d.WantClosed()
}
