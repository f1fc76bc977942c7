package amqp

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

const twinOfD1 = "/devices/d1/twin"

// twinLinks attaches both links of the twin.
func (p *devicePeer) twinLinks(change ...func(*wire.Attach)) (out, in *peerLink) {
	p.t.Helper()
	out = p.attach(wire.Sender, twinOfD1, change...)
	in = p.attach(wire.Receiver, twinOfD1, change...)
	p.flow(in, 100)
	return out, in
}

func twinRequestOf(operation, resource string, id any, body string, more ...wire.Entry) *wire.Message {
	m := &wire.Message{
		Annotations: wire.Map{{Key: wire.Symbol("operation"), Value: operation}},
		Properties:  &wire.Properties{CorrelationID: id},
		Data:        [][]byte{[]byte(body)},
	}
	if resource != "" {
		m.Annotations = append(m.Annotations, wire.Entry{Key: wire.Symbol("resource"), Value: resource})
	}
	m.Annotations = append(m.Annotations, more...)
	return m
}

// ask sends a request, which is accepted, and returns the answer.
func (p *devicePeer) ask(out, in *peerLink, m *wire.Message) received {
	p.t.Helper()
	p.accepted(p.transfer(out, m))
	return p.receive(in)
}

// patchDesired has a service change d1's desired properties.
func patchDesired(t testing.TB, h *testHub, patch string) {
	t.Helper()
	if _, err := h.PatchTwin(d1, hub.TwinChange{Desired: json.RawMessage(patch)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
}

func TestTwin(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	out, in := p.twinLinks(paired("twin:1"))
	want := func(got received, id any, body string, annotations wire.Map) {
		t.Helper()
		want := &wire.Message{Annotations: annotations, Properties: &wire.Properties{CorrelationID: id}, Data: [][]byte{[]byte(body)}}
		if diff := cmp.Diff(want, got.Message); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
	}
	status := func(n int32, more ...wire.Entry) wire.Map {
		return append(wire.Map{{Key: wire.Symbol("status"), Value: n}}, more...)
	}
	version := func(n int64) wire.Entry { return wire.Entry{Key: wire.Symbol("version"), Value: n} }

	want(p.ask(out, in, twinRequestOf("GET", "", "1", " ")), "1", `{"desired":{"$version":1},"reported":{"$version":1}}`, status(200))
	patchDesired(t, h, `{"a":1}`) // nobody has asked to be told
	want(p.ask(out, in, twinRequestOf("PATCH", "/properties/reported", wire.UUID{9}, `{"b":2}`)), wire.UUID{9}, "", status(204, version(2)))
	want(p.ask(out, in, twinRequestOf("PATCH", "/properties/reported", uint64(7), `{"b":3}`, wire.Entry{Key: wire.Symbol("version"), Value: int32(2)})), uint64(7), "", status(204, version(3)))
	want(p.ask(out, in, twinRequestOf("PUT", "/notifications/twin/properties/desired", "Put1", "")), "Put1", "", status(200))
	patchDesired(t, h, `{"a":null,"c":[1]}`)
	got := p.receive(in)
	if diff := cmp.Diff(&wire.Message{
		Annotations: wire.Map{{Key: wire.Symbol("resource"), Value: "/properties/desired"}},
		Data:        [][]byte{[]byte(`{"a":null,"c":[1],"$version":3}`)},
	}, got.Message); diff != "" {
		t.Errorf("notification (-want +got):\n%s", diff)
	}
	want(p.ask(out, in, twinRequestOf("DELETE", "/notifications/twin/properties/desired", []byte("5"), "")), []byte("5"), "", status(200))
	patchDesired(t, h, `{"d":1}`)
	want(p.ask(out, in, twinRequestOf("GET", "", "6", "")), "6", `{"desired":{"c":[1],"d":1,"$version":4},"reported":{"b":3,"$version":3}}`, status(200))
	p.none(in)
}

func TestTwinRequestsThatAreRefused(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	out, in := p.twinLinks()
	for name, tt := range map[string]struct {
		m    *wire.Message
		want int
	}{
		"a body that is no JSON":      {twinRequestOf("PATCH", "/properties/reported", "1", "{"), 400004},
		"no body":                     {twinRequestOf("PATCH", "/properties/reported", "1", ""), 400004},
		"an old version":              {twinRequestOf("PATCH", "/properties/reported", "1", "{}", wire.Entry{Key: wire.Symbol("version"), Value: int64(77)}), 412001},
		"a version that is no number": {twinRequestOf("PATCH", "/properties/reported", "1", "{}", wire.Entry{Key: wire.Symbol("version"), Value: true}), 400004},
		"desired properties":          {twinRequestOf("PATCH", "/properties/desired", "1", "{}"), 400004},
		"an unknown operation":        {twinRequestOf("POST", "", "1", "{}"), 400004},
		"no operation":                {&wire.Message{Properties: &wire.Properties{CorrelationID: "1"}}, 400004},
	} {
		t.Run(name, func(t *testing.T) {
			p.t = t
			got := p.ask(out, in, tt.m)
			var body struct {
				ErrorCode                         int
				TrackingID, Message, TimestampUTC string
			}
			if err := json.Unmarshal([]byte(got.body()), &body); err != nil || body.Message == "" || body.TrackingID == "" || body.TimestampUTC == "" {
				t.Errorf("body %s: %v", got.body(), err)
			}
			if status := got.Annotations.Get("status"); body.ErrorCode != tt.want || status != int32(tt.want/1000) || got.Properties.CorrelationID != "1" {
				t.Errorf("status %v, correlation id %v, error code %d, want %d", status, got.Properties.CorrelationID, body.ErrorCode, tt.want)
			}
		})
	}
	p.t = t
	p.rejected(p.transferRaw(out, []byte("no message")), condDecode)
	p.accepted(p.transfer(out, twinRequestOf("GET", "", nil, ""))) // whose answer nobody could tell from a notification
	if got := p.ask(out, in, twinRequestOf("GET", "", "2", "")); got.Properties.CorrelationID != "2" {
		t.Errorf("an answer to %v", got.Properties.CorrelationID)
	}
}

// Of a pair with one link nothing is answered.
func TestTwinNeedsBothLinks(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	out := p.attach(wire.Sender, twinOfD1, paired("1"))
	out2, other := p.twinLinks(paired("2"))
	p.accepted(p.transfer(out, twinRequestOf("GET", "", "1", "")))
	p.ask(out2, other, twinRequestOf("GET", "", "1", "")) // behind it
	in := p.attach(wire.Receiver, twinOfD1, paired("1"))
	p.flow(in, 10)
	if got := p.ask(out, in, twinRequestOf("GET", "", "2", "")); got.Properties.CorrelationID != "2" {
		t.Errorf("an answer to %v", got.Properties.CorrelationID)
	}
	p.none(other)
}

// A device may ask faster than the store answers; it gets all answers, in order.
func TestManyTwinRequests(t *testing.T) {
	const count = 500
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	out, in := p.twinLinks()
	p.flow(in, 2*count)
	settled := func(t *wire.Transfer) { *t.Settled = true }
	go func() {
		for i := range count {
			p.transfer(out, twinRequestOf("PATCH", "/properties/reported", uint64(i), `{"a":1}`), settled)
		}
	}()
	for i := range count {
		if got := p.receive(in); got.Properties.CorrelationID != uint64(i) || got.Annotations.Get("version") != int64(i+2) {
			t.Fatalf("answer %d: %+v %v", i, got.Properties, got.Annotations)
		}
	}
}
