package mqtt_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
)

func TestDeviceReadsItsTwin(t *testing.T) {
	h := hubtest.New(t)
	wiretest.EachTransport(t, h, func(t *testing.T, dial func() *wiretest.Client) {
		d := dial()
		d.Connect(h.Device("d1"))
		// Python asks before it subscribes, and sends one space.
		d.Send(wiretest.PublishPacket(0, 0, "$iothub/twin/GET/?$rid=7b-1", " "))
		d.WantPublish("$iothub/twin/res/200/?$rid=7b-1", `{"desired":{"$version":1},"reported":{"$version":1}}`)
	})
}

func TestDevicePatchesReported(t *testing.T) {
	h := hubtest.New(t)
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("d1"))
	d.Subscribe(1, "$iothub/twin/res/#")

	d.Publish("$iothub/twin/PATCH/properties/reported/?$rid=1", `{"a":1,"b":{"c":"x"}}`)
	d.WantPublish("$iothub/twin/res/204/?$rid=1&$version=2", "")
	d.Send(wiretest.PublishPacket(0, 0, "$iothub/twin/PATCH/properties/reported/?$rid=2&$version=2", `{"a":null}`))
	d.WantPublish("$iothub/twin/res/204/?$rid=2&$version=3", "")

	// Without a $rid the patch is applied and not answered.
	d.Publish("$iothub/twin/PATCH/properties/reported/?", `{"silent":true}`)
	d.Publish("$iothub/twin/GET/?$rid=3", "")
	d.WantPublish("$iothub/twin/res/200/?$rid=3", `{"desired":{"$version":1},"reported":{"b":{"c":"x"},"silent":true,"$version":4}}`)
}

func TestTwinErrorsCarryABody(t *testing.T) {
	h := hubtest.New(t)
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("d1"))
	for _, tt := range []struct {
		name, query, patch, status string
		code                       int
	}{
		{"a body that is not JSON", "?$rid=1", `{"a"`, "400", 400004},
		{"a body that is not an object", "?$rid=1", `[]`, "400", 400004},
		{"a null in an array", "?$rid=1", `{"a":[null]}`, "400", 400004},
		{"another version", "?$rid=1&$version=9", `{"a":1}`, "412", 412001},
		{"too large", "?$rid=1", `{"a":"` + strings.Repeat("x", 4000) + `","b":"` + strings.Repeat("x", 4000) +
			`","c":"` + strings.Repeat("x", 4000) + `","d":"` + strings.Repeat("x", 4000) + `","e":"` + strings.Repeat("x", 4000) +
			`","f":"` + strings.Repeat("x", 4000) + `","g":"` + strings.Repeat("x", 4000) + `","h":"` + strings.Repeat("x", 4000) +
			`","i":"` + strings.Repeat("x", 4000) + `"}`, "403", 403100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d.T = t
			d.Send(wiretest.PublishPacket(0, 0, "$iothub/twin/PATCH/properties/reported/"+tt.query, tt.patch))
			p := wiretest.Receive[*packets.PublishPacket](d)
			if want := "$iothub/twin/res/" + tt.status + "/?$rid=1"; p.TopicName != want {
				t.Errorf("topic %q, want %q", p.TopicName, want)
			}
			var body struct {
				ErrorCode                         int
				TrackingID, Message, TimestampUTC string
			}
			if err := json.Unmarshal(p.Payload, &body); err != nil {
				t.Fatalf("body %s: %v", p.Payload, err)
			}
			if body.ErrorCode != tt.code || body.TrackingID == "" || body.Message == "" || body.TimestampUTC == "" {
				t.Errorf("body %s, want errorCode %d and no empty member", p.Payload, tt.code)
			}
		})
	}
}

func TestDesiredPropertiesReachTheDevice(t *testing.T) {
	h := hubtest.New(t)
	wiretest.EachTransport(t, h, func(t *testing.T, dial func() *wiretest.Client) {
		name := strings.ReplaceAll(t.Name(), "/", "-")
		d := dial()
		d.Connect(h.Device(name))
		d.Subscribe(0, "$iothub/twin/PATCH/properties/desired/#")
		id := hub.ID{Device: name}
		if _, err := h.PatchTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"a":1,"gone":null}`)}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
		d.WantPublish("$iothub/twin/PATCH/properties/desired/?$version=2", `{"a":1,"gone":null,"$version":2}`)
		if _, err := h.PatchTwin(id, hub.TwinChange{Tags: json.RawMessage(`{"room":"b"}`)}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.ReplaceTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"b":2}`)}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
		d.WantPublish("$iothub/twin/PATCH/properties/desired/?$version=3", `{"a":null,"b":2,"$version":3}`)
	})
}

type invocation struct {
	result hub.MethodResult
	err    error
}

func invoke(h *hubtest.Hub, id hub.ID, call hub.MethodCall) <-chan invocation {
	done := make(chan invocation, 1)
	if call.ResponseTimeout == 0 {
		call.ResponseTimeout = hub.DefaultResponseTimeout
	}
	go func() {
		r, err := h.InvokeMethod(context.Background(), id, call)
		done <- invocation{r, err}
	}()
	return done
}

func TestDirectMethods(t *testing.T) {
	h := hubtest.New(t)
	wiretest.EachTransport(t, h, func(t *testing.T, dial func() *wiretest.Client) {
		id := hub.ID{Device: strings.ReplaceAll(t.Name(), "/", "-")}
		d := dial()
		d.Connect(h.Device(id.Device))
		d.Subscribe(1, "$iothub/methods/POST/#")
		for _, tt := range []struct {
			name               string
			payload            json.RawMessage
			sent               string
			status, answer     string
			want               hub.MethodResult
			wantErr            error
			ridAsTheDeviceDoes func(string) string
		}{
			{name: "an object", payload: json.RawMessage(`{"delay":5}`), sent: `{"delay":5}`, status: "200", answer: `{"ok":true}`,
				want: hub.MethodResult{Status: 200, Payload: json.RawMessage(`{"ok":true}`)}},
			{name: "no payload either way", sent: "", status: "404", answer: "",
				want: hub.MethodResult{Status: 404, Payload: json.RawMessage("null")}},
			{name: "null either way", payload: json.RawMessage("null"), sent: "null", status: "200", answer: "null",
				want: hub.MethodResult{Status: 200, Payload: json.RawMessage("null")}},
			{name: "a negative status and another case", sent: "", status: "-1", answer: `"x"`, ridAsTheDeviceDoes: strings.ToUpper,
				want: hub.MethodResult{Status: -1, Payload: json.RawMessage(`"x"`)}},
			{name: "an answer that is not JSON", sent: "", status: "200", answer: "oops",
				want: hub.MethodResult{Status: 200, Payload: json.RawMessage("oops"), NotJSON: true}},
			{name: "an answer that is not UTF-8", sent: "", status: "200", answer: "\"\xff\"",
				want: hub.MethodResult{Status: 200, Payload: json.RawMessage("\"\xff\""), NotJSON: true}},
			{name: "a status that is no number", sent: "", status: "fine", answer: "", wantErr: hub.ErrBadDeviceResponse},
		} {
			t.Run(tt.name, func(t *testing.T) {
				d.T = t
				done := invoke(h, id, hub.MethodCall{Name: "reboot*now", Payload: tt.payload})
				p := wiretest.Receive[*packets.PublishPacket](d)
				rid := wiretest.RequestID(p)
				if want := "$iothub/methods/POST/reboot*now/?$rid=" + rid; p.TopicName != want || string(p.Payload) != tt.sent || p.Qos != 0 {
					t.Errorf("got QoS %d %s %s, want QoS 0 %s %s", p.Qos, p.TopicName, p.Payload, want, tt.sent)
				}
				if tt.ridAsTheDeviceDoes != nil {
					rid = tt.ridAsTheDeviceDoes(rid)
				}
				d.Publish("$iothub/methods/res/200/?$rid=unknown", "1")
				d.Publish("$iothub/methods/res/"+tt.status+"/?$rid="+rid, tt.answer)
				d.Publish("$iothub/methods/res/500/?$rid="+rid, `"the second answer"`)
				got := <-done
				if !errors.Is(got.err, tt.wantErr) {
					t.Errorf("error %v, want %v", got.err, tt.wantErr)
				}
				if diff := cmp.Diff(tt.want, got.result); diff != "" {
					t.Errorf("InvokeMethod (-want +got):\n%s", diff)
				}
			})
		}
	})
}

func TestMethodNeedsItsSubscription(t *testing.T) {
	h := hubtest.New(t)
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("d1"))
	id := hub.ID{Device: "d1"}
	if got := <-invoke(h, id, hub.MethodCall{Name: "m"}); !errors.Is(got.err, hub.ErrDeviceNotOnline) {
		t.Errorf("connected, not subscribed: %v, want %v", got.err, hub.ErrDeviceNotOnline)
	}
	d.Subscribe(1, "$iothub/methods/POST/only/#")
	if got := <-invoke(h, id, hub.MethodCall{Name: "m"}); !errors.Is(got.err, hub.ErrDeviceNotOnline) {
		t.Errorf("subscribed to another method: %v, want %v", got.err, hub.ErrDeviceNotOnline)
	}
	done := invoke(h, id, hub.MethodCall{Name: "m", ConnectTimeout: wiretest.Patience})
	d.Send(wiretest.SubscribePacket(9, 0, "$iothub/methods/POST/#"))
	wiretest.Receive[*packets.SubackPacket](d) // and only then the method
	p := wiretest.Receive[*packets.PublishPacket](d)
	d.Publish("$iothub/methods/res/200/?$rid="+wiretest.RequestID(p), "1")
	if got := <-done; got.err != nil {
		t.Error(got.err)
	}
	d.Send(&packets.UnsubscribePacket{FixedHeader: packets.FixedHeader{MessageType: packets.Unsubscribe, Qos: 1}, MessageID: 10, Topics: []string{"$iothub/methods/POST/#", "never/subscribed"}})
	wiretest.Receive[*packets.UnsubackPacket](d)
	if got := <-invoke(h, id, hub.MethodCall{Name: "m"}); !errors.Is(got.err, hub.ErrDeviceNotOnline) {
		t.Errorf("after UNSUBSCRIBE: %v, want %v", got.err, hub.ErrDeviceNotOnline)
	}
}

func TestMethodFailsAtOnceWhenTheDeviceGoes(t *testing.T) {
	h := hubtest.New(t)
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("d1"))
	d.Subscribe(1, "$iothub/methods/POST/#")
	done := invoke(h, hub.ID{Device: "d1"}, hub.MethodCall{Name: "m"})
	wiretest.Receive[*packets.PublishPacket](d)
	d.Close()
	select {
	case got := <-done:
		if !errors.Is(got.err, hub.ErrDeviceNotOnline) {
			t.Errorf("%v, want %v", got.err, hub.ErrDeviceNotOnline)
		}
	case <-time.After(wiretest.Patience):
		t.Error("the call is still waiting")
	}
}

func TestPing(t *testing.T) {
	h := hubtest.New(t)
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("d1"))
	d.Send(packets.NewControlPacket(packets.Pingreq))
	wiretest.Receive[*packets.PingrespPacket](d)
}
