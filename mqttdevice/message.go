package mqttdevice

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// longestID is a client id of the greatest length: 128 characters each for device and module.
var longestID = strings.Repeat("d", 128) + "/" + strings.Repeat("m", 128)

const (
	// maxMessage is what IoT Hub takes as one message: payload, system property values, and the names
	// and values of application properties. It ends the connection over a larger one.
	maxMessage = 256 << 10
	maxTopic   = 1<<16 - 1 // of MQTT
)

// JSONType and JSONEncoding are the content type and encoding of a message whose payload is JSON, by
// which hubs route and query it.
const (
	JSONType     = "application/json"
	JSONEncoding = "utf-8"
)

// A Message is telemetry: a device-to-cloud message. Everything is optional.
type Message struct {
	Payload         []byte
	ID              string // unique among the device's messages
	CorrelationID   string
	UserID          string
	ContentType     string // such as JSONType; routing by content needs it, and ContentEncoding
	ContentEncoding string // such as JSONEncoding
	Created         time.Time
	Output          string // which output of a module sends it
	Component       string // which component of a Plug and Play device sends it

	// Properties are the application's own, at most 64 KiB with the names encoded in the topic. A name
	// that begins with "$." is a system property that has no field here.
	Properties map[string]string
}

// Send sends telemetry at QoS 1 and returns once the hub has taken it. On [ErrConnectionLost] the hub
// may have it already. A message that is larger than 256 KiB, or has larger properties than a topic
// holds, is [ErrTooLarge]. See the article "Create and read IoT Hub messages" for the limits and the
// meaning of the properties.
func (c *Client) Send(ctx context.Context, m Message) error {
	id := c.clientID()
	topic, err := m.topic(id) // what is too large does not wait for a connection
	if err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	s, err := c.acquire(ctx)
	if err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	defer c.release()
	if s.id != id { // it was assigned to another meanwhile
		if topic, err = m.topic(s.id); err != nil {
			return fmt.Errorf("send message: %w", err)
		}
	}
	if err := s.publish(ctx, topic, 1, m.Payload); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// Validate returns an error if m is larger than any hub takes, or cannot be encoded. A message that it
// accepts can be sent by every device and module.
func (m Message) Validate() error {
	if _, err := m.topic(longestID); err != nil {
		return fmt.Errorf("message: %w", err)
	}
	return nil
}

// topic returns the topic for m, with its properties, and checks the limits.
func (m Message) topic(id string) (string, error) {
	var b strings.Builder
	b.WriteString("devices/" + strings.Replace(id, "/", "/modules/", 1) + "/messages/events/")
	size, sep := len(m.Payload), ""
	add := func(name, value string) {
		b.WriteString(sep + escape(name) + "=" + escape(value))
		sep = "&"
		size += len(value)
	}
	created := ""
	if !m.Created.IsZero() {
		created = m.Created.UTC().Format("2006-01-02T15:04:05.0000000Z")
	}
	for _, p := range [...]struct{ name, value string }{
		{"$.mid", m.ID},
		{"$.cid", m.CorrelationID},
		{"$.uid", m.UserID},
		{"$.ct", m.ContentType},
		{"$.ce", m.ContentEncoding},
		{"$.ctime", created},
		{"$.on", m.Output},
		{"$.sub", m.Component},
	} {
		if p.value != "" {
			add(p.name, p.value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Properties)) {
		if name == "" {
			return "", errors.New("a property has no name")
		}
		add(name, m.Properties[name])
		size += len(name)
	}
	if size > maxMessage {
		return "", fmt.Errorf("%w: %d bytes with properties, %d are allowed", ErrTooLarge, size, maxMessage)
	}
	if b.Len() > maxTopic {
		return "", fmt.Errorf("%w: properties of %d bytes when encoded, %d are allowed", ErrTooLarge, b.Len(), maxTopic)
	}
	return b.String(), nil
}
