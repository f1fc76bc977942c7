package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

func TestAttachOfASender(t *testing.T) {
	h := &handler{attach: func(l *Link) error {
		if l.Source == nil || l.Target.Address != "/there" || l.Role != wire.Sender {
			t.Errorf("the handler got %#v", l)
		}
		l.Credit = 10
		l.MaxMessageSize = 1000
		l.OfferedCapabilities = []wire.Symbol{"a"}
		l.AnswerProperties = wire.Fields{{Key: wire.Symbol("k"), Value: "v"}}
		l.Inlet = &inlet{}
		return nil
	}}
	inBubble(t, h, func(p *peer) {
		p.begin(3)
		p.send(3, &wire.Attach{
			Name: "to", Handle: 2, Role: wire.Sender, InitialDeliveryCount: ptr(uint32(7)),
			SndSettleMode: ptr(wire.SndUnsettled), RcvSettleMode: ptr(wire.RcvSecond), Target: &wire.Target{Address: "/there"},
		})
		p.want(3, &wire.Attach{
			Name: "to", Handle: 2, Role: wire.Receiver,
			SndSettleMode: ptr(wire.SndUnsettled), RcvSettleMode: ptr(wire.RcvSecond),
			Source: &wire.Source{}, Target: &wire.Target{Address: "/there"},
			MaxMessageSize: ptr(uint64(1000)), OfferedCapabilities: []wire.Symbol{"a"},
			Properties: wire.Fields{{Key: wire.Symbol("k"), Value: "v"}},
		})
		p.want(3, &wire.Flow{
			NextIncomingID: new(uint32), IncomingWindow: 5000, OutgoingWindow: 5000,
			Handle: ptr(uint32(2)), DeliveryCount: ptr(uint32(7)), LinkCredit: ptr(uint32(10)),
		})
		p.wantQuiet()
	})
}

func TestAttachOfAReceiver(t *testing.T) {
	filter := wire.Map{{Key: wire.Symbol("f"), Value: "x"}}
	h := &handler{attach: func(l *Link) error { l.Outlet = &outlet{}; return nil }}
	inBubble(t, h, func(p *peer) {
		p.begin(3)
		p.send(3, &wire.Attach{
			Name: "from", Handle: 1, Role: wire.Receiver, SndSettleMode: ptr(wire.SndSettled), RcvSettleMode: ptr(wire.RcvFirst),
			Source: &wire.Source{Address: "/here", Filter: filter},
		})
		p.want(3, &wire.Attach{
			Name: "from", Handle: 1, Role: wire.Sender, SndSettleMode: ptr(wire.SndSettled), RcvSettleMode: ptr(wire.RcvFirst),
			Source: &wire.Source{Address: "/here", Filter: filter}, Target: &wire.Target{}, InitialDeliveryCount: new(uint32),
		})
		p.wantQuiet()
	})
}

// Clients tell by the null termini that the link was never there; of one that
// was stolen they tell by its being there that it was.
func TestAttachIsRefused(t *testing.T) {
	here, there := &wire.Source{Address: "/here"}, &wire.Target{Address: "/there"}
	notFound := &wire.Error{Condition: "amqp:not-found", Description: "none"}
	stolen := &wire.Error{Condition: "amqp:link:stolen"}
	tests := []struct {
		name string
		role wire.Role
		err  error
		want wire.Attach
		sent *wire.Error
	}{
		{"to send", wire.Sender, notFound, wire.Attach{Role: wire.Receiver}, notFound},
		{"to receive", wire.Receiver, notFound, wire.Attach{Role: wire.Sender, InitialDeliveryCount: new(uint32)}, notFound},
		{"stolen", wire.Receiver, stolen, wire.Attach{Role: wire.Sender, Source: here, Target: there, InitialDeliveryCount: new(uint32)}, stolen},
		{"by an error that wraps one", wire.Sender, fmt.Errorf("attach: %w", notFound), wire.Attach{Role: wire.Receiver}, notFound},
		{"by a fault", wire.Sender, errors.New("a secret"), wire.Attach{Role: wire.Receiver}, &wire.Error{Condition: "amqp:internal-error", Description: "internal error"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, &handler{attach: func(l *Link) error { return tt.err }}, func(p *peer) {
				p.begin(0)
				for range 2 {
					p.send(0, &wire.Attach{Name: "n", Role: tt.role, Source: here, Target: there})
					tt.want.Name = "n"
					p.want(0, &tt.want)
					p.want(0, &wire.Detach{Closed: true, Error: tt.sent})
					// What was on its way means nothing.
					p.send(0, &wire.Flow{Handle: new(uint32), LinkCredit: ptr(uint32(1)), Echo: true})
					p.send(0, &wire.Transfer{DeliveryID: new(uint32)})
					p.wantQuiet()
					p.send(0, &wire.Detach{Closed: true})
					p.wantQuiet()
				}
			})
		})
	}
}

func TestHandleInUse(t *testing.T) {
	var log []string
	inBubble(t, logged(&log), func(p *peer) {
		p.begin(1)
		p.attachSender(1, 0)
		p.send(1, &wire.Attach{Name: "other", Handle: 0})
		p.wantEnded(condHandleInUse)
		if !slices.Equal(log, []string{"a detached"}) {
			p.Errorf("told: %q", log)
		}
	})
}

func TestHandleTooLarge(t *testing.T) {
	t.Run("for the hub", func(t *testing.T) {
		inBubble(t, &handler{}, func(p *peer) {
			p.begin(1)
			p.send(1, &wire.Attach{Name: "n", Handle: 8200})
			p.wantClosed(condFraming)
		})
	})
	t.Run("for the peer", func(t *testing.T) {
		inBubble(t, &handler{}, func(p *peer) {
			p.begin(1)
			p.send(1, &wire.Attach{Name: "n", Handle: 1001})
			p.wantEnded(condNotAllowed)
		})
	})
}

func TestTooManyLinks(t *testing.T) {
	var log []string
	withPeer(t, logged(&log), Options{MaxLinks: 3}, goodOpen, func(p *peer) {
		p.begin(1)
		p.begin(2)
		p.attachReceiver(1, 0)
		p.attachReceiver(2, 1)
		p.attachReceiver(2, 2)
		p.send(2, &wire.Detach{Handle: 2})
		p.next()
		p.attachReceiver(2, 3)
		p.send(1, &wire.Attach{Name: "z", Handle: 4, Role: wire.Receiver})
		p.wantEnded(condLimit)
		p.send(1, &wire.End{})
		p.attachReceiver(2, 4)
	})
}

// What a peer attaches is kept only as far as it is of use.
func TestLinksDoNotKeepMuch(t *testing.T) {
	var link *Link
	h := &handler{attach: func(l *Link) error {
		if link == nil && (l.Properties == nil || l.Source.Filter == nil || l.Target.Address != nil) {
			t.Error("the handler did not get what was attached")
		}
		if link == nil {
			link = l
		}
		l.Outlet = &outlet{}
		return nil
	}}
	inBubble(t, h, func(p *peer) {
		p.begin(1)
		p.begin(2)
		long := strings.Repeat("x", 30_000)
		much := wire.Fields{{Key: wire.Symbol("k"), Value: long}}
		attach := wire.Attach{Role: wire.Receiver, Source: &wire.Source{Address: "/here", Filter: much}, Target: &wire.Target{Address: []byte("x")}, Properties: much}
		p.send(1, &attach)
		p.next()
		if diff := cmp.Diff(&wire.Source{Address: "/here"}, link.Source); diff != "" || link.Properties != nil {
			p.Errorf("what is kept (-want +got):\n%s", diff)
		}
		attach.Properties = nil
		for i := range uint32(maxWeight/30_000 + 1) {
			attach.Name, attach.Handle = fmt.Sprint(i, long), i+1
			p.send(2, &attach)
			if _, ok := p.next().Body.(*wire.Attach); !ok {
				p.Fatalf("link %d is refused", i)
			}
		}
		attach.Name, attach.Handle = "last", 999
		p.send(2, &attach)
		p.wantEnded(condLimit)
		p.hub.mu.Lock()
		defer p.hub.mu.Unlock()
		if p.hub.weight != len("/here") {
			p.Errorf("links weigh %d", p.hub.weight)
		}
	})
}

// A client that comes back before the hub knows that it had gone keeps the name
// of its link.
func TestLinkIsStolenByItsName(t *testing.T) {
	var log []string
	inBubble(t, logged(&log), func(p *peer) {
		p.begin(1)
		p.begin(2)
		p.attachReceiver(1, 0)
		p.send(1, &wire.Attach{Name: "a", Handle: 1, Role: wire.Sender})
		p.next() // the other direction is another link
		p.next()
		p.send(2, &wire.Attach{Name: "a", Handle: 5, Role: wire.Receiver})
		p.wantDetached(0, "amqp:link:stolen")
		if a, ok := p.next().Body.(*wire.Attach); !ok || a.Handle != 5 || a.Source == nil {
			p.Errorf("the second attach was answered %v", a)
		}
		if !slices.Equal(log, []string{"a detached"}) {
			p.Errorf("told: %q", log)
		}
		p.send(1, &wire.Detach{Handle: 0, Closed: true})
		p.grant(2, 5, 0, 1, 0, 10)
		p.wantQuiet()
		if !slices.Equal(log, []string{"a detached", "a ready"}) {
			p.Errorf("told: %q", log)
		}
	})
}

func TestDetachIsAnsweredAlike(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprint(closed), func(t *testing.T) {
			var log []string
			inBubble(t, logged(&log), func(p *peer) {
				p.begin(1)
				for range 2 {
					p.attachReceiver(1, 4)
					p.send(1, &wire.Detach{Handle: 4, Closed: closed})
					p.want(1, &wire.Detach{Handle: 4, Closed: closed})
				}
				if !slices.Equal(log, []string{"e detached", "e detached"}) {
					p.Errorf("told: %q", log)
				}
			})
		})
	}
}

func TestHubDetaches(t *testing.T) {
	why := &wire.Error{Condition: "amqp:link:detach-forced"}
	var link *Link
	told := make(chan struct{}, 10)
	h := &handler{attach: func(l *Link) error {
		link = l
		l.Outlet = &outlet{detached: func() { told <- struct{}{} }}
		return nil
	}}
	inBubble(t, h, func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 4)
		link.Detach(why)
		link.Detach(nil)
		p.want(1, &wire.Detach{Handle: 4, Closed: true, Error: why})
		if len(told) != 1 {
			p.Errorf("told %d times", len(told))
		}
		if link.Send([]byte("x"), nil, true, nil) || link.CanSend() {
			p.Error("a link that is detached sends")
		}
		link.Post([]byte("x"), true)
		if err := link.Wait(p.Context()); err != ErrDetached {
			p.Errorf("Wait: %v", err)
		}
		p.grant(1, 4, 0, 1, 0, 10) // on its way
		p.wantQuiet()
		p.send(1, &wire.Detach{Handle: 4, Closed: true})
		p.wantQuiet()
		p.attachReceiver(1, 4)
		if len(told) != 1 {
			p.Errorf("told %d times", len(told))
		}
	})
	if len(told) != 2 {
		t.Errorf("told %d times", len(told))
	}
}

func TestHubDetachesAll(t *testing.T) {
	why := &wire.Error{Condition: "amqp:link:stolen"}
	var links []*Link
	var mu sync.Mutex
	told := map[string]int{}
	h := &handler{attach: func(l *Link) error {
		links = append(links, l)
		l.Outlet = &outlet{detached: func() {
			mu.Lock()
			defer mu.Unlock()
			told[l.Name]++
		}}
		return nil
	}}
	inBubble(t, h, func(p *peer) {
		p.begin(1)
		p.begin(2)
		for i := range uint32(3) {
			p.attachReceiver(1, i)
		}
		p.attachReceiver(2, 3)
		p.attachReceiver(2, 4)
		DetachAll(nil, why)
		DetachAll(links[:4], why)
		DetachAll(links[:4], why)
		p.want(1, &wire.End{Error: why})
		p.want(2, &wire.Detach{Handle: 3, Closed: true, Error: why})
		// What was on its way means nothing.
		p.grant(1, 0, 0, 1, 0, 1)
		p.send(1, &wire.Attach{Name: "new", Handle: 9, Role: wire.Receiver})
		p.send(1, &wire.Flow{Echo: true})
		p.send(1, &wire.Disposition{Role: wire.Receiver, State: wire.Accepted{}})
		p.transfer(1, 7, 0, false, "")
		p.wantQuiet()
		if diff := cmp.Diff(map[string]int{"a": 1, "b": 1, "c": 1, "d": 1}, told); diff != "" {
			p.Errorf("told (-want +got):\n%s", diff)
		}
		p.send(1, &wire.End{})
		p.begin(1)
		DetachAll(links[4:], why) // one is still being detached beside it
		p.want(2, &wire.Detach{Handle: 4, Closed: true, Error: why})
	})
}

func TestHubDetachesWhileItDecides(t *testing.T) {
	why := &wire.Error{Condition: "amqp:link:detach-forced"}
	told := make(chan struct{}, 10)
	h := &handler{attach: func(l *Link) error {
		l.Post([]byte("x"), true)
		l.Detach(why)
		l.Outlet = &outlet{detached: func() { told <- struct{}{} }}
		return nil
	}}
	inBubble(t, h, func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 4)
		p.want(1, &wire.Detach{Handle: 4, Closed: true, Error: why})
		p.wantQuiet()
		if len(told) != 1 {
			p.Errorf("told %d times", len(told))
		}
	})
}

func TestConnectionEndsWhileAHandlerDecides(t *testing.T) {
	for name, end := range map[string]func(*Link){
		"close": func(l *Link) { l.Conn().Close(&wire.Error{Condition: "amqp:connection:forced"}) },
		"end":   func(l *Link) { l.Conn().End(errors.New("over")) },
	} {
		t.Run(name, func(t *testing.T) {
			told := 0
			h := &handler{attach: func(l *Link) error {
				end(l)
				l.Outlet = &outlet{detached: func() { told++ }}
				return nil
			}}
			inBubble(t, h, func(p *peer) {
				p.begin(1)
				p.send(1, &wire.Attach{Name: "n", Role: wire.Receiver})
				<-p.closed
				if len(p.frames) > 2 { // end and close
					p.Errorf("%d frames", len(p.frames))
				}
				p.wantServed()
				if told != 1 {
					p.Errorf("told %d times", told)
				}
			})
		})
	}
}

func TestSameSession(t *testing.T) {
	var links []*Link
	h := &handler{attach: func(l *Link) error {
		links = append(links, l)
		l.Outlet = &outlet{}
		return nil
	}}
	inBubble(t, h, func(p *peer) {
		p.begin(1)
		p.begin(2)
		p.attachReceiver(1, 0)
		p.attachReceiver(1, 1)
		p.attachReceiver(2, 2)
		got := []bool{links[0].SameSession(links[1]), links[0].SameSession(links[2]), links[0].Conn() == p.hub}
		if diff := cmp.Diff([]bool{true, false, true}, got); diff != "" {
			p.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestWait(t *testing.T) {
	var link *Link
	h := &handler{attach: func(l *Link) error {
		link = l
		l.Outlet = &outlet{}
		return nil
	}}
	inBubble(t, h, func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		waited := make(chan error, 1)
		wait := func(ctx context.Context) { go func() { waited <- link.Wait(ctx) }() }

		ctx, cancel := context.WithTimeout(p.Context(), time.Second)
		defer cancel()
		wait(ctx)
		if err := <-waited; !errors.Is(err, context.DeadlineExceeded) {
			p.Errorf("Wait: %v", err)
		}

		wait(p.Context())
		synctest.Wait()
		p.grant(1, 0, 0, 1, 0, 10)
		if err := <-waited; err != nil {
			p.Errorf("Wait: %v", err)
		}
		wait(p.Context())
		if err := <-waited; err != nil {
			p.Errorf("Wait: %v", err)
		}

		if !link.Send([]byte("x"), nil, true, nil) {
			p.Error("not sent")
		}
		wait(p.Context())
		synctest.Wait()
		p.hub.Close(nil)
		if err := <-waited; err != ErrDetached {
			p.Errorf("Wait: %v", err)
		}
	})
}
