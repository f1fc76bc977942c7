package mqttdevice

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// maxMessages is how many messages may wait for a slow handler. IoT Hub keeps 50 for a device.
const maxMessages = 64

// A CloudToDeviceMessage is a message from a service to a device. All but the payload is what the
// sender and the hub said about it, and may be absent.
type CloudToDeviceMessage struct {
	Payload         []byte
	ID              string
	CorrelationID   string
	UserID          string
	To              string // such as /devices/pump-7/messages/deviceBound
	ContentType     string
	ContentEncoding string
	Ack             string // the feedback the sender wants: none, positive, negative or full
	Expiry          time.Time

	// Properties are the application's own, and system properties that have no field here, with their
	// names in the topic. A property without a value is an empty one.
	Properties map[string]string
}

// A MessageHandler takes a cloud-to-device message. Once it returns nil, the client tells the hub,
// which then forgets the message. After an error or a panic the hub keeps it and sends it again when
// a minute has passed, or upon the next connection; MQTT has no way to refuse a message for good.
type MessageHandler func(ctx context.Context, m CloudToDeviceMessage) error

// HandleMessage sets the handler of cloud-to-device messages. It is called for one message at a time,
// in the order in which the hub sends them, on a goroutine of the client. A message may come more than
// once: when the connection breaks before the hub hears of it, or the handler takes longer than a
// minute. Close cancels ctx when it cannot wait any longer; the end of the connection does not.
//
// Set it before Connect. A client without handler does not ask for messages, and the hub keeps them;
// one that gets its handler later asks upon the next connection. Modules have no such messages. See the
// article "Understand cloud-to-device messaging from an IoT hub".
func (c *Client) HandleMessage(h MessageHandler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages.handler = h
}

// A messageQueue is what waits for the handler of messages. Client.mu guards it.
type messageQueue struct {
	handler MessageHandler
	waiting []receivedMessage
	running bool // handleMessages is on its way
}

// A receivedMessage is a message that the hub has not been told of.
type receivedMessage struct {
	CloudToDeviceMessage
	s   *session
	ack func() // tells the hub; paho may hold its caller up for writeTimeout
}

// next takes out the first message that is worth handling. Those of an earlier connection come again.
func (q *messageQueue) next() (m receivedMessage, ok bool) {
	for len(q.waiting) > 0 {
		m, q.waiting = q.waiting[0], q.waiting[1:]
		if !m.s.left && !m.s.isLost() {
			return m, true
		}
	}
	q.waiting = nil
	return m, false
}

// receiveMessage queues a message, or leaves it to the hub.
func (s *session) receiveMessage(properties string, m mqtt.Message) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	q := &c.messages
	if q.handler == nil || c.closed || s.left || len(q.waiting) >= maxMessages {
		c.log.Warn("cloud-to-device message left with the hub", logSize, len(m.Payload()))
		return
	}
	message := parseMessage(properties)
	message.Payload = m.Payload()
	q.waiting = append(q.waiting, receivedMessage{message, s, m.Ack})
	if !q.running {
		q.running = c.start(c.handleMessages)
	}
}

// handleMessages calls the handler until nothing waits. Only one runs at a time.
func (c *Client) handleMessages() {
	for {
		c.mu.Lock()
		h := c.messages.handler
		m, ok := c.messages.next()
		if !ok {
			c.messages.running = false
			c.mu.Unlock()
			return
		}
		c.handlers++
		c.mu.Unlock()
		if err := c.handleMessage(h, m.CloudToDeviceMessage); err != nil {
			c.log.Error("cloud-to-device message not handled", logMessage, m.ID, logError, err)
		} else {
			c.log.Info("cloud-to-device message", logMessage, m.ID, logSize, len(m.Payload))
			m.ack()
		}
		c.returned()
	}
}

func (c *Client) handleMessage(h MessageHandler, m CloudToDeviceMessage) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("the handler of messages panicked", logMessage, m.ID, logError, fmt.Sprint(p), logStack, string(debug.Stack()))
			err = errors.New("the handler panicked")
		}
	}()
	return h(c.work, m)
}

// parseMessage reads the properties of a message, as they stand in its topic. It takes what is
// malformed literally: a message that cannot be read would come again and again.
func parseMessage(properties string) CloudToDeviceMessage {
	bag := make(map[string]string)
	for pair := range strings.SplitSeq(properties, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if name = unescape(name); name != "" {
			bag[name] = unescape(value)
		}
	}
	var m CloudToDeviceMessage
	var expiry string
	for name, field := range map[string]*string{
		"$.mid":      &m.ID,
		"$.cid":      &m.CorrelationID,
		"$.uid":      &m.UserID,
		"$.to":       &m.To,
		"$.ct":       &m.ContentType,
		"$.ce":       &m.ContentEncoding,
		"$.exp":      &expiry,
		"iothub-ack": &m.Ack,
	} {
		*field = bag[name]
		delete(bag, name)
	}
	if t, err := time.Parse(time.RFC3339, expiry); err == nil {
		m.Expiry = t
	} else if expiry != "" {
		bag["$.exp"] = expiry
	}
	if len(bag) > 0 {
		m.Properties = bag
	}
	return m
}

// unescape undoes percent-encoding. A plus is a plus.
func unescape(s string) string {
	if text, err := url.PathUnescape(s); err == nil {
		return text
	}
	return s
}

// noStore is paho's memory of packets that are not acknowledged. A session ends with its connection, so
// that there is nothing to send again; and messages that are never acknowledged would pile up.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}
