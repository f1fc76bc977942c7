package amqp

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

var d1 = hub.ID{Device: "d1"}

const messagesOfD1 = "/devices/d1/messages/devicebound"

func sendMessage(t testing.TB, h *testHub, m hub.Message) {
	t.Helper()
	if err := h.SendMessage("d1", m); err != nil {
		t.Fatal(err)
	}
}

// awaitPending waits until so many messages wait for d1, in hand or not.
func awaitPending(t testing.TB, h *testHub, want int) {
	t.Helper()
	await := time.After(10 * time.Second)
	for h.ConnectionState(d1).PendingMessages != want {
		select {
		case <-await:
			t.Fatalf("%d messages wait, want %d", h.ConnectionState(d1).PendingMessages, want)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestMessageToDevice(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	expires := time.Now().Add(time.Hour).Truncate(time.Millisecond).UTC()
	sendMessage(t, h, hub.Message{
		MessageID: "m1", CorrelationID: "c1", UserID: "u", ContentType: "application/json", ContentEncoding: "utf-8", Ack: hub.AckFull, Expires: expires,
		Properties: []hub.Property{{Name: "color", Value: "blue"}, {Name: "nothing", Null: true}}, Body: []byte("hello"),
	})
	p := h.dialAs(d1)
	l := p.attach(wire.Receiver, messagesOfD1)
	p.none(l) // without credit
	p.flow(l, 10)
	got := p.receive(l)
	enqueued, ok := got.Annotations.Get("iothub-enqueuedtime").(time.Time)
	if !ok || time.Since(enqueued) > time.Minute {
		t.Errorf("iothub-enqueuedtime is %v", got.Annotations.Get("iothub-enqueuedtime"))
	}
	token, _ := got.Annotations.Get("x-opt-lock-token").(string)
	if id, ok := parseUUID(token); !ok || len(got.DeliveryTag) != len(id) || got.DeliveryTag[15] != id[15] || got.DeliveryTag[0] != id[3] {
		t.Errorf("x-opt-lock-token is %q with the delivery tag %x", token, got.DeliveryTag)
	}
	want := &wire.Message{
		Annotations: wire.Map{
			{Key: wire.Symbol("iothub-enqueuedtime"), Value: enqueued}, {Key: wire.Symbol("iothub-deliverycount"), Value: uint8(0)},
			{Key: wire.Symbol("x-opt-sequence-number"), Value: uint64(1)}, {Key: wire.Symbol("x-opt-lock-token"), Value: token},
		},
		Properties: &wire.Properties{
			MessageID: "m1", CorrelationID: "c1", UserID: []byte("u"), To: "/devices/d1/messages/deviceBound",
			ContentType: "application/json", ContentEncoding: "utf-8", AbsoluteExpiryTime: expires,
		},
		ApplicationProperties: wire.Map{{Key: "iothub-ack", Value: "full"}, {Key: "color", Value: "blue"}, {Key: "nothing", Value: nil}},
		Data:                  [][]byte{[]byte("hello")},
	}
	if diff := cmp.Diff(want, got.Message); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	p.settle(got, true, wire.Accepted{})
	awaitPending(t, h, 0)
}

func TestSettlementOfMessages(t *testing.T) {
	for name, tt := range map[string]struct {
		state    wire.State
		left     int // messages
		feedback string
	}{
		"accepted":                        {wire.Accepted{}, 0, "Success"},
		"rejected":                        {&wire.Rejected{}, 0, "Rejected"},
		"released":                        {wire.Released{}, 1, ""},
		"modified, delivery failed":       {&wire.Modified{DeliveryFailed: true}, 1, ""},
		"modified, undeliverable here":    {&wire.Modified{UndeliverableHere: true}, 0, "Rejected"},
		"settled without a word about it": {nil, 1, ""},
	} {
		for mode, second := range map[string]bool{"first": false, "second": true} {
			if second && tt.state == nil {
				continue
			}
			t.Run(name+", settled "+mode, func(t *testing.T) {
				h := newTestHub(t)
				h.create(d1)
				p := h.dialAs(d1)
				l := p.attach(wire.Receiver, messagesOfD1, func(a *wire.Attach) {
					if second {
						m := wire.RcvSecond
						a.RcvSettleMode = &m
					}
				})
				p.flow(l, 1)
				sendMessage(t, h, hub.Message{Ack: hub.AckFull, Body: []byte("x")})
				got := p.receive(l)
				p.settle(got, !second, tt.state)
				if second {
					answer, _ := await[*wire.Disposition](p, nil)
					want := &wire.Disposition{Role: wire.Sender, First: *got.DeliveryID, Last: answer.Last, Settled: true, State: wire.Accepted{}}
					if diff := cmp.Diff(want, answer); diff != "" {
						t.Errorf("answer (-want +got):\n%s", diff)
					}
				}
				if tt.left > 0 {
					p.flow(l, 2)
					if again := p.receive(l); again.Annotations.Get("iothub-deliverycount") != uint8(1) {
						t.Errorf("it comes again with %v", again.Annotations)
					}
					return
				}
				awaitPending(t, h, 0)
				feedback, ok, err := h.ReceiveFeedback()
				if err != nil || !ok || string(feedback.Records[0].StatusCode) != tt.feedback {
					t.Errorf("feedback %+v, %v, %v; want %s", feedback, ok, err, tt.feedback)
				}
			})
		}
	}
}

func TestMessageThatIsSettledTooLate(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	l := p.attach(wire.Receiver, messagesOfD1, func(a *wire.Attach) {
		m := wire.RcvSecond
		a.RcvSettleMode = &m
	})
	p.flow(l, 2)
	sendMessage(t, h, hub.Message{Body: []byte("x")})
	first := p.receive(l)
	h.clock.Advance(61 * time.Second)
	again := p.receive(l)
	if again.Annotations.Get("iothub-deliverycount") != uint8(0) {
		t.Errorf("the end of a lock counts: %v", again.Annotations)
	}
	p.settle(first, false, wire.Accepted{})
	answer, _ := await[*wire.Disposition](p, nil)
	if r, ok := answer.State.(*wire.Rejected); !ok || r.Error.Condition != condLockLost {
		t.Errorf("a late settlement is answered %+v", answer.State)
	}
	p.settle(again, false, wire.Accepted{})
	if answer, _ := await[*wire.Disposition](p, nil); answer.State != (wire.Accepted{}) {
		t.Errorf("a settlement in time is answered %+v", answer.State)
	}
	awaitPending(t, h, 0)
}

func TestMessagesThatAreSentSettled(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	l := p.attach(wire.Receiver, messagesOfD1, func(a *wire.Attach) {
		m := wire.SndSettled
		a.SndSettleMode = &m
	})
	p.flow(l, 1)
	sendMessage(t, h, hub.Message{Body: []byte("x")})
	if got := p.receive(l); got.Settled == nil || !*got.Settled {
		t.Error("it is not settled")
	}
	awaitPending(t, h, 0)
}

func TestUnsettledMessagesComeAgain(t *testing.T) {
	for name, end := range map[string]func(p *devicePeer, l *peerLink){
		"the connection is lost":   func(p *devicePeer, _ *peerLink) { p.nc.Close() },
		"the link is detached":     func(p *devicePeer, l *peerLink) { p.detach(l) },
		"the connection is closed": func(p *devicePeer, _ *peerLink) { p.send(&wire.Close{}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHub(t)
			h.create(d1)
			p := h.dialAs(d1)
			p.attach(wire.Sender, "/devices/d1/messages/events") // stays
			l := p.attach(wire.Receiver, messagesOfD1)
			p.flow(l, 3)
			for _, body := range []string{"1", "2", "3"} {
				sendMessage(t, h, hub.Message{Body: []byte(body)})
			}
			p.receive(l)
			p.settle(p.receive(l), true, wire.Accepted{})
			p.receive(l)
			end(p, l)
			awaitPending(t, h, 2) // what was settled counts
			q := p
			if name != "the link is detached" {
				q = h.dialAs(d1)
			}
			l = q.attach(wire.Receiver, messagesOfD1)
			q.flow(l, 3)
			if first, second := q.receive(l).body(), q.receive(l).body(); first != "1" || second != "3" {
				t.Errorf("then come %q and %q", first, second)
			}
		})
	}
}

func TestModulesGetNoMessages(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	m1 := hub.ID{Device: "d1", Module: "m1"}
	h.create(m1)
	p := h.dialAs(m1)
	p.flow(p.attach(wire.Receiver, "/devices/d1/modules/m1/messages/events"), 10)
	l := p.attach(wire.Receiver, "/devices/d1/modules/m1/messages/devicebound")
	p.flow(l, 10)
	sendMessage(t, h, hub.Message{Body: []byte("x")})
	p.none(l)
	awaitPending(t, h, 1)
}
