package mqttdevice

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/sas"
)

const (
	testKey = "TT5ob9Ntspj4le0WvZE5ZSBQymQ1maN+qaqERaqDXvI="
	testHub = "hub.test"
)

// A peer is the hub's end of the wire, as far as a test scripts it. A real hub cannot be told to
// misbehave. It knows packets and nothing of IoT Hub.
type peer struct {
	t     testing.TB
	conns chan *peerConn
}

// A peerConn is one connection. It answers pings, and hands every other packet to the test.
type peerConn struct {
	t testing.TB
	net.Conn
	in chan packets.ControlPacket // closed when the client is gone

	mu   sync.Mutex
	mute bool // leave pings unanswered
}

func newPeer(t testing.TB) *peer {
	return &peer{t: t, conns: make(chan *peerConn, 16)}
}

// dial is for Client.dial: one end of a pipe for the client, the other for the test.
func (p *peer) dial(context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	p.begin(far)
	return pipe{near}, nil
}

type dialFunc func(context.Context) (net.Conn, error)

// dialling has c dial p, until the function it returns replaces that.
func (p *peer) dialling(c *Client) (replace func(dialFunc)) {
	var current atomic.Value
	current.Store(dialFunc(p.dial))
	c.dial = func(ctx context.Context) (net.Conn, error) { return current.Load().(dialFunc)(ctx) }
	return func(d dialFunc) { current.Store(d) }
}

func (p *peer) begin(far net.Conn) {
	c := &peerConn{t: p.t, Conn: far, in: make(chan packets.ControlPacket, 1024)}
	go c.read()
	p.conns <- c
}

// A pipe fails with the errors of a network connection.
type pipe struct{ net.Conn }

func (p pipe) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if err == io.ErrClosedPipe {
		err = net.ErrClosed
	}
	return n, err
}

func (c *peerConn) read() {
	defer close(c.in)
	defer c.Close()
	for {
		packet, err := packets.ReadPacket(c.Conn)
		if err != nil {
			return
		}
		if _, ok := packet.(*packets.PingreqPacket); ok {
			c.mu.Lock()
			mute := c.mute
			c.mu.Unlock()
			if !mute {
				c.send(&packets.PingrespPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Pingresp}})
			}
			continue
		}
		c.in <- packet
	}
}

func (c *peerConn) send(p packets.ControlPacket) {
	if err := p.Write(c.Conn); err != nil && !errors.Is(err, net.ErrClosed) {
		c.t.Logf("peer: %v", err)
	}
}

// publish sends a message at QoS 0.
func (c *peerConn) publish(topic, payload string) {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload = topic, []byte(payload)
	c.send(p)
}

// next returns the next packet, which must be a P.
func next[P packets.ControlPacket](c *peerConn) P {
	c.t.Helper()
	packet, ok := <-c.in
	if !ok {
		c.t.Fatalf("the client hung up, want %T", *new(P))
	}
	p, ok := packet.(P)
	if !ok {
		c.t.Fatalf("the client sent %v, want %T", packet, *new(P))
	}
	return p
}

// gone waits until the client has hung up, and fails on anything but DISCONNECT before that.
func (c *peerConn) gone() {
	c.t.Helper()
	for packet := range c.in {
		if _, ok := packet.(*packets.DisconnectPacket); !ok {
			c.t.Errorf("the client sent %v, want it to hang up", packet)
		}
	}
}

func (c *peerConn) connack(code byte) {
	ack := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	ack.ReturnCode = code
	c.send(ack)
}

func (c *peerConn) suback(s *packets.SubscribePacket, codes ...byte) {
	ack := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	ack.MessageID, ack.ReturnCodes = s.MessageID, codes
	c.send(ack)
}

func (c *peerConn) puback(p *packets.PublishPacket) {
	ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	ack.MessageID = p.MessageID
	c.send(ack)
}

// refuse takes the next connection and answers CONNECT with code.
func (p *peer) refuse(code byte) {
	p.t.Helper()
	c := <-p.conns
	next[*packets.ConnectPacket](c)
	c.connack(code)
	c.gone()
}

// accept takes the next connection up to SUBACK.
func (p *peer) accept() *peerConn {
	p.t.Helper()
	c := <-p.conns
	next[*packets.ConnectPacket](c)
	c.connack(packets.Accepted)
	c.suback(next[*packets.SubscribePacket](c), 0, 0, 0)
	return c
}

// answerTwin answers the next packet, which must be a GET for the twin.
func (c *peerConn) answerTwin(body string) {
	c.t.Helper()
	get := next[*packets.PublishPacket](c)
	rid, ok := strings.CutPrefix(get.TopicName, "$iothub/twin/GET/?$rid=")
	if !ok {
		c.t.Fatalf("the client published %s, want a GET for the twin", get.TopicName)
	}
	c.publish("$iothub/twin/res/200/?$rid="+rid, body)
}

// device returns a client of p, with a key. The test closes it.
func device(t testing.TB, p *peer, opt Options) (*Client, *states) {
	t.Helper()
	if opt.ConnectionString.DeviceID == "" {
		opt.ConnectionString = sas.ConnectionString{HostName: testHub, DeviceID: "dev-1", SharedAccessKey: testKey}
	}
	events := &states{ch: make(chan State, 1024)}
	opt.OnState = func(s State) { events.ch <- s }
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	if p != nil {
		c.dial = p.dial
	}
	return c, events
}

// connected returns a client that is connected, and the peer's end of the connection.
func connected(t testing.TB, p *peer, prepare func(*Client)) (*Client, *peerConn, *states) {
	t.Helper()
	c, events := device(t, p, Options{})
	if prepare != nil {
		prepare(c)
	}
	result := make(chan error, 1)
	go func() { result <- c.Connect(t.Context()) }()
	conn := p.accept()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	return c, conn, events
}

// states collects events.
type states struct{ ch chan State }

// await returns the next event with the given status.
func (s *states) await(want Status) State {
	for got := range s.ch {
		if got.Status == want {
			return got
		}
	}
	return State{}
}
