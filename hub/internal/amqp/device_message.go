package amqp

import (
	"errors"
	"slices"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// messageOutlet sends cloud-to-device messages. The ref of a delivery is the
// token of the message's lock.
type messageOutlet struct{ silent }

// giveMessages sets up a link for cloud-to-device messages.
func (d *device) giveMessages(l *engine.Link) {
	l.Outlet = messageOutlet{silent{d, l}}
	l.MaxMessageSize = hub.MaxDeviceMessage + encodingRoom
}

// maxLost bounds the messages of which it is remembered that their locks have
// ended, so that a device which settles them too late is told.
const maxLost = 100

var errLockLost = &wire.Error{Condition: condLockLost, Description: "the message's lock has ended: it may have been sent again"}

// Ready implements engine.Outlet.
func (o messageOutlet) Ready() { o.d.conn.door.hub.Ready(o.d) }

// Settled implements engine.Outlet. A device that waits for the answer gets it
// once that is durable.
func (o messageOutlet) Settled(ref any, state wire.State) wire.State {
	token := ref.(string)
	if waits(o.l) {
		return o.d.settle(token, state)
	}
	o.d.do(func() { o.d.settle(token, state) })
	return nil
}

// waits reports whether the peer waits to be told that a delivery is settled.
func waits(l *engine.Link) bool { return l.RcvSettleMode != nil && *l.RcvSettleMode == wire.RcvSecond }

// settle ends the lock of a message as the device says, and returns what the
// device is told of that.
func (d *device) settle(token string, state wire.State) wire.State {
	h, id := d.conn.door.hub, d.Peer().ID.Device
	var err error
	switch s := state.(type) {
	case wire.Accepted:
		err = h.CompleteMessage(id, token)
	case *wire.Rejected:
		err = h.RejectMessage(id, token)
	case *wire.Modified:
		if s.UndeliverableHere {
			err = h.RejectMessage(id, token)
		} else {
			err = h.AbandonMessage(id, token)
		}
	default:
		err = h.AbandonMessage(id, token)
	}
	switch {
	case err == nil:
		return wire.Accepted{}
	case errors.Is(err, hub.ErrMessageLockLost):
		return &wire.Rejected{Error: errLockLost}
	case !errors.Is(err, hub.ErrDeviceNotFound):
		d.conn.door.log.Error("settling a message", words.LogID, id, words.LogReason, err)
	}
	return &wire.Rejected{Error: d.conn.refusalOf(err)}
}

// TakesMessages implements hub.Link.
func (d *device) TakesMessages() bool { return d.messageLink() != nil }

// messageLink returns the link that takes a message, the newest if there are
// several, or nil.
func (d *device) messageLink() *engine.Link {
	if d.Peer().ID.Module != "" {
		return nil
	}
	d.mu.Lock()
	ended, links := d.reason != nil, slices.Clone(d.messages)
	d.mu.Unlock()
	if ended {
		return nil
	}
	for _, l := range slices.Backward(links) {
		if l.CanSend() {
			return l
		}
	}
	return nil
}

// Deliver implements hub.Link.
func (d *device) Deliver(m *hub.ReceivedMessage) (taken, settled bool) {
	l := d.messageLink()
	if l == nil {
		return false, false
	}
	settled = l.SndSettleMode != nil && *l.SndSettleMode == wire.SndSettled
	taken = l.Send(encodeMessage(m, d.Peer().ID.Device), deliveryTag(m.LockToken), settled, m.LockToken)
	return taken, taken && settled
}

// Forget implements hub.Link.
func (d *device) Forget(lockToken string) {
	forgotten := lockToken
	d.mu.Lock()
	links := slices.Clone(d.messages)
	if slices.ContainsFunc(links, waits) {
		forgotten = ""
		d.lost = append(d.lost, lockToken)
		if len(d.lost) > maxLost {
			forgotten = d.lost[0]
			d.lost = slices.Delete(d.lost, 0, 1)
		}
	}
	d.mu.Unlock()
	if forgotten == "" {
		return
	}
	for _, l := range links {
		l.Unsettle(forgotten)
	}
}

// encodeMessage prints a message as a device gets it. The .NET SDK drops
// annotations that have not exactly these types.
func encodeMessage(m *hub.ReceivedMessage, device string) []byte {
	w := wire.Message{
		Annotations: wire.Map{
			{Key: wire.Symbol("iothub-enqueuedtime"), Value: m.Enqueued.UTC()},
			{Key: wire.Symbol("iothub-deliverycount"), Value: uint8(min(m.Deliveries, 255))},
			{Key: wire.Symbol("x-opt-sequence-number"), Value: m.Sequence},
			{Key: wire.Symbol("x-opt-lock-token"), Value: m.LockToken},
		},
		Properties: &wire.Properties{
			To:                 hub.MessageTo(device),
			ContentType:        m.ContentType,
			ContentEncoding:    m.ContentEncoding,
			AbsoluteExpiryTime: m.Expires,
		},
		Data: [][]byte{m.Body},
	}
	if m.MessageID != "" {
		w.Properties.MessageID = m.MessageID
	}
	if m.CorrelationID != "" {
		w.Properties.CorrelationID = m.CorrelationID
	}
	if m.UserID != "" {
		w.Properties.UserID = []byte(m.UserID)
	}
	if m.Ack != "" {
		w.ApplicationProperties = append(w.ApplicationProperties, wire.Entry{Key: "iothub-ack", Value: string(m.Ack)})
	}
	for _, p := range m.Properties {
		e := wire.Entry{Key: p.Name, Value: p.Value}
		if p.Null {
			e.Value = nil
		}
		w.ApplicationProperties = append(w.ApplicationProperties, e)
	}
	return wire.AppendMessage(nil, &w)
}
