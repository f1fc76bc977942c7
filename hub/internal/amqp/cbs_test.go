package amqp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// A cbsPeer speaks to $cbs by frames of its own, as a client that settles its
// answers first, which uamqp is.
type cbsPeer struct {
	*wiretest.AMQPPeer
	deliveries uint32
}

func dialPeer(t testing.TB, h *hubtest.Hub) *wiretest.AMQPPeer {
	t.Helper()
	return wiretest.NewAMQPPeer(t, wiretest.DialAMQPTCP(t, h))
}

func uint8p(v uint8) *uint8    { return &v }
func uint32p(v uint32) *uint32 { return &v }

// newCBSPeer opens a connection and attaches to $cbs on handles 0, to send, and
// 1, to receive, with the given target.
func newCBSPeer(t testing.TB, h *hubtest.Hub, replyTo any) *cbsPeer {
	t.Helper()
	p := &cbsPeer{AMQPPeer: dialPeer(t, h)}
	p.Open(h.HostName)
	p.attachReplies(0, 1, replyTo)
	p.Send(0, &wire.Attach{Name: "cbs-out", Handle: 0, Role: wire.Sender, Source: &wire.Source{}, Target: &wire.Target{Address: "$cbs"}, InitialDeliveryCount: uint32p(0)})
	wiretest.ReceiveAMQP[*wire.Attach](p.AMQPPeer)
	return p
}

func (p *cbsPeer) attachReplies(channel uint16, handle uint32, target any) {
	p.T.Helper()
	p.Send(channel, &wire.Attach{Name: "cbs-in", Handle: handle, Role: wire.Receiver, SndSettleMode: uint8p(wire.SndSettled),
		Source: &wire.Source{Address: "$cbs"}, Target: &wire.Target{Address: target}})
	got, _ := wiretest.ReceiveAMQP[*wire.Attach](p.AMQPPeer)
	if got.SndSettleMode == nil || *got.SndSettleMode != wire.SndSettled {
		p.T.Fatalf("the answering attach has snd-settle-mode %v", got.SndSettleMode)
	}
	p.Send(channel, &wire.Flow{IncomingWindow: 5000, NextIncomingID: uint32p(0), OutgoingWindow: 1000, NextOutgoingID: p.deliveries, Handle: &handle, DeliveryCount: uint32p(0), LinkCredit: uint32p(5000)})
}

func putToken(messageID any, token string) *wire.Message {
	return &wire.Message{
		Properties:            &wire.Properties{MessageID: messageID},
		ApplicationProperties: wire.Map{{Key: "operation", Value: "put-token"}, {Key: "type", Value: "servicebus.windows.net:sastoken"}, {Key: "name", Value: "anything"}},
		Value:                 token,
		HasValue:              true,
	}
}

// put sends a request and returns the answer, which has to come behind the
// disposition of the request.
func (p *cbsPeer) put(m *wire.Message) *wire.Message {
	p.T.Helper()
	id := p.deliveries
	p.deliveries++
	p.SendMessage(0, &wire.Transfer{Handle: 0, DeliveryID: &id, DeliveryTag: []byte{byte(id)}}, m)
	settled, _ := wiretest.ReceiveAMQP[*wire.Disposition](p.AMQPPeer)
	settled.Last = nil // or the same
	if diff := cmp.Diff(&wire.Disposition{Role: wire.Receiver, First: id, Settled: true, State: wire.Accepted{}}, settled); diff != "" {
		p.T.Errorf("the request is settled by (-want +got):\n%s", diff)
	}
	reply, _ := p.reply()
	return reply
}

func (p *cbsPeer) reply() (m *wire.Message, handle uint32) {
	p.T.Helper()
	transfer, frame := wiretest.ReceiveAMQP[*wire.Transfer](p.AMQPPeer)
	if transfer.Settled == nil || !*transfer.Settled {
		p.T.Error("the answer is not settled, as the link asked for")
	}
	m, err := wire.DecodeMessage(frame.Payload)
	if err != nil {
		p.T.Fatal(err)
	}
	return m, transfer.Handle
}

// statusOf is the status of an answer, which has to be an int.
func statusOf(t testing.TB, m *wire.Message) int32 {
	t.Helper()
	status, ok := m.ApplicationProperties.Get("status-code").(int32)
	if description, isText := m.ApplicationProperties.Get("status-description").(string); !ok || !isText || description == "" {
		t.Errorf("the answer says %v", m.ApplicationProperties)
	}
	return status
}

func serviceToken(t testing.TB, h *hubtest.Hub, policy string) string {
	return wiretest.Sign(t, h.HostName, policy, h.Policy(policy).SharedAccessKey, h.Now().Add(time.Hour))
}

// An answer has the message id of the request, in the type it has there: uamqp
// has a ulong, Java and Python a uuid, Node and Go a string, and one client none.
func TestCBSKeepsTheTypeOfTheID(t *testing.T) {
	h := hubtest.New(t)
	p := newCBSPeer(t, h, "cbs")
	token := serviceToken(t, h, "service")
	for _, id := range []any{uint64(0), uint64(7), wire.UUID{1, 2, 3}, "text", []byte{1, 2}, nil} {
		m := p.put(putToken(id, token))
		if status := statusOf(t, m); status != 200 {
			t.Errorf("a token is answered with %d, want 200", status)
		}
		var got any
		if m.Properties != nil {
			got = m.Properties.CorrelationID
		}
		if diff := cmp.Diff(id, got); diff != "" {
			t.Errorf("the correlation id (-want +got):\n%s", diff)
		}
	}
}

func TestCBSRefuses(t *testing.T) {
	now := clock.New()
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Clock: now}))
	d1, later := h.Device("d1"), h.Now().Add(time.Hour)
	service := h.Policy("service").SharedAccessKey
	with := func(change func(*wire.Message)) *wire.Message {
		m := putToken("1", serviceToken(t, h, "service"))
		change(m)
		return m
	}
	set := func(name string, value any) func(*wire.Message) {
		return func(m *wire.Message) {
			for i := range m.ApplicationProperties {
				if m.ApplicationProperties[i].Key == name {
					m.ApplicationProperties[i].Value = value
				}
			}
		}
	}
	token := func(text string) *wire.Message { return putToken("1", text) }
	p := newCBSPeer(t, h, "cbs")
	for _, tt := range []struct {
		name    string
		request *wire.Message
		want    int32
	}{
		{"no properties", &wire.Message{}, 400},
		{"another operation", with(set("operation", "delete-token")), 400},
		{"an operation that is no text", with(set("operation", int32(1))), 400},
		{"another type", with(set("type", "amqp:swt")), 400},
		{"no body", with(func(m *wire.Message) { m.Value, m.HasValue = nil, false }), 400},
		{"an empty token", token(""), 400},
		{"a body that is no text", with(func(m *wire.Message) { m.Value = []byte("SharedAccessSignature ") }), 400},
		{"what is no token", token("hello"), 400},
		{"what is not quite a token", token("SharedAccessSignature sr=localhost"), 401},
		{"the key of another policy", token(wiretest.Sign(t, h.HostName, "iothubowner", service, later)), 401},
		{"a policy that is not there", token(wiretest.Sign(t, h.HostName, "nobody", service, later)), 401},
		{"an expired token", token(wiretest.Sign(t, h.HostName, "service", service, h.Now().Add(-6*time.Minute))), 401},
		{"another host", token(wiretest.Sign(t, "other.example.com", "service", service, later)), 401},
		{"a device that is not there", token(wiretest.Sign(t, h.HostName+"/devices/nobody", "", d1.SharedAccessKey, later)), 401},
		{"the key of another device", token(wiretest.Sign(t, h.HostName+"/devices/d1", "", h.Device("d2").SharedAccessKey, later)), 401},
		{"a policy without DeviceConnect, for a device", token(wiretest.Sign(t, h.HostName+"/devices/d1", "service", service, later)), 401},
		{"a device's key for an event hub", token(wiretest.Sign(t, "sb://"+h.HostName+"/"+h.EventHub().EntityPath, "", d1.SharedAccessKey, later)), 401},
		{"another event hub", token(signText(t, "sb://"+h.HostName+"/other", "service", service, later)), 404},
		{"Entra ID, which is not configured", with(func(m *wire.Message) { set("type", "jwt")(m); m.Value = "a.b.c" }), 401},
		{"a token that is too long", token("SharedAccessSignature " + strings.Repeat("x", 17<<10)), 401},
		{"in any case", with(func(m *wire.Message) {
			set("operation", "PUT-TOKEN")(m)
			set("type", "ServiceBus.Windows.Net:SasToken")(m)
		}), 200},
		{"a policy's for a device", token(wiretest.Sign(t, h.HostName+"/devices/d1", "device", h.Policy("device").SharedAccessKey, later)), 200},
	} {
		if got := statusOf(t, p.put(tt.request)); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// An answer comes on the link that the request names, and where it names none,
// as "cbs" does, on that of its own session.
func TestCBSAnswersOnTheRightLink(t *testing.T) {
	h := hubtest.New(t)
	p := newCBSPeer(t, h, "first")
	p.Send(0, &wire.Attach{Name: "cbs-second", Handle: 2, Role: wire.Receiver, SndSettleMode: uint8p(wire.SndSettled), Source: &wire.Source{Address: "$cbs"}, Target: &wire.Target{Address: "second"}})
	wiretest.ReceiveAMQP[*wire.Attach](p.AMQPPeer)
	p.Send(0, &wire.Flow{IncomingWindow: 1000, OutgoingWindow: 1000, Handle: uint32p(2), DeliveryCount: uint32p(0), LinkCredit: uint32p(100)})
	p.Send(1, &wire.Begin{IncomingWindow: 1000, OutgoingWindow: 1000, HandleMax: 100})
	wiretest.ReceiveAMQP[*wire.Begin](p.AMQPPeer)
	p.Send(1, &wire.Attach{Name: "cbs-other", Handle: 0, Role: wire.Receiver, SndSettleMode: uint8p(wire.SndSettled), Source: &wire.Source{Address: "$cbs"}, Target: &wire.Target{Address: "third"}})
	wiretest.ReceiveAMQP[*wire.Attach](p.AMQPPeer)
	p.Send(1, &wire.Flow{IncomingWindow: 1000, OutgoingWindow: 1000, Handle: uint32p(0), DeliveryCount: uint32p(0), LinkCredit: uint32p(100)})
	token := serviceToken(t, h, "service")
	for replyTo, want := range map[string][2]int{"first": {0, 1}, "second": {0, 2}, "third": {1, 0}, "cbs": {0, 2}, "": {0, 2}} {
		m := putToken("1", token)
		m.Properties.ReplyTo = replyTo
		id := p.deliveries
		p.deliveries++
		p.SendMessage(0, &wire.Transfer{Handle: 0, DeliveryID: &id, DeliveryTag: []byte{byte(id)}}, m)
		wiretest.ReceiveAMQP[*wire.Disposition](p.AMQPPeer)
		transfer, frame := wiretest.ReceiveAMQP[*wire.Transfer](p.AMQPPeer)
		if got := [2]int{int(frame.Channel), int(transfer.Handle)}; replyTo != "cbs" && replyTo != "" && got != want || got[0] != want[0] {
			t.Errorf("to %q it is answered on channel and handle %v, want %v", replyTo, got, want)
		}
	}
}

// Who does not show who it is is told so, and has to go. A token that a device
// may have signed, but does not say which, shows nothing before a link stands on
// it.
func TestWhoShowsNothingHasToGo(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t)
	d1 := h.Device("d1")
	began := time.Now()
	nobody, forger, device := newCBSPeer(t, h, "cbs"), newCBSPeer(t, h, "cbs"), newCBSPeer(t, h, "cbs")
	if got := statusOf(t, nobody.put(putToken("1", "SharedAccessSignature x"))); got != 401 {
		t.Errorf("what is no token: %d, want 401", got)
	}
	for p, key := range map[*cbsPeer]sas.Key{forger: sas.NewKey(), device: d1.SharedAccessKey} {
		if got := statusOf(t, p.put(putToken("1", wiretest.Sign(t, h.HostName, "", key, h.Now().Add(time.Hour))))); got != 200 {
			t.Errorf("a token of nobody knows whom: %d, want 200", got)
		}
	}
	if got := tryAttach(forger.AMQPPeer, 5, "/devices/d1/messages/events", true); got != unauthorized {
		t.Errorf("the forger's link: %q, want %q", got, unauthorized)
	}
	if got := tryAttach(device.AMQPPeer, 5, "/devices/d1/messages/events", true); got != "" {
		t.Errorf("the device's link is refused: %q", got)
	}
	for _, p := range []*cbsPeer{nobody, forger} {
		p.WantClose(unauthorized)
	}
	if took := time.Since(began); took > 11*time.Second {
		t.Errorf("they were told after %v", took)
	}
	if got := tryAttach(device.AMQPPeer, 6, "/devices/d1/twin", true); got != "" {
		t.Errorf("the device's link, when the others have gone: %q", got)
	}
}

// A link ends when the token that it stands on has expired, and the connection
// when the last has; a new token in time keeps it.
func TestExpiryEndsLinks(t *testing.T) {
	now := clock.New()
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Clock: now}))
	key := h.Policy("service").SharedAccessKey
	sign := func(resource, policy string, key sas.Key, in time.Duration) string {
		return wiretest.Sign(t, resource, policy, key, h.Now().Add(in))
	}
	attachC2D := func(p *cbsPeer) {
		t.Helper()
		p.Send(0, &wire.Attach{Name: "c2d", Handle: 5, Role: wire.Sender, Source: &wire.Source{}, Target: &wire.Target{Address: "/messages/devicebound"}, InitialDeliveryCount: uint32p(0)})
		got, _ := wiretest.ReceiveAMQP[*wire.Attach](p.AMQPPeer)
		if got.Target == nil || got.Target.Address == nil {
			t.Fatalf("the link is refused: %+v", got)
		}
	}
	p := newCBSPeer(t, h, "cbs")
	if got := statusOf(t, p.put(putToken("1", sign(h.HostName, "service", key, time.Hour)))); got != 200 {
		t.Fatalf("put-token: %d", got)
	}
	attachC2D(p)
	now.Advance(time.Hour) // within the five minutes of skew
	if got := statusOf(t, p.put(putToken("2", sign(h.HostName, "service", key, time.Hour)))); got != 200 {
		t.Fatalf("renewal: %d", got)
	}
	now.Advance(64 * time.Minute) // the first one is over, the second is not
	d1 := h.Device("d1")
	if got := statusOf(t, p.put(putToken("3", sign(h.HostName+"/devices/d1", "", d1.SharedAccessKey, time.Hour)))); got != 200 {
		t.Fatalf("another token: %d", got)
	}
	now.Advance(2 * time.Minute)
	detached, _ := wiretest.ReceiveAMQP[*wire.Detach](p.AMQPPeer)
	if detached.Handle == 0 || detached.Error == nil || detached.Error.Condition != "amqp:unauthorized-access" {
		t.Fatalf("when the service's token is over: %+v", detached)
	}
	now.Advance(2 * time.Hour)
	p.WantClose("amqp:unauthorized-access")
}

// The number of claims on a connection is no limit for a client that has many
// devices, and renewing takes no room.
func TestManyClaims(t *testing.T) {
	h := hubtest.New(t)
	p := newCBSPeer(t, h, "cbs")
	for _, device := range []string{"a", "b", "c"} {
		cs := h.Device(device)
		for range 1000 / 3 {
			token := wiretest.Sign(t, h.HostName+"/devices/"+device, "", cs.SharedAccessKey, h.Now().Add(time.Hour))
			if got := statusOf(t, p.put(putToken("1", token))); got != 200 {
				t.Fatalf("put-token: %d", got)
			}
		}
	}
}

// What a peer may claim is bounded, and one that has claimed it all can still
// renew.
func TestClaimsAreBounded(t *testing.T) {
	h := hubtest.New(t)
	p := newCBSPeer(t, h, "cbs")
	key := h.Policy("service").SharedAccessKey
	token := func(i int) string {
		return wiretest.Sign(t, fmt.Sprintf("%s/messages/%d/%s", h.HostName, i, strings.Repeat("x", 15<<10)), "service", key, h.Now().Add(time.Hour))
	}
	taken := 0
	for ; taken < 1000; taken++ {
		got := statusOf(t, p.put(putToken("1", token(taken))))
		if got == 403 {
			break
		}
		if got != 200 {
			t.Fatalf("token %d: %d", taken, got)
		}
	}
	if taken < 200 || taken > 300 {
		t.Errorf("it may claim %d tokens of 15 KiB", taken)
	}
	if got := statusOf(t, p.put(putToken("1", token(0)))); got != 200 {
		t.Errorf("a renewal: %d, want 200", got)
	}
}
