package amqp

import (
	"bytes"
	"strings"
	"sync"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/words"
)

const (
	// c2dCredit is how many messages a link may have under way.
	c2dCredit = 100

	// maxC2D bounds a message as it is on the wire. What the service counts of it,
	// the body and the properties without their types, is bounded by the rules.
	maxC2D = hub.MaxDeviceMessage + 64<<10
)

// attachMessages attaches a link on which a service sends messages to devices.
func (c *conn) attachMessages(l *engine.Link) error {
	allowed := func() error {
		_, err := c.caller(hub.SendMessages, "/messages/devicebound")
		return err
	}
	if err := allowed(); err != nil {
		return err
	}
	l.Inlet = &messages{conn: c, queues: make(map[string][]queued)}
	l.Credit = c2dCredit
	l.MaxMessageSize = maxC2D
	c.guard(l, allowed)
	return nil
}

// messages takes cloud-to-device messages. Those for one device are stored one
// behind the other, in their order, and those for different devices side by side,
// so that they share the store's fsyncs: the credit of the link bounds it all.
type messages struct {
	conn *conn

	mu     sync.Mutex          // guards what follows
	queues map[string][]queued // of devices whose messages are being stored, without the one that is
}

// A queued is a message that waits for those before it.
type queued struct {
	delivery *engine.Delivery
	message  hub.Message
}

// Detached implements engine.Inlet. What has begun goes on.
func (*messages) Detached() {}

// Receive implements engine.Inlet. A message is accepted once it is durable.
func (s *messages) Receive(d *engine.Delivery) {
	device, m, err := newC2D(d.Payload)
	if err != nil {
		d.Reject(s.conn.refusalOf(err))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if waiting, ok := s.queues[device]; ok {
		s.queues[device] = append(waiting, queued{d, m})
		return
	}
	if !s.conn.work.begin() {
		return // the hub is closing, and what was not begun is not answered
	}
	s.queues[device] = nil
	if !s.conn.door.running.Go(func() { s.store(device, queued{d, m}) }) {
		delete(s.queues, device)
		s.conn.work.end()
	}
}

// store stores the messages of a device until none waits.
func (s *messages) store(device string, q queued) {
	defer s.conn.work.end()
	for {
		if err := s.conn.door.hub.SendMessage(device, q.message); err != nil {
			q.delivery.Reject(s.conn.refusalOf(err))
		} else {
			q.delivery.Accept()
		}
		s.mu.Lock()
		waiting := s.queues[device]
		if len(waiting) == 0 {
			delete(s.queues, device)
			s.mu.Unlock()
			return
		}
		q, s.queues[device] = waiting[0], waiting[1:]
		s.mu.Unlock()
	}
}

// newC2D reads a message and the device that it is for, in its property "to".
func newC2D(payload []byte) (device string, m hub.Message, err error) {
	r, err := readMessage(payload)
	if err != nil {
		return "", hub.Message{}, err
	}
	p := &r.properties
	to := parseAddress(p.To)
	switch {
	case to.node != nodeDeviceMessages:
		return "", hub.Message{}, refuse(condNotAllowed, `the property "to" is %q, and not /devices/{device}/messages/devicebound`, words.Clip(p.To))
	case to.id.Module != "":
		return "", hub.Message{}, refuse(condNotAllowed, "a module gets no messages but from IoT Edge")
	}
	m = hub.Message{
		UserID: string(p.UserID), ContentType: p.ContentType, ContentEncoding: p.ContentEncoding,
		Expires: p.AbsoluteExpiryTime, Properties: r.application, Body: bytes.Clone(r.body),
	}
	m.MessageID, _ = textOf(p.MessageID)
	m.CorrelationID, _ = textOf(p.CorrelationID)
	for _, s := range r.system {
		if s.Name == "iothub-ack" {
			m.Ack = hub.Ack(strings.ToLower(s.Value))
		}
	}
	return to.id.Device, m, nil
}
