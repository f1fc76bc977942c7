package amqp

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/mqtt"
)

var d2 = hub.ID{Device: "d2"}

func eventsOf(id hub.ID) string { return "/devices/" + id.Device + "/messages/events" }

// connected waits until an identity is connected, or no longer.
func connected(t testing.TB, h *testHub, id hub.ID, want bool) {
	t.Helper()
	late := time.After(10 * time.Second)
	for h.ConnectionState(id).Connected != want {
		select {
		case <-late:
			t.Fatalf("%s: connected is not %v", id, want)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestDeviceIsConnectedFromItsFirstLinkToItsLast(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	h.create(d2)
	p := h.dialAs(d1, d2)
	p.sync()
	connected(t, h, d1, false)
	first := p.attach(wire.Sender, eventsOf(d1))
	connected(t, h, d1, true)
	connected(t, h, d2, false)
	link := h.Link(d1)
	second := p.attach(wire.Receiver, messagesOfD1)
	p.detach(first)
	p.sync()
	if h.Link(d1) != link {
		t.Error("another link took its place")
	}
	p.detach(second)
	connected(t, h, d1, false)
	p.attach(wire.Sender, eventsOf(d1))
	p.attach(wire.Sender, eventsOf(d2))
	connected(t, h, d2, true)
	p.nc.Close()
	connected(t, h, d1, false)
	connected(t, h, d2, false)
}

func TestLinksOfDevicesThatAreRefused(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	h.create(d2)
	h.create(hub.ID{Device: "d1", Module: "m1"})
	p := h.dialAs(d1)
	for name, tt := range map[string]struct {
		role    wire.Role
		address string
		want    wire.Symbol
	}{
		"another device":        {wire.Sender, "/devices/d2/messages/events", condUnauthorized},
		"an unknown device":     {wire.Sender, "/devices/d3/messages/events", condUnauthorized},
		"a module of another":   {wire.Sender, "/devices/d2/modules/m1/messages/events", condUnauthorized},
		"an unknown address":    {wire.Sender, "/devices/d1/nothing", condNotFound},
		"events to receive":     {wire.Receiver, "/devices/d1/messages/events", condNotFound},
		"messages to send":      {wire.Sender, "/devices/d1/messages/devicebound", condNotFound},
		"a service's messages":  {wire.Sender, "/messages/devicebound", condUnauthorized},
		"a service's feedback":  {wire.Receiver, "/messages/servicebound/feedback", condUnauthorized},
		"the events of the hub": {wire.Receiver, EventHubName + "/ConsumerGroups/$Default/Partitions/0", condUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			p.t = t
			p.refused(p.attach(tt.role, tt.address), tt.want)
		})
	}
	p.t = t
	p.attach(wire.Sender, eventsOf(d1)) // the connection lives on
}

func TestTooManyLinksOfADevice(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	h.create(d2)
	p := h.dialAs(d1, d2)
	var first *peerLink
	for i := range maxDeviceLinks {
		l := p.attach(wire.Receiver, messagesOfD1, func(a *wire.Attach) { a.Name = fmt.Sprint(i) })
		if first == nil {
			first = l
		}
	}
	p.refused(p.attach(wire.Sender, eventsOf(d1)), condLimit)
	p.attach(wire.Sender, eventsOf(d2))
	p.detach(first)
	p.attach(wire.Sender, eventsOf(d1))
}

// The SDK for C logs an error about each link that does not.
func TestLinksSayTheirLargestMessage(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	for _, l := range []*peerLink{
		p.cbs, p.cbsIn, p.attach(wire.Sender, eventsOf(d1)), p.attach(wire.Receiver, messagesOfD1),
		p.attach(wire.Sender, "/devices/d1/twin"), p.attach(wire.Receiver, "/devices/d1/twin"),
	} {
		if l.answer.MaxMessageSize == nil {
			t.Errorf("link %q to %v of %v: none", l.name, l.answer.Target.Address, l.answer.Source.Address)
		}
	}
}

func TestAddressesOfDevices(t *testing.T) {
	h := newTestHub(t)
	id := hub.ID{Device: "d@%#1", Module: "m+?"}
	h.create(hub.ID{Device: id.Device})
	h.create(id)
	p := h.dial()
	p.putToken(h.token(id, time.Hour))
	for i, address := range []string{
		"/devices/d@%#1/modules/m+?/messages/events",
		"devices/d%40%25%231/modules/m%2B%3F/messages/events",
		"amqps://localhost/devices/d%40%25%231/modules/m%2B%3f/Messages/Events/",
	} {
		l := p.attach(wire.Sender, address)
		if got := l.answer.Target.Address; got != address {
			t.Errorf("%q is echoed as %q", address, got)
		}
		p.accepted(p.transfer(l, &wire.Message{Data: [][]byte{[]byte("x")}}))
		if got := len(telemetryOf(t, h, id.Device)); got != i+1 {
			t.Errorf("%q: %d messages, want %d", address, got, i+1)
		}
	}
}

func TestTakeoverBetweenConnections(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	h.create(d2)
	p := h.dialAs(d1, d2)
	of1, of2 := p.attach(wire.Sender, eventsOf(d1)), p.attach(wire.Sender, eventsOf(d2))
	q := h.dialAs(d1)
	q.attach(wire.Sender, eventsOf(d1))
	p.wantDetached(of1, condStolen)
	p.accepted(p.transfer(of2, &wire.Message{Data: [][]byte{[]byte("x")}})) // the other one's goes on
	// The first one wants it back.
	of1 = p.attach(wire.Sender, eventsOf(d1))
	p.accepted(p.transfer(of1, &wire.Message{Data: [][]byte{[]byte("x")}}))
	q.wantClosed(condStolen) // it was the only one there
	p.accepted(p.transfer(of2, &wire.Message{Data: [][]byte{[]byte("x")}}))
}

// A device that has a session of its own, as with Java's client, has that ended.
func TestTakeoverFromASession(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	h.create(d2)
	p := h.dialAs(d1, d2)
	of2 := p.attach(wire.Sender, eventsOf(d2))
	p.channel = 1
	p.send(&wire.Begin{IncomingWindow: 100, OutgoingWindow: 100, HandleMax: 255}, nil)
	p.attach(wire.Sender, eventsOf(d1))
	p.attach(wire.Receiver, messagesOfD1)
	h.dialAs(d1).attach(wire.Sender, eventsOf(d1))
	if end, _ := await[*wire.End](p, nil); end.Error == nil || end.Error.Condition != condStolen {
		t.Errorf("the session is ended with %v", end.Error)
	}
	p.send(&wire.End{}, nil)
	p.channel = 0
	p.accepted(p.transfer(of2, &wire.Message{Data: [][]byte{[]byte("x")}}))
	for _, f := range p.seen {
		if _, ok := f.Body.(*wire.Detach); ok {
			t.Errorf("%+v", f.Body)
		}
	}
}

// mqttConnect connects d1 over MQTT to a door of its own.
func mqttConnect(t *testing.T, h *testHub) net.Conn {
	t.Helper()
	door := mqtt.New(h.Server, mqtt.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { door.Serve(l) })
	t.Cleanup(func() {
		h.Stop()
		door.Close()
		serving.Wait()
	})
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	connect := &packets.ConnectPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Connect}, ProtocolName: "MQTT", ProtocolVersion: 4, CleanSession: true,
		ClientIdentifier: "d1", UsernameFlag: true, Username: "localhost/d1/?api-version=2021-04-12", PasswordFlag: true, Password: []byte(h.token(d1, time.Hour))}
	if err := connect.Write(nc); err != nil {
		t.Fatal(err)
	}
	if p, err := packets.ReadPacket(nc); err != nil || p.(*packets.ConnackPacket).ReturnCode != 0 {
		t.Fatalf("CONNACK %v, %v", p, err)
	}
	return nc
}

func TestTakeoverBetweenDoors(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dialAs(d1)
	p.attach(wire.Sender, eventsOf(d1))
	nc := mqttConnect(t, h)
	p.wantClosed(condStolen)
	connected(t, h, d1, true)
	h.dialAs(d1).attach(wire.Sender, eventsOf(d1))
	nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	if p, err := packets.ReadPacket(nc); err == nil {
		t.Errorf("MQTT got %v, want the end of the connection", p)
	}
	connected(t, h, d1, true)
}

func TestCredentialsThatNoLongerHold(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, h *testHub){
		"the device is disabled": func(t *testing.T, h *testHub) {
			if _, err := h.PutIdentity(d1, hub.IdentitySpec{Status: hub.StatusDisabled}, hub.Match{Any: true}); err != nil {
				t.Error(err)
			}
		},
		"the device is deleted": func(t *testing.T, h *testHub) {
			if err := h.DeleteIdentity(d1, hub.Match{}); err != nil {
				t.Error(err)
			}
		},
		"its keys change": func(t *testing.T, h *testHub) {
			if _, err := h.PutIdentity(d1, hub.IdentitySpec{Auth: hub.Authentication{Type: hub.AuthSAS, SymmetricKey: hub.SymmetricKey{Primary: testKey, Secondary: testKey}}}, hub.Match{Any: true}); err != nil {
				t.Error(err)
			}
		},
		"its token expires": func(t *testing.T, h *testHub) { h.clock.Advance(time.Hour + 6*time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHub(t)
			h.create(d1)
			h.create(d2)
			p := h.dialAs(d1)
			p.attach(wire.Sender, eventsOf(d1))
			end(t, h)
			p.wantClosed(condUnauthorized)
			connected(t, h, d1, false)
		})
		t.Run(name+", another device on the connection", func(t *testing.T) {
			h := newTestHub(t)
			h.create(d1)
			h.create(d2)
			p := h.dialAs(d1)
			p.putToken(h.token(d2, 24*time.Hour))
			of1, of2 := p.attach(wire.Sender, eventsOf(d1)), p.attach(wire.Sender, eventsOf(d2))
			end(t, h)
			p.wantDetached(of1, condUnauthorized)
			p.accepted(p.transfer(of2, &wire.Message{Data: [][]byte{[]byte("x")}}))
			connected(t, h, d1, false)
			p.refused(p.attach(wire.Sender, eventsOf(d1)), condUnauthorized)
		})
	}
}

func TestRenewedTokenGoesOn(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	p := h.dial()
	p.putToken(h.token(d1, time.Minute))
	l := p.attach(wire.Sender, eventsOf(d1))
	p.putToken(h.token(d1, time.Hour))
	h.clock.Advance(30 * time.Minute) // past the first
	p.accepted(p.transfer(l, &wire.Message{Data: [][]byte{[]byte("x")}}))
	h.clock.Advance(time.Hour)
	p.wantClosed(condUnauthorized)
}

// A token that expires while the clock is not moved ends the device too.
func TestTokenExpires(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	h.create(d2)
	p := h.dialAs(d2)
	p.putToken(h.token(d1, -5*time.Minute+3*time.Second))
	l := p.attach(wire.Sender, eventsOf(d1))
	p.attach(wire.Sender, eventsOf(d2))
	p.wantDetached(l, condUnauthorized)
	connected(t, h, d1, false)
}

func TestHubCloses(t *testing.T) {
	h := newTestHub(t)
	h.create(d1)
	h.create(d2)
	p := h.dialAs(d1, d2)
	p.attach(wire.Sender, eventsOf(d1))
	p.attach(wire.Sender, eventsOf(d2))
	h.Stop()
	p.wantClosed(condForced)
}

func TestThousandDevicesOnOneConnection(t *testing.T) {
	const count = 1000
	h := newTestHub(t)
	p := h.dial()
	outs, ins := make([]*peerLink, count), make([]*peerLink, count)
	for i := range count {
		id := hub.ID{Device: fmt.Sprint("d", i)}
		h.create(id)
		p.putToken(h.token(id, time.Hour))
		outs[i], ins[i] = p.attach(wire.Sender, eventsOf(id)), p.attach(wire.Receiver, "/devices/"+id.Device+"/messages/devicebound")
		p.flow(ins[i], 1)
	}
	if got := h.ConnectedDevices(); got != count {
		t.Fatalf("%d devices are connected, want %d", got, count)
	}
	for i := range count {
		if err := h.SendMessage(fmt.Sprint("d", i), hub.Message{Body: []byte(fmt.Sprint(i))}); err != nil {
			t.Fatal(err)
		}
		p.accepted(p.transfer(outs[i], &wire.Message{Data: [][]byte{[]byte("x")}}))
	}
	for i := range count {
		got := p.receive(ins[i])
		if got.body() != fmt.Sprint(i) {
			t.Fatalf("device %d got %s", i, got.body())
		}
		p.settle(got, true, wire.Accepted{})
	}
	for i := range count {
		for id := (hub.ID{Device: fmt.Sprint("d", i)}); h.ConnectionState(id).PendingMessages > 0; {
			p.sync()
		}
	}
	p.nc.Close()
	for i := range count {
		connected(t, h, hub.ID{Device: fmt.Sprint("d", i)}, false)
	}
}
