package hubamqp

import (
	"fmt"
	"time"

	"github.com/Azure/go-amqp"
)

// An Event is a message of a device as the hub's endpoint for events has it, or what the hub says itself about one.
type Event struct {
	Partition string
	Offset    string // where it is in the partition; EventQuery.Offsets takes it
	Sequence  int64  // its number in the partition
	Enqueued  time.Time

	DeviceID string // whose it is; the service's own word, not the device's
	ModuleID string
	Source   string // such as Telemetry or twinChangeEvents

	MessageID       string
	CorrelationID   string
	UserID          string
	To              string
	ContentType     string
	ContentEncoding string
	Properties      map[string]any // the application's own: text, as IoT Hub's devices send it
	Annotations     map[string]any // all that the hub says about the event, with the above
	Body            []byte
}

// newEvent reads a message that came from a partition.
func newEvent(partition string, m *amqp.Message) Event {
	e := Event{Partition: partition, Properties: m.ApplicationProperties, Body: join(m.Data)}
	if p := m.Properties; p != nil {
		e.MessageID, e.CorrelationID, e.UserID = text(p.MessageID), text(p.CorrelationID), string(p.UserID)
		e.To, e.ContentType, e.ContentEncoding = deref(p.To), deref(p.ContentType), deref(p.ContentEncoding)
	}
	if m.Data == nil {
		switch v := m.Value.(type) {
		case []byte:
			e.Body = v
		case string:
			e.Body = []byte(v)
		}
	}
	e.Annotations = make(map[string]any, len(m.Annotations))
	for name, value := range m.Annotations {
		e.Annotations[text(name)] = value
	}
	e.Offset = text(e.Annotations["x-opt-offset"])
	e.Sequence = integer(e.Annotations["x-opt-sequence-number"])
	e.Enqueued, _ = e.Annotations["x-opt-enqueued-time"].(time.Time)
	e.DeviceID = text(e.Annotations["iothub-connection-device-id"])
	e.ModuleID = text(e.Annotations["iothub-connection-module-id"])
	e.Source = text(e.Annotations["iothub-message-source"])
	return e
}

// text is a value of a type that AMQP has for ids and names.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return string(v)
	}
	return fmt.Sprint(v)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// join is a body in one piece, as which it nearly always comes.
func join(data [][]byte) []byte {
	if len(data) == 1 {
		return data[0]
	}
	var all []byte
	for _, d := range data {
		all = append(all, d...)
	}
	return all
}
