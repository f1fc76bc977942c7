package mqtt_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func bytesOf(t *testing.T, p packets.ControlPacket) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestWhatClosesTheConnection sends what a device may not, and wants the
// connection closed and everybody else left alone.
func TestWhatClosesTheConnection(t *testing.T) {
	h := hubtest.New(t)
	cs := h.Device("d1")
	h.Device("d2")
	bystander := wiretest.DialTLS(t, h)
	bystander.Connect(h.Device("bystander"))
	publish := func(topic, payload string) []byte { return bytesOf(t, wiretest.PublishPacket(1, 1, topic, payload)) }
	// More than any identity has, none of which is refused for itself.
	subscribe := func(n int, kind byte) []byte {
		filter := append([]byte{0, 9}, "$iothub/a"...)
		if kind == 0x82 {
			filter = append(filter, 0)
		}
		body := append([]byte{0, 1}, bytes.Repeat(filter, n)...)
		return append(binary.AppendUvarint([]byte{kind}, uint64(len(body))), body...)
	}
	for _, tt := range []struct {
		name string
		sent []byte
	}{
		{"a second CONNECT", bytesOf(t, wiretest.ConnectPacket(t, cs))},
		{"QoS 2", bytesOf(t, wiretest.PublishPacket(1, 2, "devices/d1/messages/events/", "x"))},
		{"QoS 3", []byte{0x36, 4, 0, 1, 'a', 0}},
		{"QoS 1 with packet identifier 0", bytesOf(t, wiretest.PublishPacket(0, 1, "devices/d1/messages/events/", "x"))},
		{"a packet of the server", []byte{0x20, 2, 0, 0}},
		{"PUBREL", []byte{0x62, 2, 0, 1}},
		{"packet type 0", []byte{0x00, 0}},
		{"packet type 15", []byte{0xf0, 0}},
		{"SUBSCRIBE with wrong flags", []byte{0x80, 6, 0, 1, 0, 1, 'a', 0}},
		{"SUBSCRIBE without a filter", []byte{0x82, 2, 0, 1}},
		{"SUBSCRIBE with a filter cut short", []byte{0x82, 5, 0, 1, 0, 9, 'a'}},
		{"SUBSCRIBE with thousands of filters", subscribe(5000, 0x82)},
		{"UNSUBSCRIBE with thousands of filters", subscribe(5000, 0xa2)},
		{"PINGREQ with a body", []byte{0xc0, 1, 0}},
		{"PUBLISH with a topic cut short", []byte{0x30, 3, 0, 9, 'a'}},
		{"PUBLISH with a topic that is not UTF-8", []byte{0x30, 4, 0, 2, 0xff, 0xfe}},
		{"PUBLISH with a NUL in the topic", publish("devices/d1/messages/events/\x00", "")},
		{"a length of five bytes", []byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}},
		{"a packet that is too long", []byte{0x30, 0xff, 0xff, 0xff, 0x7f}},
		{"telemetry that is too large", publish("devices/d1/messages/events/", strings.Repeat("x", 256<<10+1))},
		{"telemetry that is too large by its properties", publish("devices/d1/messages/events/name=value", strings.Repeat("x", 256<<10-8))},
		{"telemetry of another device", publish("devices/d2/messages/events/", "x")},
		{"telemetry of a device whose id begins alike", publish("devices/d10/messages/events/", "x")},
		{"telemetry of the device's module", publish("devices/d1/modules/m1/messages/events/", "x")},
		{"a property bag that is not percent-encoded", publish("devices/d1/messages/events/a=%zz", "x")},
		{"a property bag that is not UTF-8", publish("devices/d1/messages/events/a=%ff", "x")},
		{"a topic that begins like telemetry", publish("devices/d1/messages/eventsx", "x")},
		{"a topic of another broker", publish("home/kitchen", "x")},
		{"a topic of the hub", publish("$iothub/methods/POST/m/?$rid=1", "")},
		{"a twin request without a $rid", publish("$iothub/twin/GET/?", "")},
		{"a twin request with an empty $rid", publish("$iothub/twin/GET/?$rid=", "")},
		{"a twin request with an endless $rid", publish("$iothub/twin/GET/?$rid="+strings.Repeat("1", 129), "")},
		{"a twin request for another resource", publish("$iothub/twin/GET/desired/?$rid=1", "")},
		{"a patch of desired properties", publish("$iothub/twin/PATCH/properties/desired/?$rid=1", "{}")},
		{"a patch with a bad version", publish("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=x", "{}")},
		{"a method's answer without a $rid", publish("$iothub/methods/res/200/", "{}")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := wiretest.DialTLS(t, h)
			d.Connect(cs)
			d.Write(tt.sent) // the hub may close before it has read all
			d.WantClosed()
			bystander.T = t
			bystander.Send(packets.NewControlPacket(packets.Pingreq))
			wiretest.Receive[*packets.PingrespPacket](bystander)
		})
	}
	wiretest.WantDisconnected(t, h.Node, hub.ID{Device: "d1"})
}

func TestFirstPacketMustBeConnect(t *testing.T) {
	h := hubtest.New(t)
	connect := bytesOf(t, wiretest.ConnectPacket(t, h.Device("d1")))
	for _, tt := range []struct {
		name string
		sent []byte
	}{
		{"PINGREQ", []byte{0xc0, 0}},
		{"PUBLISH", bytesOf(t, wiretest.PublishPacket(0, 0, "devices/d1/messages/events/", "x"))},
		{"an HTTP request", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"CONNECT with flags", append([]byte{0x11}, connect[1:]...)},
		{"CONNECT with more behind it", append([]byte{0x10, connect[1] + 1, connect[2]}, append(bytes.Clone(connect[3:]), 0)...)},
		{"CONNECT with the reserved flag", func() []byte { b := bytes.Clone(connect); b[10] |= 1; return b }()},
		{"CONNECT that is too long", []byte{0x10, 0xff, 0xff, 0x7f}},
		{"CONNECT cut short", []byte{0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 9}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := wiretest.DialTLS(t, h)
			d.Write(tt.sent)
			d.WantClosed()
		})
	}
}

func TestIDsWithEveryCharacter(t *testing.T) {
	h := hubtest.New(t)
	for _, tt := range []struct {
		id     hub.ID
		prefix string
	}{
		{hub.ID{Device: everyCharacter}, "devices/" + everyCharacter + "/"},
		{hub.ID{Device: everyCharacter, Module: everyCharacter}, "devices/" + everyCharacter + "/modules/" + everyCharacter + "/"},
		{hub.ID{Device: "+"}, "devices/+/"},
		{hub.ID{Device: "#"}, "devices/#/"},
		{hub.ID{Device: "100%"}, "devices/100%/"},
		{hub.ID{Device: "$iothub"}, "devices/$iothub/"},
	} {
		t.Run(tt.id.String(), func(t *testing.T) {
			cs := h.Device(tt.id.Device)
			if tt.id.Module != "" {
				cs = h.Module(tt.id.Device, tt.id.Module)
			}
			d := wiretest.DialTLS(t, h)
			d.Connect(cs)
			d.Subscribe(1, tt.prefix+"messages/devicebound/#", "$iothub/methods/POST/#", "$iothub/twin/PATCH/properties/desired/#")
			d.Publish(tt.prefix+"messages/events/%24.mid=1&a=b", "x")
			d.Publish("$iothub/twin/GET/?$rid=1", "")
			d.WantPublish("$iothub/twin/res/200/?$rid=1", `{"desired":{"$version":1},"reported":{"$version":1}}`)
			if _, err := h.PatchTwin(tt.id, hub.TwinChange{Desired: []byte(`{"a":1}`)}, hub.Match{}); err != nil {
				t.Fatal(err)
			}
			d.WantPublish("$iothub/twin/PATCH/properties/desired/?$version=2", `{"a":1,"$version":2}`)
			if !takesMethods(t, h, d, tt.id) {
				t.Error("no direct methods")
			}
		})
	}
}

// What a device did wrong is in the log: the topic or filter that it used.
func TestTheLogNamesWhatWasRefused(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	cs := h.Device("d1")
	for name, tt := range map[string]struct {
		packet packets.ControlPacket
		topic  string
	}{
		"a topic of another device": {wiretest.PublishPacket(1, 1, "devices/d2/messages/events/", "x"), "devices/d2/messages/events/"},
		"a topic that is none":      {wiretest.PublishPacket(1, 0, "telemetry/temperature", "x"), "telemetry/temperature"},
		"a foreign filter":          {wiretest.SubscribePacket(1, 0, "devices/d2/messages/devicebound/#"), "devices/d2/messages/devicebound/#"},
	} {
		t.Run(name, func(t *testing.T) {
			logged := h.Log.Expect("msg=disconnected id=d1")
			d := wiretest.DialTLS(t, h.Hub)
			d.Connect(cs)
			d.Send(tt.packet)
			d.WantClosed()
			<-logged
			_, line, _ := strings.Cut(h.Log.String(), "msg=disconnected id=d1")
			if !strings.Contains(line, tt.topic) {
				t.Errorf("the log does not name %s: %s", tt.topic, line)
			}
		})
	}
}
