package amqp

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/sas"
)

// testHub is a hub with its AMQP door on a port of the loopback interface.
type testHub struct {
	t testing.TB
	*hub.Server
	door  *Door
	addr  string
	clock *clock.Clock
}

func newTestHub(t testing.TB) *testHub {
	t.Helper()
	db, err := store.OpenMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	events, err := eventlog.OpenMemory(eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Close() })
	moved := clock.New()
	s, err := hub.New(hub.Options{Store: db, Events: events, Clock: moved, Policies: []hub.Policy{
		{Name: "device", PrimaryKey: testKey, SecondaryKey: testKey, Rights: []hub.Right{hub.DeviceConnect}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	d := New(s, Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- d.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		d.Close()
		<-served
	})
	return &testHub{t: t, Server: s, door: d, addr: l.Addr().String(), clock: moved}
}

const testKey sas.Key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// create registers an identity.
func (h *testHub) create(id hub.ID) {
	h.t.Helper()
	if _, err := h.PutIdentity(id, hub.IdentitySpec{}, hub.Match{}); err != nil {
		h.t.Fatal(err)
	}
}

// token signs for an identity with its own key.
func (h *testHub) token(id hub.ID, life time.Duration) string {
	h.t.Helper()
	i, err := h.Identity(id)
	if err != nil {
		h.t.Fatal(err)
	}
	resource := "localhost/devices/" + id.Device
	if id.Module != "" {
		resource += "/modules/" + id.Module
	}
	token, err := sas.Sign(resource, "", i.Auth.SymmetricKey.Primary, h.Now().Add(life))
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}

// A devicePeer is a client made by hand: it sends performatives, and looks for
// those it expects among what comes.
type devicePeer struct {
	t      testing.TB
	hub    *testHub
	nc     net.Conn
	frames chan wire.Frame // closed when the connection has ended
	seen   []wire.Frame    // that nobody has looked for yet

	incoming   atomic.Uint32 // transfers that have come
	channel    uint16
	handles    uint32
	delivery   uint32
	cbs, cbsIn *peerLink
}

// A peerLink is a link of a devicePeer.
type peerLink struct {
	name           string
	role           wire.Role
	handle, remote uint32
	answer         *wire.Attach
}

// dial connects, without a word about who it is.
func (h *testHub) dial() *devicePeer {
	h.t.Helper()
	nc, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	p := &devicePeer{t: h.t, hub: h, nc: nc, frames: make(chan wire.Frame, 10_000)}
	h.t.Cleanup(func() { nc.Close() })
	p.write([]byte(wire.HeaderAMQP))
	p.send(&wire.Open{ContainerID: "peer", Hostname: "localhost", MaxFrameSize: 65536, ChannelMax: 65535}, nil)
	p.send(&wire.Begin{IncomingWindow: 100_000, OutgoingWindow: 100_000, HandleMax: 65535}, nil)
	go p.read()
	await[*wire.Begin](p, nil)
	return p
}

// dialAs connects as identities that have proved who they are.
func (h *testHub) dialAs(ids ...hub.ID) *devicePeer {
	h.t.Helper()
	p := h.dial()
	for _, id := range ids {
		p.putToken(h.token(id, time.Hour))
	}
	return p
}

func (p *devicePeer) read() {
	defer close(p.frames)
	header := make([]byte, 8)
	if _, err := io.ReadFull(p.nc, header); err != nil {
		return
	}
	for {
		b := make([]byte, 4)
		if _, err := io.ReadFull(p.nc, b); err != nil {
			return
		}
		b = append(b, make([]byte, binary.BigEndian.Uint32(b)-4)...)
		if _, err := io.ReadFull(p.nc, b[4:]); err != nil {
			return
		}
		f, err := wire.DecodeFrame(b)
		if err != nil {
			p.t.Errorf("the hub sent %x: %v", b, err)
			return
		}
		if _, ok := f.Body.(*wire.Transfer); ok {
			p.incoming.Add(1)
		}
		p.frames <- f
	}
}

func (p *devicePeer) write(b []byte) {
	p.t.Helper()
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *devicePeer) send(body wire.Performative, payload []byte) {
	p.t.Helper()
	p.write(wire.AppendFrame(nil, p.channel, body, payload))
}

// next returns the next frame, nil if the connection has ended.
func (p *devicePeer) next() *wire.Frame {
	p.t.Helper()
	select {
	case f, ok := <-p.frames:
		if !ok {
			return nil
		}
		return &f
	case <-time.After(20 * time.Second):
		p.t.Fatal("nothing comes from the hub")
		return nil
	}
}

// await returns the first performative of its type that matches, with its
// payload.
func await[T wire.Performative](p *devicePeer, match func(T) bool) (T, []byte) {
	p.t.Helper()
	for i := 0; ; i++ {
		if i == len(p.seen) {
			f := p.next()
			if f == nil {
				var none T
				p.t.Fatalf("the connection ended, and no %T came", none)
			}
			p.seen = append(p.seen, *f)
		}
		if body, ok := p.seen[i].Body.(T); ok && (match == nil || match(body)) {
			payload := p.seen[i].Payload
			p.seen = slices.Delete(p.seen, i, i+1)
			return body, payload
		}
	}
}

// wantClosed wants the hub to close the connection with a condition.
func (p *devicePeer) wantClosed(condition wire.Symbol) {
	p.t.Helper()
	c, _ := await[*wire.Close](p, nil)
	if c.Error == nil || c.Error.Condition != condition {
		p.t.Errorf("closed with %v, want %s", c.Error, condition)
	}
	p.send(&wire.Close{}, nil)
	for p.next() != nil {
	}
}

// attach attaches a link with the address, and what else change sets.
func (p *devicePeer) attach(role wire.Role, address string, change ...func(*wire.Attach)) *peerLink {
	p.t.Helper()
	l := &peerLink{name: string(rune('a'+p.handles%26)) + address, role: role, handle: p.handles}
	p.handles++
	a := &wire.Attach{Name: l.name, Handle: l.handle, Role: role, Source: &wire.Source{}, Target: &wire.Target{}}
	if role == wire.Sender {
		a.Target.Address = address
		a.InitialDeliveryCount = new(uint32)
	} else {
		a.Source.Address = address
	}
	for _, f := range change {
		f(a)
	}
	l.name = a.Name
	p.send(a, nil)
	l.answer, _ = await(p, func(a *wire.Attach) bool { return a.Name == l.name })
	l.remote = l.answer.Handle
	if role == wire.Sender && l.answer.Target != nil {
		await(p, func(f *wire.Flow) bool { return f.Handle != nil && *f.Handle == l.remote })
	}
	return l
}

// refused wants the link to be refused with a condition.
func (p *devicePeer) refused(l *peerLink, condition wire.Symbol) {
	p.t.Helper()
	if l.role == wire.Sender && l.answer.Target != nil || l.role == wire.Receiver && l.answer.Source != nil {
		p.t.Error("the refusal has a terminus on the hub's side")
	}
	p.wantDetached(l, condition)
}

// wantDetached wants the hub to detach a link.
func (p *devicePeer) wantDetached(l *peerLink, condition wire.Symbol) {
	p.t.Helper()
	d, _ := await(p, func(d *wire.Detach) bool { return d.Handle == l.remote })
	if !d.Closed || d.Error == nil || d.Error.Condition != condition {
		p.t.Errorf("%s: detached with %+v, want %s", l.name, d.Error, condition)
	}
	p.send(&wire.Detach{Handle: l.handle, Closed: true}, nil)
}

// detach detaches a link and waits for the answer.
func (p *devicePeer) detach(l *peerLink) {
	p.t.Helper()
	p.send(&wire.Detach{Handle: l.handle, Closed: true}, nil)
	await(p, func(d *wire.Detach) bool { return d.Handle == l.remote })
}

// flow gives the hub credit.
func (p *devicePeer) flow(l *peerLink, credit uint32) {
	p.t.Helper()
	next, count := p.incoming.Load(), uint32(0)
	p.send(&wire.Flow{NextIncomingID: &next, IncomingWindow: 100_000, NextOutgoingID: p.delivery, OutgoingWindow: 100_000, Handle: &l.handle, DeliveryCount: &count, LinkCredit: &credit}, nil)
}

// transfer sends a message and returns the id of its delivery.
func (p *devicePeer) transfer(l *peerLink, m *wire.Message, change ...func(*wire.Transfer)) uint32 {
	p.t.Helper()
	return p.transferRaw(l, wire.AppendMessage(nil, m), change...)
}

func (p *devicePeer) transferRaw(l *peerLink, payload []byte, change ...func(*wire.Transfer)) uint32 {
	p.t.Helper()
	id, settled := p.delivery, false
	p.delivery++
	t := &wire.Transfer{Handle: l.handle, DeliveryID: &id, DeliveryTag: binary.BigEndian.AppendUint32(nil, id), MessageFormat: new(uint32), Settled: &settled}
	for _, f := range change {
		f(t)
	}
	for len(payload) > 60_000 {
		part := *t
		part.More = true
		p.send(&part, payload[:60_000])
		payload = payload[60_000:]
	}
	p.send(t, payload)
	return id
}

// outcome waits until the hub has settled a delivery and returns its state.
func (p *devicePeer) outcome(id uint32) wire.State {
	p.t.Helper()
	d, _ := await(p, func(d *wire.Disposition) bool {
		last := d.First
		if d.Last != nil {
			last = *d.Last
		}
		return d.Role == wire.Receiver && d.First <= id && id <= last
	})
	if !d.Settled {
		p.t.Errorf("delivery %d: %+v, which is not settled", id, d)
	}
	if d.Last != nil && *d.Last > id {
		again := *d
		again.First = id + 1
		p.seen = slices.Insert(p.seen, 0, wire.Frame{Body: &again})
	}
	return d.State
}

// accepted wants the hub to accept a delivery.
func (p *devicePeer) accepted(id uint32) {
	p.t.Helper()
	if s := p.outcome(id); s != (wire.Accepted{}) {
		p.t.Errorf("delivery %d: %#v, want accepted", id, s)
	}
}

// rejected wants the hub to reject a delivery with a condition.
func (p *devicePeer) rejected(id uint32, condition wire.Symbol) {
	p.t.Helper()
	r, ok := p.outcome(id).(*wire.Rejected)
	if !ok || r.Error == nil || r.Error.Condition != condition {
		p.t.Errorf("delivery %d: %+v, want %s", id, r, condition)
	}
}

// A received is a message that the hub has sent.
type received struct {
	*wire.Transfer
	*wire.Message
}

func (r received) body() string {
	var b []byte
	for _, d := range r.Data {
		b = append(b, d...)
	}
	return string(b)
}

// receive waits for a message on a link.
func (p *devicePeer) receive(l *peerLink) received {
	p.t.Helper()
	t, payload := await(p, func(t *wire.Transfer) bool { return t.Handle == l.remote })
	m, err := wire.DecodeMessage(payload)
	if err != nil {
		p.t.Fatalf("the hub's message %x: %v", payload, err)
	}
	return received{t, m}
}

// none wants nothing to have come on a link so far.
func (p *devicePeer) none(l *peerLink) {
	p.t.Helper()
	p.sync()
	for _, f := range p.seen {
		if t, ok := f.Body.(*wire.Transfer); ok && t.Handle == l.remote {
			p.t.Errorf("%s: the hub sent a message", l.name)
		}
	}
}

// sync returns when the hub has read all that was sent to it.
func (p *devicePeer) sync() {
	p.t.Helper()
	next := p.incoming.Load()
	p.send(&wire.Flow{NextIncomingID: &next, IncomingWindow: 100_000, NextOutgoingID: p.delivery, OutgoingWindow: 100_000, Echo: true}, nil)
	await(p, func(f *wire.Flow) bool { return f.Handle == nil })
}

// settle says what became of a delivery of the hub's.
func (p *devicePeer) settle(r received, settled bool, s wire.State) {
	p.t.Helper()
	p.send(&wire.Disposition{Role: wire.Receiver, First: *r.DeliveryID, Settled: settled, State: s}, nil)
}

// putToken claims an identity by CBS.
func (p *devicePeer) putToken(token string) {
	p.t.Helper()
	if status := p.putTokenStatus(token); status != 200 {
		p.t.Fatalf("put-token: %d", status)
	}
}

func (p *devicePeer) putTokenStatus(token string) int32 {
	p.t.Helper()
	if p.cbs == nil {
		p.cbs = p.attach(wire.Sender, "$cbs")
		p.cbsIn = p.attach(wire.Receiver, "$cbs")
		p.flow(p.cbsIn, 10_000)
	}
	id := p.transfer(p.cbs, &wire.Message{
		Properties: &wire.Properties{MessageID: "1", To: "$cbs", ReplyTo: "cbs"},
		ApplicationProperties: wire.Map{
			{Key: "operation", Value: "put-token"}, {Key: "type", Value: "servicebus.windows.net:sastoken"}, {Key: "name", Value: "localhost"},
		},
		HasValue: true, Value: token,
	})
	p.accepted(id)
	status, _ := p.receive(p.cbsIn).ApplicationProperties.Get("status-code").(int32)
	return status
}
