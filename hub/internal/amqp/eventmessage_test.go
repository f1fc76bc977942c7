package amqp

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

func benchEvent() hub.Event {
	return hub.Event{
		Partition: 1, Sequence: 123456, Offset: 123456789, Enqueued: time.UnixMilli(1764000000123),
		Source: hub.SourceTelemetry, From: hub.ID{Device: "device-17"}, Generation: "638000000000000000",
		AuthMethod: `{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}`,
		System:     []hub.Property{{Name: "message-id", Value: "6a1"}, {Name: "content-type", Value: "application/json"}, {Name: "content-encoding", Value: "utf-8"}},
		Properties: []hub.Property{{Name: "level", Value: "normal"}, {Name: "n", Value: "17"}},
		Body:       []byte(strings.Repeat("x", 1024)),
	}
}

// BenchmarkEventMessage measures what it costs to make a message of an event.
func BenchmarkEventMessage(b *testing.B) {
	e := benchEvent()
	var enc eventEncoder
	b.ReportAllocs()
	for b.Loop() {
		enc.encode(&e, nil)
	}
}

func TestEventMessage(t *testing.T) {
	full := benchEvent()
	full.From.Module, full.Model = "m1", "dtmi:com:example:Thermostat;1"
	full.System = append(full.System,
		hub.Property{Name: "correlation-id", Value: "c1"}, hub.Property{Name: "user-id", Value: "u1"},
		hub.Property{Name: "to", Value: "/x"}, hub.Property{Name: "dt-subject", Value: "component"})
	full.Properties = append(full.Properties, hub.Property{Name: "none", Null: true}, hub.Property{Name: "empty"})
	when := time.UnixMilli(1764000000999).UTC()
	enqueued := full.Enqueued.UTC()
	symbol := func(name string, value any) wire.Entry { return wire.Entry{Key: wire.Symbol(name), Value: value} }
	for _, tt := range []struct {
		name    string
		event   hub.Event
		metrics *partitionMetrics
		want    *wire.Message
	}{
		{"with everything", full, &partitionMetrics{hub.EventPartition{Last: 7, LastOffset: 800, LastTime: when}, when}, &wire.Message{
			DeliveryAnnotations: wire.Map{
				symbol("last_enqueued_sequence_number", int64(7)),
				symbol("last_enqueued_offset", "800"),
				symbol("last_enqueued_time_utc", when),
				symbol("runtime_info_retrieval_time_utc", when),
			},
			Annotations: wire.Map{
				symbol("x-opt-sequence-number", int64(123456)),
				symbol("x-opt-offset", "123456789"),
				symbol("x-opt-enqueued-time", enqueued),
				symbol("iothub-enqueuedtime", enqueued),
				symbol("iothub-message-source", "Telemetry"),
				symbol("iothub-connection-device-id", "device-17"),
				symbol("iothub-connection-module-id", "m1"),
				symbol("iothub-connection-auth-method", full.AuthMethod),
				symbol("iothub-connection-auth-generation-id", full.Generation),
				symbol("dt-dataschema", full.Model),
				symbol("dt-subject", "component"),
			},
			Properties: &wire.Properties{
				MessageID: "6a1", CorrelationID: "c1", UserID: []byte("u1"), To: "/x", ContentType: "application/json", ContentEncoding: "utf-8",
			},
			ApplicationProperties: wire.Map{{Key: "level", Value: "normal"}, {Key: "n", Value: "17"}, {Key: "none"}, {Key: "empty", Value: ""}},
			Data:                  [][]byte{full.Body},
		}},
		{"with nothing", hub.Event{Enqueued: enqueued, Source: hub.SourceTwinChange, From: hub.ID{Device: "d"}}, nil, &wire.Message{
			Annotations: wire.Map{
				symbol("x-opt-sequence-number", int64(0)),
				symbol("x-opt-offset", "0"),
				symbol("x-opt-enqueued-time", enqueued),
				symbol("iothub-enqueuedtime", enqueued),
				symbol("iothub-message-source", "twinChangeEvents"),
				symbol("iothub-connection-device-id", "d"),
			},
			Data: [][]byte{{}},
		}},
		{"of a device", hub.Event{Enqueued: enqueued, Source: hub.SourceTelemetry, From: hub.ID{Device: "d"}, Body: []byte("b")}, nil, &wire.Message{
			Annotations: wire.Map{
				symbol("x-opt-sequence-number", int64(0)),
				symbol("x-opt-offset", "0"),
				symbol("x-opt-enqueued-time", enqueued),
				symbol("iothub-enqueuedtime", enqueued),
				symbol("iothub-message-source", "Telemetry"),
				symbol("iothub-connection-device-id", "d"),
			},
			Data: [][]byte{[]byte("b")},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var enc eventEncoder
			other := benchEvent()
			enc.encode(&other, &partitionMetrics{}) // what was before leaves no trace
			got, err := wire.DecodeMessage(enc.encode(&tt.event, tt.metrics))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}
