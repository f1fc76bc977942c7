package outbox

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
)

// header is all of a message but its payload, which is not worth escaping.
type header struct {
	ID              string            `json:"id,omitempty"`
	CorrelationID   string            `json:"correlationId,omitempty"`
	UserID          string            `json:"userId,omitempty"`
	ContentType     string            `json:"contentType,omitempty"`
	ContentEncoding string            `json:"contentEncoding,omitempty"`
	Created         time.Time         `json:"created,omitzero"`
	Output          string            `json:"output,omitempty"`
	Component       string            `json:"component,omitempty"`
	Properties      map[string]string `json:"properties,omitempty"`
}

func (h header) message(payload []byte) mqttdevice.Message {
	return mqttdevice.Message{
		Payload: payload, ID: h.ID, CorrelationID: h.CorrelationID, UserID: h.UserID,
		ContentType: h.ContentType, ContentEncoding: h.ContentEncoding, Created: h.Created,
		Output: h.Output, Component: h.Component, Properties: h.Properties,
	}
}

func headerOf(m mqttdevice.Message) header {
	return header{
		ID: m.ID, CorrelationID: m.CorrelationID, UserID: m.UserID,
		ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, Created: m.Created.UTC(),
		Output: m.Output, Component: m.Component, Properties: m.Properties,
	}
}

// encodeMessage returns the size of the header as a uint32, the header as
// JSON, and the payload.
func encodeMessage(m mqttdevice.Message) ([]byte, error) {
	h, err := json.Marshal(headerOf(m))
	if err != nil {
		return nil, fmt.Errorf("message: %w", err)
	}
	data := make([]byte, 4, 4+len(h)+len(m.Payload))
	binary.LittleEndian.PutUint32(data, uint32(len(h)))
	return append(append(data, h...), m.Payload...), nil
}

func decodeMessage(data []byte) (mqttdevice.Message, error) {
	if len(data) < 4 {
		return mqttdevice.Message{}, errDamaged
	}
	n := binary.LittleEndian.Uint32(data)
	data = data[4:]
	if uint64(n) > uint64(len(data)) {
		return mqttdevice.Message{}, errDamaged
	}
	var h header
	if err := json.Unmarshal(data[:n], &h); err != nil {
		return mqttdevice.Message{}, errDamaged
	}
	return h.message(data[n:]), nil
}
