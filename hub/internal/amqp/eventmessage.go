package amqp

import (
	"strconv"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// An eventEncoder makes messages of events, as the built-in endpoint delivers
// them: see "Read device-to-cloud messages from the built-in endpoint".
type eventEncoder struct {
	message    wire.Message
	properties wire.Properties
	data       [1][]byte
	buf        []byte
}

// encode returns the message of an event, which is valid until the next call.
// What the event lacks is left out: an annotation without a value breaks
// clients.
func (enc *eventEncoder) encode(e *hub.Event, metrics *partitionMetrics) []byte {
	m := &enc.message
	m.Annotations = append(m.Annotations[:0],
		wire.Entry{Key: wire.Symbol("x-opt-sequence-number"), Value: e.Sequence},
		wire.Entry{Key: wire.Symbol("x-opt-offset"), Value: strconv.FormatInt(e.Offset, 10)},
		wire.Entry{Key: wire.Symbol("x-opt-enqueued-time"), Value: e.Enqueued},
		wire.Entry{Key: wire.Symbol("iothub-enqueuedtime"), Value: e.Enqueued},
		wire.Entry{Key: wire.Symbol("iothub-message-source"), Value: string(e.Source)},
	)
	annotate := func(name wire.Symbol, value string) {
		if value != "" {
			m.Annotations = append(m.Annotations, wire.Entry{Key: name, Value: value})
		}
	}
	annotate("iothub-connection-device-id", e.From.Device)
	annotate("iothub-connection-module-id", e.From.Module)
	annotate("iothub-connection-auth-method", e.AuthMethod)
	annotate("iothub-connection-auth-generation-id", e.Generation)
	annotate("dt-dataschema", e.Model)
	p := &enc.properties
	*p = wire.Properties{}
	m.Properties = nil // there are readers for which a message that has any has a content type
	for _, s := range e.System {
		switch s.Name {
		case "message-id":
			p.MessageID = s.Value
		case "correlation-id":
			p.CorrelationID = s.Value
		case "user-id":
			p.UserID = []byte(s.Value)
		case "to":
			p.To = s.Value
		case "content-type":
			p.ContentType = s.Value
		case "content-encoding":
			p.ContentEncoding = s.Value
		default:
			annotate(wire.Symbol(s.Name), s.Value)
			continue
		}
		m.Properties = p
	}
	m.ApplicationProperties = m.ApplicationProperties[:0]
	for _, a := range e.Properties {
		entry := wire.Entry{Key: a.Name}
		if !a.Null {
			entry.Value = a.Value
		}
		m.ApplicationProperties = append(m.ApplicationProperties, entry)
	}
	m.DeliveryAnnotations = m.DeliveryAnnotations[:0]
	if metrics != nil {
		m.DeliveryAnnotations = append(m.DeliveryAnnotations,
			wire.Entry{Key: wire.Symbol("last_enqueued_sequence_number"), Value: metrics.partition.Last},
			wire.Entry{Key: wire.Symbol("last_enqueued_offset"), Value: strconv.FormatInt(metrics.partition.LastOffset, 10)},
			wire.Entry{Key: wire.Symbol("last_enqueued_time_utc"), Value: lastTime(metrics.partition)},
			wire.Entry{Key: wire.Symbol("runtime_info_retrieval_time_utc"), Value: metrics.when},
		)
	}
	enc.data[0] = e.Body
	m.Data = enc.data[:]
	enc.buf = wire.AppendMessage(enc.buf[:0], m)
	return enc.buf
}
