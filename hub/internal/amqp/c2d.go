package amqp

import (
	"bytes"
	"strings"
	"sync"
	"time"

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
	l.Inlet = newMessages(c)
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
	idle chan queued   // takes the message for a device of which none is being stored, if a worker is idle
	gone chan struct{} // closed when the link has ended

	mu     sync.Mutex          // guards what follows
	queues map[string][]queued // of devices of which a message is being stored: those behind it
}

// A queued is a message that waits to be stored.
type queued struct {
	delivery *engine.Delivery
	device   string
	message  hub.Message
}

// idleTime is how long a worker waits for more. The way through the store needs
// a large stack, which a new one has to grow.
const idleTime = 100 * time.Millisecond

func newMessages(c *conn) *messages {
	return &messages{conn: c, idle: make(chan queued), gone: make(chan struct{}), queues: make(map[string][]queued)}
}

// Detached implements engine.Inlet. What has begun goes on.
func (s *messages) Detached() { close(s.gone) }

// Receive implements engine.Inlet. A message is accepted once it is durable.
func (s *messages) Receive(d *engine.Delivery) {
	device, m, err := newC2D(d.Payload)
	if err != nil {
		d.Reject(s.conn.refusalOf(err))
		return
	}
	if !s.conn.work.begin() {
		return // the hub is closing, and what was not begun is not answered
	}
	q := queued{d, device, m}
	s.mu.Lock()
	behind, busy := s.queues[device]
	if busy {
		s.queues[device] = append(behind, q)
	} else {
		s.queues[device] = nil
	}
	s.mu.Unlock()
	if busy {
		return
	}
	select {
	case s.idle <- q:
	default:
		if !s.conn.door.running.Go(func() { s.work(q) }) {
			s.conn.work.end() // and there is none behind it
			s.next(device)
		}
	}
}

// work stores messages until there have been none for a while.
func (s *messages) work(q queued) {
	pause := time.NewTimer(idleTime)
	defer pause.Stop()
	for {
		for more := true; more; q, more = s.next(q.device) {
			s.store(q)
		}
		pause.Reset(idleTime)
		select {
		case q = <-s.idle:
		case <-pause.C:
			return
		case <-s.gone:
			return
		case <-s.conn.door.ctx.Done():
			return
		}
	}
}

func (s *messages) store(q queued) {
	defer s.conn.work.end()
	_, leave, err := s.conn.door.hub.Enter(s.conn.door.ctx)
	if err == nil {
		defer leave()
		err = s.conn.door.hub.SendMessage(q.device, q.message)
	}
	if err != nil {
		q.delivery.Reject(s.conn.refusalOf(err))
	} else {
		q.delivery.Accept()
	}
}

// next returns the message for a device behind the one that has been stored.
func (s *messages) next(device string) (q queued, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	behind := s.queues[device]
	if len(behind) == 0 {
		delete(s.queues, device)
		return queued{}, false
	}
	s.queues[device] = behind[1:]
	return behind[0], true
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
