package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func dialService(t testing.TB, h *hubtest.Hub) *wiretest.AMQPClient {
	t.Helper()
	return wiretest.DialAMQP(t, h, h.Policy("service"))
}

func send(t testing.TB, l *goamqp.Sender, m *goamqp.Message) error {
	t.Helper()
	err := l.Send(wiretest.WithPatience(t), m, nil)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatal("the message is not settled")
	}
	return err
}

func textp(s string) *string { return &s }

// What a service sends is what the device's queue holds.
func TestMessageArrivesAsItIs(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	l := dialService(t, h).Sender("/messages/devicebound")
	expires := h.Now().Add(10 * time.Minute).Truncate(time.Millisecond).UTC()
	m := &goamqp.Message{
		Header: &goamqp.MessageHeader{},
		Properties: &goamqp.MessageProperties{
			To: textp("/devices/d1/messages/devicebound"), MessageID: "m1", CorrelationID: goamqp.UUID{1}, UserID: []byte("u1"),
			ContentType: textp("application/json"), ContentEncoding: textp("utf-8"), AbsoluteExpiryTime: &expires,
		},
		ApplicationProperties: map[string]any{"iothub-ack": "Full", "color": "blue", "number": int32(-5), "yes": true, "userId": "u1", "iothub-operation": "x"},
		Data:                  [][]byte{[]byte("hello "), []byte("device")},
	}
	if err := send(t, l, m); err != nil {
		t.Fatal(err)
	}
	got, ok, err := h.ReceiveMessage("d1", 0)
	if err != nil || !ok {
		t.Fatalf("ReceiveMessage: %t, %v", ok, err)
	}
	want := hub.Message{
		MessageID: "m1", CorrelationID: "01000000-0000-0000-0000-000000000000", UserID: "u1", ContentType: "application/json", ContentEncoding: "utf-8",
		Ack: hub.AckFull, Expires: expires, Body: []byte("hello device"),
		Properties: []hub.Property{{Name: "color", Value: "blue"}, {Name: "number", Value: "-5"}, {Name: "userId", Value: "u1"}, {Name: "yes", Value: "true"}},
	}
	byName := cmpopts.SortSlices(func(a, b hub.Property) bool { return a.Name < b.Name })
	if diff := cmp.Diff(want, got.Message, byName, cmpopts.EquateApproxTime(0)); diff != "" {
		t.Errorf("the message (-want +got):\n%s", diff)
	}
}

// Clients write the device in these ways, and the body as data or as a value.
func TestMessageShapes(t *testing.T) {
	h := hubtest.New(t)
	for _, device := range []string{"d1", "a@b"} {
		h.Device(device)
	}
	c := dialService(t, h)
	l := c.Sender("amqps://" + h.HostName + "/messages/devicebound")
	for _, tt := range []struct {
		device string
		m      *goamqp.Message
	}{
		{"d1", wiretest.AMQPMessage("/devices/d1/messages/devicebound", "x")},
		{"d1", wiretest.AMQPMessage("/devices/d1/messages/deviceBound", "x")},
		{"d1", wiretest.AMQPMessage("amqps://"+h.HostName+"/devices/d1/messages/devicebound", "x")},
		{"a@b", wiretest.AMQPMessage("/devices/a@b/messages/devicebound", "x")},
		{"a@b", wiretest.AMQPMessage("/devices/a%40b/messages/devicebound", "x")},
		{"d1", &goamqp.Message{Properties: &goamqp.MessageProperties{To: textp("/devices/d1/messages/devicebound")}, Value: "x"}},
		{"d1", &goamqp.Message{Properties: &goamqp.MessageProperties{To: textp("/devices/d1/messages/devicebound")}, Value: []byte("x")}},
	} {
		if err := send(t, l, tt.m); err != nil {
			t.Errorf("to %s: %v", *tt.m.Properties.To, err)
			continue
		}
		got, ok, err := h.ReceiveMessage(tt.device, 0)
		if err != nil || !ok || string(got.Body) != "x" {
			t.Errorf("to %s: the queue has %q, %t, %v", *tt.m.Properties.To, got.Body, ok, err)
		}
	}
}

// Refusals reject the message and leave the link as it is.
func TestMessageRefusals(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	full := h.Device("full").DeviceID
	h.Module("d1", "m1")
	for range 50 {
		wiretest.SendMessage(t, h.Node, full, wiretest.Message("x"))
	}
	l := dialService(t, h).Sender("/messages/devicebound")
	to := "/devices/d1/messages/devicebound"
	with := func(properties map[string]any) *goamqp.Message {
		m := wiretest.AMQPMessage(to, "x")
		m.ApplicationProperties = properties
		return m
	}
	for _, tt := range []struct {
		name string
		m    *goamqp.Message
		want string
	}{
		{"an unknown device", wiretest.AMQPMessage("/devices/nobody/messages/devicebound", "x"), "amqp:not-found"},
		{"a full queue", wiretest.AMQPMessage("/devices/full/messages/devicebound", "x"), "amqp:resource-limit-exceeded"},
		{"too large", wiretest.AMQPMessage(to, strings.Repeat("x", 64<<10+1)), "amqp:link:message-size-exceeded"},
		{"no to", wiretest.AMQPMessage("", "x"), "amqp:not-allowed"},
		{"to what is no device", wiretest.AMQPMessage("/messages/devicebound", "x"), "amqp:not-allowed"},
		{"to a module", wiretest.AMQPMessage("/devices/d1/modules/m1/messages/devicebound", "x"), "amqp:not-allowed"},
		{"an unknown ack", with(map[string]any{"iothub-ack": "perhaps"}), "com.microsoft:argument-error"},
		{"a property of the system's", with(map[string]any{"$x": "y"}), "com.microsoft:argument-error"},
		{"a message id that is none", &goamqp.Message{Properties: &goamqp.MessageProperties{To: &to, MessageID: "a b"}, Data: [][]byte{nil}}, "com.microsoft:argument-error"},
		{"a body that is a list", &goamqp.Message{Properties: &goamqp.MessageProperties{To: &to}, Value: []any{"x"}}, "com.microsoft:argument-error"},
		{"a sequence", &goamqp.Message{Properties: &goamqp.MessageProperties{To: &to}, Sequence: [][]any{{"x"}}}, "com.microsoft:argument-error"},
		{"nothing wrong", with(nil), ""},
		{"just not too large", wiretest.AMQPMessage(to, strings.Repeat("x", 64<<10)), ""},
	} {
		err := send(t, l, tt.m)
		if got := conditionOf(t, err); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		var remote *goamqp.Error
		if errors.As(err, &remote) && tt.want == "amqp:not-found" {
			id, _ := remote.Info["com.microsoft:tracking-id"].(string)
			if id == "" || !strings.HasSuffix(remote.Description, "Tracking Id:"+id) {
				t.Errorf("%s: %q with info %v", tt.name, remote.Description, remote.Info)
			}
		}
	}
}

// A delivery of a peer that settles second is settled all the same: uamqp waits
// for ever otherwise.
func TestMessageIsSettledInModeSecond(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	p := newCBSPeer(t, h, "cbs")
	if got := statusOf(t, p.put(putToken("1", serviceToken(t, h, "service")))); got != 200 {
		t.Fatalf("put-token: %d", got)
	}
	p.Send(0, &wire.Attach{Name: "c2d", Handle: 2, Role: wire.Sender, SndSettleMode: uint8p(wire.SndUnsettled), RcvSettleMode: uint8p(wire.RcvSecond),
		Source: &wire.Source{Address: "me"}, Target: &wire.Target{Address: "/messages/devicebound"}, InitialDeliveryCount: uint32p(0)})
	answer, _ := wiretest.ReceiveAMQP[*wire.Attach](p.AMQPPeer)
	if answer.RcvSettleMode == nil || *answer.RcvSettleMode != wire.RcvSecond || answer.MaxMessageSize == nil || *answer.MaxMessageSize < 64<<10 {
		t.Errorf("the answering attach: %+v", answer)
	}
	for i, to := range []string{"/devices/d1/messages/devicebound", "/devices/nobody/messages/devicebound"} {
		p.SendMessage(0, &wire.Transfer{Handle: 2, DeliveryID: uint32p(uint32(i + 1)), DeliveryTag: []byte{byte(i)}},
			&wire.Message{Properties: &wire.Properties{To: to}, Data: [][]byte{[]byte("x")}})
		d, _ := wiretest.ReceiveAMQP[*wire.Disposition](p.AMQPPeer)
		_, refused := d.State.(*wire.Rejected)
		if !d.Settled || refused != (i == 1) {
			t.Errorf("to %s: %+v", to, d)
		}
	}
}

// Messages for one device keep their order, however many are under way, and those
// for different devices do not wait for each other.
func TestMessagesKeepTheirOrder(t *testing.T) {
	h := hubtest.New(t)
	l := dialService(t, h).Sender("/messages/devicebound")
	const devices, each = 5, 30
	var sent sync.WaitGroup
	for d := range devices {
		h.Device(fmt.Sprint("d", d))
	}
	ctx := wiretest.WithPatience(t)
	for i := range each {
		for d := range devices {
			// Receipts come in the order in which messages were handed to the
			// session; Send waits for one.
			receipt, err := l.SendWithReceipt(ctx, wiretest.AMQPMessage(fmt.Sprintf("/devices/d%d/messages/devicebound", d), fmt.Sprint(i)), nil)
			if err != nil {
				t.Fatal(err)
			}
			sent.Add(1)
			go func() {
				defer sent.Done()
				if state, err := receipt.Wait(ctx); err != nil {
					t.Errorf("%v, %v", state, err)
				}
			}()
		}
	}
	sent.Wait()
	for d := range devices {
		for i := range each {
			got, ok, err := h.ReceiveMessage(fmt.Sprint("d", d), time.Minute)
			if err != nil || !ok || string(got.Body) != fmt.Sprint(i) {
				t.Fatalf("message %d of d%d is %q, %t, %v", i, d, got.Body, ok, err)
			}
		}
	}
}

// A hub that closes answers what it has begun: what it has accepted is there when
// it opens again.
func TestClosingAnswersWhatHasBegun(t *testing.T) {
	folder := node.Folder(t.TempDir())
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: folder}))
	const devices = 40
	for i := range devices {
		h.Device(fmt.Sprint("d", i))
	}
	p := newCBSPeer(t, h, "cbs")
	if got := statusOf(t, p.put(putToken("1", serviceToken(t, h, "service")))); got != 200 {
		t.Fatalf("put-token: %d", got)
	}
	if got := tryAttach(p.AMQPPeer, 2, "/messages/devicebound", true); got != "" {
		t.Fatalf("the link is refused: %q", got)
	}
	var frames []byte
	for i := range devices {
		m := wire.AppendMessage(nil, &wire.Message{Properties: &wire.Properties{To: fmt.Sprintf("/devices/d%d/messages/devicebound", i)}, Data: [][]byte{[]byte("x")}})
		frames = append(frames, wire.AppendFrame(nil, 0, &wire.Transfer{Handle: 2, DeliveryID: uint32p(uint32(i + 1)), DeliveryTag: []byte{byte(i)}}, m)...)
	}
	p.SendBytes(frames)
	accepted := make(map[uint32]bool)
	take := func(d *wire.Disposition) {
		last := d.First
		if d.Last != nil {
			last = *d.Last
		}
		for id := d.First; id <= last; id++ {
			if _, ok := d.State.(wire.Accepted); ok {
				accepted[id] = true
			}
		}
	}
	first, _ := wiretest.ReceiveAMQP[*wire.Disposition](p.AMQPPeer)
	take(first)
	closed := make(chan error, 1)
	go func() { closed <- h.Close() }()
	for told := false; !told; {
		f, err := p.Frame()
		if err != nil {
			t.Fatalf("the connection ended without a close: %v", err)
		}
		switch body := f.Body.(type) {
		case *wire.Disposition:
			take(body)
		case *wire.Close:
			told = true
		}
	}
	p.Close()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	again := wiretest.NewNode(t, node.Options{Storage: folder})
	for id := range accepted {
		wiretest.WantPending(t, again, fmt.Sprint("d", id-1), 1)
	}
}
