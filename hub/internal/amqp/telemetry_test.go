package amqp

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// telemetryOf returns the messages of a device and its modules.
func telemetryOf(t testing.TB, h *testHub, device string) []hub.Event {
	t.Helper()
	var list []hub.Event
	for e, err := range h.Events(t.Context(), hub.EventQuery{Device: device, Sources: []hub.EventSource{hub.SourceTelemetry}}) {
		if err != nil {
			t.Fatal(err)
		}
		e.Body = slices.Clone(e.Body)
		list = append(list, e)
	}
	return list
}

func TestTelemetry(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	m1 := hub.ID{Device: "d1", Module: "m1"}
	h.create(m1)
	p := h.dialAs(d1, m1)
	l := p.attach(wire.Sender, "/devices/d1/messages/events", func(a *wire.Attach) {
		a.Properties = wire.Fields{{Key: wire.Symbol("com.microsoft:model-id"), Value: "dtmi:x;1"}}
	})
	at := time.Date(2026, 3, 14, 9, 0, 0, 5_000_000, time.UTC)
	p.accepted(p.transfer(l, &wire.Message{
		Annotations: wire.Map{{Key: wire.Symbol("dt-subject"), Value: "thermostat1"}, {Key: wire.Symbol("iothub-interface-id"), Value: "urn:x"}, {Key: wire.Symbol("x-opt-any"), Value: "y"}},
		Properties: &wire.Properties{
			MessageID: "m", CorrelationID: wire.UUID{1, 2, 3}, UserID: []byte("u"), To: "/devices/d1/messages/events",
			ContentType: "application/json", ContentEncoding: "utf-8", CreationTime: at, AbsoluteExpiryTime: at,
		},
		ApplicationProperties: wire.Map{
			{Key: "a", Value: "b"}, {Key: "n", Value: int32(5)}, {Key: "none", Value: nil}, {Key: "iothub-connection-device-id", Value: "spoofed"},
			{Key: "iothub-message-schema", Value: "s"}, {Key: "iothub-operation", Value: "o"},
		},
		Data: [][]byte{[]byte(`{"t":`), []byte(`1}`)},
	}))
	m := p.attach(wire.Sender, "/devices/d1/modules/m1/messages/events")
	p.accepted(p.transfer(m, &wire.Message{ApplicationProperties: wire.Map{{Key: "iothub-outputname", Value: "out1"}}, Data: [][]byte{[]byte("x")}}))
	want := []hub.Event{
		{
			Source: hub.SourceTelemetry, From: d1, Model: "dtmi:x;1",
			System: []hub.Property{
				{Name: "message-id", Value: "m"}, {Name: "correlation-id", Value: "01020300-0000-0000-0000-000000000000"}, {Name: "user-id", Value: "u"},
				{Name: "to", Value: "/devices/d1/messages/events"}, {Name: "content-type", Value: "application/json"}, {Name: "content-encoding", Value: "utf-8"},
				{Name: "iothub-message-schema", Value: "s"}, {Name: "iothub-operation", Value: "o"},
				{Name: "iothub-creation-time-utc", Value: "2026-03-14T09:00:00.0050000Z"},
				{Name: "dt-subject", Value: "thermostat1"}, {Name: "iothub-interface-id", Value: "urn:x"},
			},
			Properties: []hub.Property{{Name: "a", Value: "b"}, {Name: "n", Value: "5"}, {Name: "none", Null: true}},
			Body:       []byte(`{"t":1}`),
		},
		{
			Source: hub.SourceTelemetry, From: m1,
			System: []hub.Property{{Name: "iothub-outputname", Value: "out1"}},
			Body:   []byte("x"),
		},
	}
	got := telemetryOf(t, h, "d1")
	for _, e := range got {
		if e.AuthMethod == "" || e.Generation == "" {
			t.Errorf("the event says %q and %q of who sent it", e.AuthMethod, e.Generation)
		}
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(hub.Event{}, "Partition", "Sequence", "Offset", "Enqueued", "AuthMethod", "Generation")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// A device may say on a later link which model it has.
func TestModelOfALaterLink(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	p.attach(wire.Receiver, messagesOfD1)
	l := p.attach(wire.Sender, eventsOf(d1), func(a *wire.Attach) {
		a.Properties = wire.Fields{{Key: wire.Symbol("com.microsoft:model-id"), Value: "dtmi:x;1"}}
	})
	p.accepted(p.transfer(l, &wire.Message{Data: [][]byte{[]byte("x")}}))
	if got := telemetryOf(t, h, "d1")[0].Model; got != "dtmi:x;1" {
		t.Errorf("the event has the model %q", got)
	}
	twin, err := h.Twin(d1)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ ModelID string }
	if text, err := json.Marshal(twin); err != nil || json.Unmarshal(text, &got) != nil || got.ModelID != "dtmi:x;1" {
		t.Errorf("the twin has the model %q: %s, %v", got.ModelID, text, err)
	}
}

func batch(change *wire.Transfer) { f := uint32(formatBatch); change.MessageFormat = &f }

func TestTelemetryInBatches(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	l := p.attach(wire.Sender, "/devices/d1/messages/events")
	one := func(body string) []byte {
		return wire.AppendMessage(nil, &wire.Message{Properties: &wire.Properties{MessageID: body}, Data: [][]byte{[]byte(body)}})
	}
	p.accepted(p.transfer(l, &wire.Message{Data: [][]byte{one("1"), one("2"), one("3")}}, batch))
	p.rejected(p.transfer(l, &wire.Message{Data: [][]byte{one("4"), []byte("no message")}}, batch), condDecode)
	p.rejected(p.transferRaw(l, wire.AppendMessage(nil, &wire.Message{HasValue: true, Value: "x"}), batch), condArgument)
	var got []string
	for _, e := range telemetryOf(t, h, "d1") {
		got = append(got, string(e.Body)+e.System[0].Value)
	}
	if diff := cmp.Diff([]string{"11", "22", "33"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// The SDK for C fills a batch with as many messages as the link's largest message
// has room for, less 1024 bytes, and does not count the sections around them.
func TestTelemetryInBatchesThatAreFull(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	l := p.attach(wire.Sender, eventsOf(d1))
	for _, body := range []string{"", "1", `{"temperature":21.5}`} {
		one := wire.AppendMessage(nil, &wire.Message{Data: [][]byte{[]byte(body)}})
		full := &wire.Message{Data: slices.Repeat([][]byte{one}, (int(*l.answer.MaxMessageSize)-1024)/len(one))}
		p.accepted(p.transfer(l, full, batch))
	}
	p.rejected(p.transferRaw(l, make([]byte, maxTelemetry+batchSlack+1), batch), condTooLarge)
	p.rejected(p.transfer(l, &wire.Message{Data: [][]byte{make([]byte, hub.MaxMessageSize+1)}}), condTooLarge)
}

func TestTelemetryThatIsRefused(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	l := p.attach(wire.Sender, "/devices/d1/messages/events")
	largest := &wire.Message{Data: [][]byte{bytes.Repeat([]byte("x"), hub.MaxMessageSize)}}
	p.accepted(p.transfer(l, largest))
	largest.Data = append(largest.Data, []byte("x"))
	p.rejected(p.transfer(l, largest), condTooLarge)
	largest.Data = append(largest.Data, largest.Data[0])
	p.rejected(p.transfer(l, largest), condTooLarge)
	p.rejected(p.transferRaw(l, []byte("no message")), condDecode)
	p.accepted(p.transfer(l, &wire.Message{Data: [][]byte{[]byte("x")}})) // the link lives on
	if got := len(telemetryOf(t, h, "d1")); got != 2 {
		t.Errorf("%d messages are stored, want 2", got)
	}
}

// A device may have many messages under way, and each is accepted.
func TestTelemetryInARow(t *testing.T) {
	const count = 5_000
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	l := p.attach(wire.Sender, "/devices/d1/messages/events")
	before := p.delivery
	limit := before + telemetryCredit
	for i := range count {
		for p.delivery >= limit {
			f, _ := await(p, func(f *wire.Flow) bool { return f.Handle != nil && *f.Handle == l.remote })
			limit = before + *f.DeliveryCount + *f.LinkCredit
		}
		p.transfer(l, &wire.Message{Data: [][]byte{{byte(i)}}})
	}
	for id := range uint32(count) {
		p.accepted(before + id)
	}
	if got := len(telemetryOf(t, h, "d1")); got != count {
		t.Errorf("%d messages are stored, want %d", got, count)
	}
}
