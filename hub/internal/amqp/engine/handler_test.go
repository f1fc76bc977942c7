package engine

import "github.com/iotdm/iotdm/hub/internal/amqp/wire"

// A handler does what a test wants; what it does not say is done simply.
type handler struct {
	open   func(*wire.Open) error
	attach func(*Link) error
}

func (h *handler) Open(o *wire.Open) error {
	if h.open == nil {
		return nil
	}
	return h.open(o)
}

func (h *handler) Attach(l *Link) error { return h.attach(l) }

type inlet struct {
	receive  func(*Delivery)
	detached func()
}

func (i *inlet) Receive(d *Delivery) { i.receive(d) }

func (i *inlet) Detached() {
	if i.detached != nil {
		i.detached()
	}
}

type outlet struct {
	ready    func()
	settled  func(any, wire.State) wire.State
	detached func()
}

func (o *outlet) Ready() {
	if o.ready != nil {
		o.ready()
	}
}

func (o *outlet) Settled(ref any, s wire.State) wire.State {
	if o.settled == nil {
		return nil
	}
	return o.settled(ref, s)
}

func (o *outlet) Detached() {
	if o.detached != nil {
		o.detached()
	}
}

// dataMessage encodes a message with one data section.
func dataMessage(text string) []byte {
	return wire.AppendMessage(nil, &wire.Message{Data: [][]byte{[]byte(text)}})
}
