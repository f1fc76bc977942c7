package hubamqp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/go-amqp"
)

// Ack says which feedback the sender of a message wants.
type Ack string

// The kinds of feedback.
const (
	AckNone     Ack = "none"
	AckPositive Ack = "positive" // when the device took the message
	AckNegative Ack = "negative" // when it refused it, or it expired
	AckFull     Ack = "full"     // in both cases
)

// A Message goes from a service to a device. See the article "Understand cloud-to-device messaging from an IoT hub".
type Message struct {
	Body            []byte // up to 64 KiB
	ContentType     string
	ContentEncoding string
	MessageID       string
	CorrelationID   string
	UserID          string
	Ack             Ack               // empty: none
	Expiry          time.Time         // when the hub may throw the message away; zero: the hub's default, one hour
	Properties      map[string]string // the application's own
}

// A sender is the link that messages go out on.
type sender struct {
	conn    *connection
	session *amqp.Session
	link    *amqp.Sender
}

// Send puts a message into the queue of a device or module, and returns when the hub has stored it. An [Error] is the
// hub's refusal. A message is sent once: after ErrConnectionLost, or when ctx ended too early, the device may get it or not.
func (c *Client) Send(ctx context.Context, to Target, m Message) error {
	ctx, cancel := c.while(ctx)
	defer cancel()
	err := c.send(ctx, to, m)
	c.log.Debug("message sent", keyDevice, to.String(), keyMessageID, m.MessageID, keyBytes, len(m.Body), keyErr, err)
	if err != nil {
		return fmt.Errorf("send message to %s: %w", to.noun(), err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, to Target, m Message) error {
	s, err := c.messageSender(ctx)
	if err != nil {
		return err
	}
	receipt, err := s.link.SendWithReceipt(ctx, m.encode(to), nil)
	if err != nil {
		return c.drop(s, wireError(ctx, err))
	}
	state, err := receipt.Wait(ctx)
	if err != nil {
		return c.drop(s, wireError(ctx, err))
	}
	switch state := state.(type) {
	case *amqp.StateAccepted:
		return nil
	case *amqp.StateRejected:
		if state.Error != nil {
			return newError(state.Error)
		}
		return &Error{Condition: condInternal, Message: "it rejected the message without a reason"}
	}
	return &Error{Condition: condInternal, Message: fmt.Sprintf("it neither accepted nor rejected the message (%T)", state)}
}

// messageSender returns the link for messages, a new one if there is none.
func (c *Client) messageSender(ctx context.Context) (*sender, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	s := c.sender
	c.mu.Unlock()
	if s != nil && s.conn == conn {
		return s, nil
	}
	session, err := conn.amqp.NewSession(ctx, nil)
	if err != nil {
		return nil, wireError(ctx, err)
	}
	link, err := session.NewSender(ctx, "/messages/devicebound", nil)
	if err != nil {
		conn.end(session)
		return nil, wireError(ctx, err)
	}
	s = &sender{conn, session, link}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sender = s // another one that was made meanwhile ends with the connection
	return s, nil
}

// drop forgets the sender, whose link may be broken, and returns err.
func (c *Client) drop(s *sender, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Condition == condTooLarge {
		return err // it was not sent
	}
	c.mu.Lock()
	if c.sender == s {
		c.sender = nil
	}
	c.mu.Unlock()
	s.conn.end(s.session)
	return err
}

// encode returns m as it travels.
func (m Message) encode(to Target) *amqp.Message {
	address := to.address()
	body := m.Body
	if body == nil {
		body = []byte{}
	}
	w := &amqp.Message{
		Data:       [][]byte{body},
		Properties: &amqp.MessageProperties{To: &address},
	}
	p := w.Properties
	if m.MessageID != "" {
		p.MessageID = m.MessageID
	}
	if m.CorrelationID != "" {
		p.CorrelationID = m.CorrelationID
	}
	if m.UserID != "" {
		p.UserID = []byte(m.UserID)
	}
	if m.ContentType != "" {
		p.ContentType = &m.ContentType
	}
	if m.ContentEncoding != "" {
		p.ContentEncoding = &m.ContentEncoding
	}
	if !m.Expiry.IsZero() {
		p.AbsoluteExpiryTime = &m.Expiry
	}
	if m.Ack != "" || len(m.Properties) > 0 {
		w.ApplicationProperties = make(map[string]any, len(m.Properties)+1)
	}
	for name, value := range m.Properties {
		w.ApplicationProperties[name] = value
	}
	if m.Ack != "" {
		w.ApplicationProperties["iothub-ack"] = string(m.Ack)
	}
	return w
}
