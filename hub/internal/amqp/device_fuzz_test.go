package amqp

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// deviceMessages are what real devices send.
func deviceMessages() [][]byte {
	var list [][]byte
	for _, m := range []*wire.Message{
		twinRequestOf("GET", "", "1", " "),
		twinRequestOf("PATCH", "/properties/reported", wire.UUID{1}, `{"a":1}`, wire.Entry{Key: wire.Symbol("version"), Value: int64(1)}),
		{Annotations: wire.Map{{Key: "operation", Value: "PUT"}, {Key: "resource", Value: "/notifications/twin/properties/desired"}}, Properties: &wire.Properties{CorrelationID: []byte("2")}},
		methodReply(received{}, wire.UUID{2}, int32(200), `{}`),
		methodReply(received{}, "00000000-0000-0000-0000-000000000000", "200", ``),
		{ApplicationProperties: wire.Map{{Key: "a", Value: nil}, {Key: "iothub-outputname", Value: "o"}}, Data: [][]byte{[]byte("x"), nil}},
		{HasValue: true, Value: wire.Map{{Key: "a", Value: wire.List{true, 1.5}}}},
	} {
		list = append(list, wire.AppendMessage(nil, m))
	}
	return list
}

// What is read of a message keeps nothing of its bytes, which are used again; a
// correlation id comes back as it came.
func FuzzDeviceRequests(f *testing.F) {
	for _, m := range deviceMessages() {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		again := bytes.Clone(payload)
		r, err := readTwinRequest(payload)
		id, a, methodErr := readMethodAnswer(payload)
		clear(payload)
		if r2, err2 := readTwinRequest(again); err == nil {
			if diff := cmp.Diff(r2, r, cmp.AllowUnexported(twinRequest{})); diff != "" || err2 != nil {
				t.Errorf("twin request (-want +got):\n%s%v", diff, err2)
			}
			echoed, err := wire.DecodeMessage(wire.AppendMessage(nil, &wire.Message{Properties: &wire.Properties{CorrelationID: r.correlation}}))
			if err != nil {
				t.Fatal(err)
			}
			var got any
			if echoed.Properties != nil {
				got = echoed.Properties.CorrelationID
			}
			if diff := cmp.Diff(r.correlation, got); diff != "" {
				t.Errorf("correlation id (-want +got):\n%s", diff)
			}
		}
		if id2, a2, err2 := readMethodAnswer(again); methodErr == nil && (err2 != nil || id2 != id || a2.Status != a.Status || !bytes.Equal(a2.Payload, a.Payload)) {
			t.Errorf("answer %v %+v, then %v %+v", id, a, id2, a2)
		}
	})
}

// A message is the same telemetry by itself and in a batch.
func FuzzTelemetry(f *testing.F) {
	for _, m := range deviceMessages() {
		f.Add(m, false)
		f.Add(wire.AppendMessage(nil, &wire.Message{Data: [][]byte{m, m}}), true)
	}
	f.Fuzz(func(t *testing.T, payload []byte, isBatch bool) {
		if isBatch {
			list, err := readTelemetry(formatBatch, payload)
			if err == nil && len(list) == 0 {
				t.Error("a batch of nothing")
			}
			return
		}
		one, err := readTelemetry(0, payload)
		two, batchErr := readTelemetry(formatBatch, wire.AppendMessage(nil, &wire.Message{Data: [][]byte{payload, payload}}))
		if (err == nil) != (batchErr == nil) {
			t.Fatalf("by itself: %v; in a batch: %v", err, batchErr)
		}
		if err == nil {
			if diff := cmp.Diff(slices.Concat(one, one), two); diff != "" {
				t.Errorf("in a batch (-want +got):\n%s", diff)
			}
		}
	})
}

// Whatever a device sends on its links is settled, and its connection lives on.
func FuzzDeviceLinks(f *testing.F) {
	for _, m := range deviceMessages() {
		for link := range byte(3) {
			f.Add(link, false, m)
		}
		f.Add(byte(2), true, wire.AppendMessage(nil, &wire.Message{Data: [][]byte{m, m}}))
	}
	h := newTestHub(f)
	h.create(d1)
	p := h.dial()
	p.putToken(h.token(d1, 24*time.Hour))
	twin, twinIn := p.twinLinks()
	methods, _ := p.methodLinks()
	links := []*peerLink{twin, methods, p.attach(wire.Sender, eventsOf(d1))}
	p.flow(twinIn, 1<<30)
	f.Fuzz(func(t *testing.T, link byte, inBatch bool, payload []byte) {
		p.t, h.t = t, t
		if len(payload) > hub.MaxMessageSize {
			return
		}
		var change []func(*wire.Transfer)
		if inBatch {
			change = append(change, batch)
		}
		p.outcome(p.transferRaw(links[int(link)%len(links)], payload, change...))
		p.sync()
		p.seen = nil // answers
	})
}
