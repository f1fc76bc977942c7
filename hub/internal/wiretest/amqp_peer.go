package wiretest

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// An AMQPPeer writes and reads AMQP frames of its own, whether they make sense or
// not. Its methods end the test when something goes wrong, and are for one
// goroutine.
type AMQPPeer struct {
	T testing.TB // the test to end
	net.Conn
}

// NewAMQPPeer returns a peer on a connection, which it closes with the test.
func NewAMQPPeer(t testing.TB, nc net.Conn) *AMQPPeer {
	t.Cleanup(func() { nc.Close() })
	return &AMQPPeer{T: t, Conn: nc}
}

// Send sends frames on a channel, SASL ones as such.
func (p *AMQPPeer) Send(channel uint16, bodies ...wire.Performative) {
	p.T.Helper()
	var b []byte
	for _, body := range bodies {
		b = AppendAMQPFrame(b, channel, body, nil)
	}
	p.SendBytes(b)
}

// AppendAMQPFrame appends a frame, a SASL frame if the body is of one.
func AppendAMQPFrame(b []byte, channel uint16, body wire.Performative, payload []byte) []byte {
	switch body.(type) {
	case *wire.SASLMechanisms, *wire.SASLInit, *wire.SASLChallenge, *wire.SASLResponse, *wire.SASLOutcome:
		return wire.AppendSASL(b, body)
	}
	return wire.AppendFrame(b, channel, body, payload)
}

// SendMessage sends a transfer with a message.
func (p *AMQPPeer) SendMessage(channel uint16, body *wire.Transfer, m *wire.Message) {
	p.T.Helper()
	p.SendBytes(wire.AppendFrame(nil, channel, body, wire.AppendMessage(nil, m)))
}

// SendBytes sends bytes.
func (p *AMQPPeer) SendBytes(b []byte) {
	p.T.Helper()
	if _, err := p.Write(b); err != nil {
		p.T.Fatalf("write: %v", err)
	}
}

// Header sends a protocol header and wants the same as the answer.
func (p *AMQPPeer) Header(header string) {
	p.T.Helper()
	p.SendBytes([]byte(header))
	if got := p.ReceiveHeader(); got != header {
		p.T.Fatalf("the answer to the header %q is %q", header, got)
	}
}

// ReceiveHeader reads a protocol header.
func (p *AMQPPeer) ReceiveHeader() string {
	p.T.Helper()
	b := make([]byte, 8)
	if _, err := p.read(b); err != nil {
		p.T.Fatalf("read a protocol header: %v", err)
	}
	return string(b)
}

func (p *AMQPPeer) read(b []byte) (int, error) {
	p.SetReadDeadline(time.Now().Add(Patience))
	return io.ReadFull(p, b)
}

// Frame reads a frame. The error is that of the network: a frame that doesn't
// decode ends the test.
func (p *AMQPPeer) Frame() (wire.Frame, error) {
	p.T.Helper()
	b := make([]byte, wire.FrameHeader)
	if _, err := p.read(b); err != nil {
		return wire.Frame{}, err
	}
	size := wire.FrameSize(b)
	if size < wire.FrameHeader || size > 1<<20 {
		p.T.Fatalf("a frame of %d bytes begins with %x", size, b)
	}
	b = append(b, make([]byte, size-wire.FrameHeader)...)
	if _, err := p.read(b[wire.FrameHeader:]); err != nil {
		return wire.Frame{}, err
	}
	f, err := wire.DecodeFrame(b)
	if err != nil {
		p.T.Fatalf("DecodeFrame(%x): %v", b, err)
	}
	return f, nil
}

// ReceiveAMQP reads frames until one with such a performative comes. Empty
// frames, flows and ends of sessions are passed over, others end the test.
func ReceiveAMQP[P wire.Performative](p *AMQPPeer) (P, wire.Frame) {
	p.T.Helper()
	for {
		f, err := p.Frame()
		if err != nil {
			var want P
			p.T.Fatalf("there is no %T: %v", want, err)
		}
		if got, ok := f.Body.(P); ok {
			return got, f
		}
		switch f.Body.(type) {
		case nil, *wire.Flow, *wire.End: // sessions end before close
		default:
			var want P
			p.T.Fatalf("there is %+v instead of a %T", f.Body, want)
		}
	}
}

// Open opens the connection without SASL, with a session on channel 0.
func (p *AMQPPeer) Open(host string) {
	p.T.Helper()
	p.Header(wire.HeaderAMQP)
	p.Send(0, &wire.Open{ContainerID: "test", Hostname: host, MaxFrameSize: 65536, ChannelMax: 65535})
	ReceiveAMQP[*wire.Open](p)
	p.Send(0, &wire.Begin{IncomingWindow: 1000, OutgoingWindow: 1000, HandleMax: 65535})
	ReceiveAMQP[*wire.Begin](p)
}

// WantClose wants the hub to close the connection with a condition, and answers.
func (p *AMQPPeer) WantClose(condition wire.Symbol) *wire.Error {
	p.T.Helper()
	got, _ := ReceiveAMQP[*wire.Close](p)
	if got.Error == nil || got.Error.Condition != condition {
		p.T.Fatalf("the connection is closed with %v, want %s", got.Error, condition)
	}
	p.Write(wire.AppendFrame(nil, 0, &wire.Close{}, nil)) // the hub may be gone
	p.WantClosed()
	return got.Error
}

// WantClosed wants the connection to end without another frame that says
// anything.
func (p *AMQPPeer) WantClosed() {
	p.T.Helper()
	for {
		f, err := p.Frame()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			p.T.Fatalf("the connection is still open after %v", Patience)
		}
		if err != nil {
			return
		}
		if _, ok := f.Body.(*wire.Flow); !ok && f.Body != nil {
			p.T.Fatalf("there is %+v, want the end of the connection", f.Body)
		}
	}
}
