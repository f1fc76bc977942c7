package engine

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// receiving returns a handler whose links take n deliveries of at most 100
// bytes, and keep what they got.
func receiving(n uint32, got *[]*Delivery) *handler {
	return &handler{attach: func(l *Link) error {
		l.Credit = n
		l.MaxMessageSize = 100
		l.Inlet = &inlet{receive: func(d *Delivery) {
			d.Payload = slices.Clone(d.Payload)
			*got = append(*got, d)
		}}
		return nil
	}}
}

func payloads(ds []*Delivery) (texts []string) {
	for _, d := range ds {
		texts = append(texts, string(d.Payload))
	}
	return texts
}

func TestReceive(t *testing.T) {
	var got []*Delivery
	inBubble(t, receiving(100, &got), func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		p.send(1, &wire.Transfer{DeliveryID: ptr(uint32(5)), DeliveryTag: []byte("tag"), MessageFormat: ptr(uint32(0x80013700)), Settled: ptr(true)}, 'x')
		p.wantQuiet()
		d := got[0]
		want := Delivery{Link: d.Link, Tag: []byte("tag"), Format: 0x80013700, Settled: true, Payload: []byte("x"), id: 5}
		if diff := cmp.Diff(want, *d, cmp.AllowUnexported(Delivery{}), cmp.Comparer(func(a, b *Link) bool { return a == b })); diff != "" {
			p.Errorf("(-want +got):\n%s", diff)
		}
		d.Accept()
		p.wantQuiet() // it came settled
	})
}

func TestReceiveInFrames(t *testing.T) {
	var got []*Delivery
	inBubble(t, receiving(100, &got), func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		p.attachSender(1, 1)
		p.transfer(1, 0, 0, true, "one ")
		p.transfer(1, 1, 1, true, "another ")
		p.transfer(1, 0, 0, true, "after ")
		p.send(1, &wire.Transfer{Handle: 1, More: true}, []byte("of ")...)
		p.send(1, &wire.Transfer{Handle: 1, Settled: ptr(true)}, []byte("the second")...)
		p.send(1, &wire.Transfer{Handle: 0}, []byte("the other")...)
		p.transfer(1, 0, 2, false, "whole")
		p.wantQuiet()
		if diff := cmp.Diff([]string{"another of the second", "one after the other", "whole"}, payloads(got)); diff != "" {
			p.Errorf("(-want +got):\n%s", diff)
		}
		if !got[0].Settled || got[1].Settled || string(got[1].Tag) != "\x00" {
			p.Errorf("got %v", got)
		}
		if p.hub.assembled != 0 {
			p.Errorf("%d bytes are kept", p.hub.assembled)
		}
	})
}

func TestAbortedDelivery(t *testing.T) {
	var got []*Delivery
	inBubble(t, receiving(2, &got), func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		p.transfer(1, 0, 0, true, "never ")
		p.send(1, &wire.Transfer{Aborted: true})
		p.want(1, &wire.Flow{NextIncomingID: ptr(uint32(2)), IncomingWindow: 5000, OutgoingWindow: 5000, Handle: new(uint32), DeliveryCount: ptr(uint32(1)), LinkCredit: ptr(uint32(2))})
		p.transfer(1, 0, 1, false, "whole")
		p.wantQuiet()
		if diff := cmp.Diff([]string{"whole"}, payloads(got)); diff != "" {
			p.Errorf("(-want +got):\n%s", diff)
		}
		if p.hub.assembled != 0 {
			p.Errorf("%d bytes are kept", p.hub.assembled)
		}
	})
}

func TestDeliveryTooLarge(t *testing.T) {
	var got []*Delivery
	inBubble(t, receiving(100, &got), func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		rejected := func(id uint32) *wire.Disposition {
			return &wire.Disposition{Role: wire.Receiver, First: id, Settled: true, State: &wire.Rejected{Error: &wire.Error{
				Condition: "amqp:link:message-size-exceeded", Description: "a message of more than 100 bytes",
			}}}
		}
		p.transfer(1, 0, 0, false, strings.Repeat("x", 101))
		p.want(1, rejected(0))
		p.transfer(1, 0, 1, true, strings.Repeat("x", 60))
		p.transfer(1, 0, 1, true, strings.Repeat("x", 60))
		p.transfer(1, 0, 1, true, strings.Repeat("x", 60_000))
		p.wantQuiet()
		if p.hub.assembled != 0 {
			p.Errorf("%d bytes are kept", p.hub.assembled)
		}
		p.transfer(1, 0, 1, false, "x")
		p.want(1, rejected(1))
		p.transfer(1, 0, 2, false, strings.Repeat("x", 100))
		p.wantQuiet()
		if len(got) != 1 || len(got[0].Payload) != 100 {
			p.Errorf("got %q", payloads(got))
		}
		// Of one that came settled nothing can be said.
		p.send(1, &wire.Transfer{DeliveryID: ptr(uint32(3)), Settled: ptr(true)}, make([]byte, 101)...)
		p.wantQuiet()
	})
}

func TestTransferThatIsWrong(t *testing.T) {
	tests := []struct {
		name string
		send func(p *peer)
		want wire.Symbol
	}{
		{"without a delivery-id", func(p *peer) { p.send(1, &wire.Transfer{}) }, condInvalidField},
		{"with a long tag", func(p *peer) {
			p.send(1, &wire.Transfer{DeliveryID: new(uint32), DeliveryTag: make([]byte, 33)})
		}, condInvalidField},
		{"inside another delivery", func(p *peer) {
			p.transfer(1, 0, 0, true, "x")
			p.transfer(1, 0, 1, false, "x")
		}, condInvalidField},
		{"without credit", func(p *peer) {
			p.transfer(1, 0, 0, false, "")
			p.transfer(1, 0, 1, false, "")
			p.transfer(1, 0, 2, false, "")
		}, condTransferLimit},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []*Delivery
			inBubble(t, receiving(2, &got), func(p *peer) {
				p.begin(1)
				p.attachSender(1, 0)
				tt.send(p)
				p.wantDetached(0, tt.want)
				p.transfer(1, 0, 9, false, "on its way")
				p.send(1, &wire.Detach{Closed: true})
				p.wantQuiet()
				if p.hub.assembled != 0 {
					p.Errorf("%d bytes are kept", p.hub.assembled)
				}
			})
		})
	}
}

func TestTransferOnALinkOnWhichTheHubSends(t *testing.T) {
	var log []string
	inBubble(t, logged(&log), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		p.transfer(1, 0, 0, false, "x")
		p.wantDetached(0, condNotAllowed)
	})
}

func TestTooMuchIsAssembled(t *testing.T) {
	h := &handler{attach: func(l *Link) error {
		l.Credit = 10
		l.Inlet = &inlet{receive: func(*Delivery) {}}
		return nil
	}}
	inBubble(t, h, func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		p.attachSender(1, 1)
		part := strings.Repeat("x", 60_000)
		for range maxAssembled/60_000 - 1 {
			p.transfer(1, 0, 0, true, part)
		}
		p.wantQuiet()
		p.transfer(1, 1, 1, true, part)
		p.transfer(1, 1, 1, true, part)
		p.wantDetached(1, condLimit)
		p.transfer(1, 0, 0, true, part)
		p.transfer(1, 0, 0, true, part)
		p.wantDetached(0, condLimit)
		if p.hub.assembled != 0 {
			p.Errorf("%d bytes are kept", p.hub.assembled)
		}
	})
}

// accepted is the disposition of a range.
func accepted(role wire.Role, first, last uint32) *wire.Disposition {
	d := &wire.Disposition{Role: role, First: first, Settled: true, State: wire.Accepted{}}
	if last != first {
		d.Last = &last
	}
	return d
}

func TestSettlementsJoin(t *testing.T) {
	tests := []struct {
		name  string
		order []int
		want  [][2]uint32
	}{
		{"in order", []int{0, 1, 2, 3, 4}, [][2]uint32{{0, 4}}},
		{"backwards", []int{4, 3, 2, 1, 0}, [][2]uint32{{0, 4}}},
		{"from the middle", []int{2, 3, 1, 4, 0}, [][2]uint32{{0, 4}}},
		{"with gaps", []int{0, 2, 3}, [][2]uint32{{0, 0}, {2, 3}}},
		{"twice", []int{1, 1, 2, 1}, [][2]uint32{{1, 2}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []*Delivery
			h := receiving(100, &got)
			inBubble(t, h, func(p *peer) {
				p.begin(1)
				p.attachSender(1, 0)
				p.attachSender(1, 1)
				for id := range uint32(5) {
					p.transfer(1, id%2, id, false, "")
				}
				p.wantQuiet()
				p.hub.mu.Lock()
				p.hub.awake = true // as if within one call
				p.hub.mu.Unlock()
				for _, i := range tt.order {
					got[i].Accept()
				}
				p.hub.mu.Lock()
				p.hub.awake = false
				p.hub.startWritingLocked()
				p.hub.mu.Unlock()
				for _, r := range tt.want {
					p.want(1, accepted(wire.Receiver, r[0], r[1]))
				}
				p.wantQuiet()
			})
		})
	}
}

func TestSettlementsThatDifferDoNotJoin(t *testing.T) {
	n := 0
	h := &handler{attach: func(l *Link) error {
		l.Credit = 100
		l.Inlet = &inlet{receive: func(d *Delivery) {
			switch n++; n {
			case 3:
				d.Reject(&wire.Error{Condition: "amqp:not-found"})
			case 4:
				d.Settle(wire.Released{})
			default:
				d.Accept()
			}
		}}
		return nil
	}}
	inBubble(t, h, func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		var all []byte
		for id := range uint32(6) {
			all = wire.AppendFrame(all, 1, &wire.Transfer{DeliveryID: &id}, nil)
		}
		p.write(all)
		got := p.next().Body.(*wire.Disposition)
		for got.Last != nil && *got.Last == 0 { // as much as one read brought
			got = p.next().Body.(*wire.Disposition)
		}
		var states []wire.State
		for {
			last := got.First
			if got.Last != nil {
				last = *got.Last
			}
			for range last - got.First + 1 {
				states = append(states, got.State)
			}
			if last == 5 {
				break
			}
			got = p.next().Body.(*wire.Disposition)
		}
		want := []wire.State{wire.Accepted{}, wire.Accepted{}, &wire.Rejected{Error: &wire.Error{Condition: "amqp:not-found"}}, wire.Released{}, wire.Accepted{}, wire.Accepted{}}
		if diff := cmp.Diff(want, states); diff != "" {
			p.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestSettlementBehindDetach(t *testing.T) {
	var got []*Delivery
	inBubble(t, receiving(100, &got), func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		p.transfer(1, 0, 0, false, "")
		p.send(1, &wire.Detach{Closed: true})
		p.next()
		got[0].Accept()
		p.wantQuiet()
		p.attachSender(1, 0)
		p.transfer(1, 0, 1, false, "")
		p.wantQuiet()
		got[0].Accept()
		p.wantQuiet()
		got[1].Accept()
		p.want(1, accepted(wire.Receiver, 1, 1))
	})
}

// No more deliveries are under way than the handler wants, those counted that
// are not settled.
func TestCreditIsToppedUp(t *testing.T) {
	var got []*Delivery
	inBubble(t, receiving(8, &got), func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		for id := range uint32(8) {
			p.transfer(1, 0, id, false, "")
		}
		p.wantQuiet()
		got[0].Accept()
		p.want(1, accepted(wire.Receiver, 0, 0))
		p.wantQuiet()
		got[1].Accept()
		p.want(1, accepted(wire.Receiver, 1, 1))
		p.want(1, &wire.Flow{NextIncomingID: ptr(uint32(8)), IncomingWindow: 5000, OutgoingWindow: 5000, Handle: new(uint32), DeliveryCount: ptr(uint32(8)), LinkCredit: ptr(uint32(2))})
		p.transfer(1, 0, 8, false, "")
		p.transfer(1, 0, 9, false, "")
		p.wantQuiet()
		p.transfer(1, 0, 10, false, "")
		p.wantDetached(0, condTransferLimit)
	})
}

func TestSenderPassesOverCredit(t *testing.T) {
	var got []*Delivery
	inBubble(t, receiving(8, &got), func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		p.send(1, &wire.Flow{IncomingWindow: 1, Handle: new(uint32), DeliveryCount: ptr(uint32(3)), LinkCredit: ptr(uint32(5))})
		p.want(1, &wire.Flow{NextIncomingID: new(uint32), IncomingWindow: 5000, OutgoingWindow: 5000, Handle: new(uint32), DeliveryCount: ptr(uint32(3)), LinkCredit: ptr(uint32(8))})
		// Python names credit of its own, which means nothing.
		p.send(1, &wire.Flow{IncomingWindow: 1, Handle: new(uint32), DeliveryCount: ptr(uint32(3)), LinkCredit: ptr(uint32(10000))})
		p.send(1, &wire.Flow{IncomingWindow: 1, Handle: new(uint32), DeliveryCount: ptr(uint32(300)), LinkCredit: ptr(uint32(10000))})
		p.wantQuiet()
	})
}
