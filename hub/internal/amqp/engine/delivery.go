package engine

import (
	"bytes"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

const (
	// maxAssembled bounds the bytes of all deliveries of a connection that are
	// not complete.
	maxAssembled = 8 << 20

	// maxTag is the specification's.
	maxTag = 32
)

// A Delivery is a message that the peer has sent. Tag and Payload are valid
// until Receive returns.
type Delivery struct {
	Link    *Link
	Tag     []byte
	Format  uint32
	Settled bool // by the sender: nothing has to be said of it
	Payload []byte

	id   uint32
	done bool // guarded by Conn.mu
}

// An assembly is what has come of a delivery in several frames.
type assembly struct {
	Delivery
	tooLong bool // and so what comes is not kept
}

// receive takes a transfer.
func (s *session) receive(t *wire.Transfer, payload []byte) error {
	d, l, e := s.transferred(t, payload)
	switch {
	case e != nil && l == nil:
		s.fail(e)
	case e != nil:
		l.fail(e)
	case d != nil:
		l.calls.Lock()
		defer l.calls.Unlock()
		if !l.told {
			l.Inlet.Receive(d)
		}
	}
	return nil
}

// transferred returns the delivery that is complete by a transfer, if one is
// that is for its link. An error without a link ends the session.
func (s *session) transferred(t *wire.Transfer, payload []byte) (*Delivery, *Link, *wire.Error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.ending {
		return nil, nil, nil
	}
	if s.incoming == 0 {
		return nil, nil, failure(condWindow, "more than %d transfers", window)
	}
	s.incoming--
	s.nextIncoming++
	l := s.links[t.Handle]
	if l == nil {
		return nil, nil, failure(condUnattached, "a transfer on handle %d", t.Handle)
	}
	var d *Delivery
	if l.state == open {
		var e *wire.Error
		if d, e = l.assembleLocked(t, payload); e != nil {
			return nil, l, e
		}
		l.topUpLocked()
	}
	if s.incoming <= window/2 {
		s.queueFlowLocked(nil)
	}
	return d, l, nil
}

// assembleLocked returns the delivery that is complete by a transfer, if one is.
func (l *Link) assembleLocked(t *wire.Transfer, payload []byte) (*Delivery, *wire.Error) {
	if l.Role != wire.Sender {
		return nil, failure(condNotAllowed, "a transfer on a link on which the hub sends")
	}
	a := l.assembly
	if a == nil {
		if e := l.beginLocked(t); e != nil {
			return nil, e
		}
		a = &assembly{Delivery: Delivery{Link: l, id: *t.DeliveryID, Tag: t.DeliveryTag}}
		if t.MessageFormat != nil {
			a.Format = *t.MessageFormat
		}
	} else if t.DeliveryID != nil && *t.DeliveryID != a.id {
		return nil, invalidField("a delivery that begins inside another")
	}
	if t.Settled != nil && *t.Settled {
		a.Settled = true
	}
	if t.Aborted {
		l.dropAssemblyLocked()
		return nil, nil
	}
	if l.MaxMessageSize > 0 && uint64(len(a.Payload))+uint64(len(payload)) > l.MaxMessageSize+l.Slack {
		l.session.conn.assembled -= len(a.Payload)
		a.tooLong, a.Payload = true, nil
	}
	if t.More {
		return nil, l.keepLocked(a, payload)
	}
	if l.assembly == nil {
		a.Payload = payload
	} else if !a.tooLong {
		kept := append(a.Payload, payload...)
		l.dropAssemblyLocked()
		a.Payload = kept
	}
	l.assembly = nil
	d := &a.Delivery
	if !d.Settled {
		l.unsettled++
	}
	if a.tooLong {
		d.settleLocked(&wire.Rejected{Error: failure(condMessageTooLong, "a message of more than %d bytes", l.MaxMessageSize)})
		return nil, nil
	}
	return d, nil
}

// beginLocked takes the first transfer of a delivery.
func (l *Link) beginLocked(t *wire.Transfer) *wire.Error {
	switch {
	case t.DeliveryID == nil:
		return invalidField("a delivery without a delivery-id")
	case len(t.DeliveryTag) > maxTag:
		return invalidField("a delivery-tag of %d bytes", len(t.DeliveryTag))
	case l.credit == 0:
		return failure(condTransferLimit, "a delivery without credit")
	}
	l.credit--
	l.count++
	return nil
}

// keepLocked keeps what has come of a delivery.
func (l *Link) keepLocked(a *assembly, payload []byte) *wire.Error {
	c := l.session.conn
	if l.assembly == nil {
		a.Tag = bytes.Clone(a.Tag)
		l.assembly = a
	}
	if a.tooLong {
		return nil
	}
	if c.assembled+len(payload) > maxAssembled {
		return failure(condLimit, "more than %d bytes of deliveries that are not complete", maxAssembled)
	}
	a.Payload = append(a.Payload, payload...)
	c.assembled += len(payload)
	return nil
}

func (l *Link) dropAssemblyLocked() {
	if l.assembly != nil {
		l.session.conn.assembled -= len(l.assembly.Payload)
		l.assembly = nil
	}
}

// topUpLocked grants credit again when a quarter of it has been used up and
// settled.
func (l *Link) topUpLocked() {
	underWay := l.unsettled
	if l.assembly != nil {
		underWay++
	}
	if used := l.Credit - min(l.Credit, l.credit+underWay); used > 0 && used >= l.Credit/4 {
		l.credit += used
		l.session.queueFlowLocked(l)
	}
}

// Settle says what became of the delivery, settled, from any goroutine. Calls
// behind the first do nothing. The dispositions of deliveries that are settled
// one behind the other, alike, go out as one range.
func (d *Delivery) Settle(s wire.State) {
	c := d.Link.session.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.Settled || d.done {
		return
	}
	d.done = true
	if d.Link.state == open && c.state == open {
		d.settleLocked(s)
		d.Link.topUpLocked()
		c.writeLocked()
	}
}

func (d *Delivery) settleLocked(s wire.State) {
	if d.Settled {
		return
	}
	d.done = true
	d.Link.unsettled--
	d.Link.session.conn.queueDispositionLocked(d.Link.session, wire.Receiver, d.id, d.id, s)
}

// Accept settles it as accepted.
func (d *Delivery) Accept() { d.Settle(wire.Accepted{}) }

// Reject settles it as rejected.
func (d *Delivery) Reject(e *wire.Error) { d.Settle(&wire.Rejected{Error: e}) }
