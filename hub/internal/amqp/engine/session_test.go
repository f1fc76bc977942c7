package engine

import (
	"testing"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

func TestBeginIsAnswered(t *testing.T) {
	inBubble(t, &handler{}, func(p *peer) {
		p.send(7, &wire.Begin{NextOutgoingID: 5, IncomingWindow: 1, OutgoingWindow: 1, HandleMax: 4294967295})
		p.want(7, &wire.Begin{RemoteChannel: ptr(uint16(7)), IncomingWindow: 5000, OutgoingWindow: 5000, HandleMax: 8199})
		p.send(7, &wire.End{})
		p.want(7, &wire.End{})
		p.begin(7)
	})
}

func TestBeginIsRefused(t *testing.T) {
	tests := []struct {
		name    string
		channel uint16
		begin   wire.Begin
		want    wire.Symbol
	}{
		{"a channel in use", 1, wire.Begin{}, condIllegalState},
		{"an answer to no question", 2, wire.Begin{RemoteChannel: new(uint16)}, condInvalidField},
		{"a channel above the hub's", 8192, wire.Begin{}, condFraming},
		{"one session too many", 2, wire.Begin{}, condLimit},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			open := goodOpen
			open.ChannelMax = 65535
			withPeer(t, &handler{}, Options{MaxSessions: 1}, open, func(p *peer) {
				p.begin(1)
				p.send(tt.channel, &tt.begin)
				p.wantClosed(tt.want)
			})
		})
	}
}

func TestBeginAboveThePeersChannels(t *testing.T) {
	withPeer(t, &handler{}, Options{}, goodOpen, func(p *peer) {
		p.begin(100)
		p.send(101, &wire.Begin{})
		p.wantClosed(condFraming)
	})
}

func TestFrameOnAChannelWithoutSession(t *testing.T) {
	inBubble(t, &handler{}, func(p *peer) {
		p.begin(1)
		p.send(2, &wire.Attach{})
		p.wantClosed(condIllegalState)
	})
}

// The Python client of Event Hubs ends its session before the links in it.
func TestFramesBehindEnd(t *testing.T) {
	var log []string
	inBubble(t, logged(&log), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		p.send(1, &wire.End{})
		p.want(1, &wire.End{})
		p.send(1, &wire.Detach{})
		p.send(1, accepted(wire.Receiver, 0, 3))
		p.send(1, &wire.End{})
		p.wantQuiet()
		p.send(0, &wire.Close{})
		p.want(0, &wire.Close{})
	})
}

func TestEndTellsLinks(t *testing.T) {
	var log []string
	inBubble(t, logged(&log), func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		p.attachReceiver(1, 1)
		p.begin(2)
		p.attachReceiver(2, 2)
		p.send(1, &wire.End{Error: &wire.Error{Condition: "amqp:internal-error"}})
		p.want(1, &wire.End{})
		if len(log) != 2 {
			p.Errorf("told: %q", log)
		}
		p.send(1, &wire.Flow{})
		p.wantClosed(condIllegalState)
		if len(log) != 3 || log[2] != "c detached" {
			p.Errorf("told: %q", log)
		}
	})
}

// logged returns a handler whose links write down what they are told.
func logged(log *[]string) *handler {
	return &handler{attach: func(l *Link) error {
		l.Credit = 100
		l.Inlet = &inlet{
			receive: func(d *Delivery) {
				*log = append(*log, l.Name+" received "+string(d.Payload))
			},
			detached: func() { *log = append(*log, l.Name+" detached") },
		}
		l.Outlet = &outlet{
			ready:    func() { *log = append(*log, l.Name+" ready") },
			detached: func() { *log = append(*log, l.Name+" detached") },
		}
		return nil
	}}
}

func TestFrameWithAHandleThatIsFreeEndsTheSession(t *testing.T) {
	for name, body := range map[string]wire.Performative{
		"transfer": &wire.Transfer{Handle: 5, DeliveryID: new(uint32)},
		"flow":     &wire.Flow{Handle: ptr(uint32(5))},
	} {
		t.Run(name, func(t *testing.T) {
			var log []string
			inBubble(t, logged(&log), func(p *peer) {
				p.begin(1)
				p.attachReceiver(1, 0)
				p.send(1, body)
				p.wantEnded(condUnattached)
				if len(log) != 1 {
					p.Errorf("told: %q", log)
				}
				// What was on its way means nothing, until the peer's end.
				p.send(1, &wire.Attach{Name: "x", Handle: 9})
				p.send(1, body)
				p.wantQuiet()
				p.send(1, &wire.End{})
				p.wantQuiet()
				p.begin(1)
			})
		})
	}
}

func TestFlowBehindADetach(t *testing.T) {
	var log []string
	inBubble(t, logged(&log), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		p.send(1, &wire.Detach{Handle: 0, Closed: true})
		p.want(1, &wire.Detach{Handle: 0, Closed: true})
		p.send(1, &wire.Flow{Handle: ptr(uint32(0)), NextIncomingID: ptr(uint32(0)), IncomingWindow: 100, LinkCredit: ptr(uint32(1))})
		p.wantQuiet()
		p.attachReceiver(1, 0)
	})
}

func TestDetachWithAHandleThatIsFree(t *testing.T) {
	inBubble(t, &handler{}, func(p *peer) {
		p.begin(1)
		p.send(1, &wire.Detach{Handle: 5, Closed: true})
		p.wantQuiet()
	})
}

func TestIncomingWindow(t *testing.T) {
	h := &handler{attach: func(l *Link) error {
		l.Credit = 100_000
		l.Inlet = &inlet{receive: func(*Delivery) {}}
		return nil
	}}
	inBubble(t, h, func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		for id := range uint32(2500) {
			p.transfer(1, 0, id, false, "")
			if id == 2498 {
				p.wantQuiet()
			}
		}
		p.want(1, &wire.Flow{NextIncomingID: ptr(uint32(2500)), IncomingWindow: 5000, OutgoingWindow: 5000})
	})
}

// A peer that can overrun the window has to be faster than the hub's answers,
// which nobody is here.
func TestIncomingWindowViolation(t *testing.T) {
	var log []string
	inBubble(t, logged(&log), func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		p.hub.mu.Lock()
		p.hub.sessions[1].incoming = 0
		p.hub.mu.Unlock()
		p.transfer(1, 0, 0, false, "")
		p.wantEnded(condWindow)
		if len(log) != 1 {
			p.Errorf("told: %q", log)
		}
	})
}

func TestEcho(t *testing.T) {
	var log []string
	inBubble(t, logged(&log), func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		p.attachReceiver(1, 1)
		p.send(1, &wire.Flow{IncomingWindow: 10, Echo: true})
		p.want(1, &wire.Flow{NextIncomingID: new(uint32), IncomingWindow: 5000, OutgoingWindow: 5000})
		p.send(1, &wire.Flow{IncomingWindow: 10, Echo: true, Handle: new(uint32)})
		p.want(1, &wire.Flow{NextIncomingID: new(uint32), IncomingWindow: 5000, OutgoingWindow: 5000, Handle: new(uint32), DeliveryCount: new(uint32), LinkCredit: ptr(uint32(100))})
		p.send(1, &wire.Flow{IncomingWindow: 10, Echo: true, Handle: ptr(uint32(1)), LinkCredit: ptr(uint32(3))})
		p.want(1, &wire.Flow{NextIncomingID: new(uint32), IncomingWindow: 5000, OutgoingWindow: 5000, Handle: ptr(uint32(1)), DeliveryCount: new(uint32), LinkCredit: ptr(uint32(3)), Available: new(uint32)})
	})
}
