package engine

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// A peer is the other end of a connection in a bubble: time passes when everybody
// waits, and what the hub sends is there when it does.
type peer struct {
	*testing.T
	net.Conn
	hub    *Conn
	frames chan wire.Frame
	hold   chan struct{} // full while the peer does not read
	closed chan struct{} // closed when the hub has closed the connection
	served chan error
	queued int
}

// inBubble runs a test with a peer that has exchanged open.
func inBubble(t *testing.T, h *handler, run func(p *peer)) {
	t.Helper()
	withPeer(t, h, Options{Container: "hub"}, wire.Open{ContainerID: "peer", MaxFrameSize: 4294967295, ChannelMax: 65535}, run)
}

func withPeer(t *testing.T, h *handler, opt Options, open wire.Open, run func(p *peer)) {
	t.Helper()
	unopened(t, h, opt, func(p *peer) {
		p.send(0, &open)
		if _, ok := p.next().Body.(*wire.Open); !ok {
			p.Fatal("no open")
		}
		run(p)
	})
}

// unopened runs a test with a peer that has exchanged headers.
func unopened(t *testing.T, h *handler, opt Options, run func(p *peer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		p := &peer{T: t, Conn: near, frames: make(chan wire.Frame, 100_000), closed: make(chan struct{}), served: make(chan error, 1)}
		p.hold = make(chan struct{}, 1)
		opt.Queued = func(n int) { p.queued += n }
		p.hub = New(far, opt)
		p.hub.handler = h // so that Close knows that it is served
		go func() { p.served <- p.hub.Serve(h) }()
		go p.read()
		defer near.Close()
		run(p)
		near.Close()
		synctest.Wait()
		if err, more := <-p.served; more && err == io.EOF {
			t.Errorf("Serve returned %v", err)
		}
		if p.queued != 0 {
			t.Errorf("%d bytes wait when the connection has ended", p.queued)
		}
		p.served <- nil
	})
}

func (p *peer) read() {
	defer close(p.closed)
	for {
		p.hold <- struct{}{}
		<-p.hold
		head := make([]byte, 4)
		if _, err := io.ReadFull(p.Conn, head); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint32(head))
		copy(b, head)
		if _, err := io.ReadFull(p.Conn, b[4:]); err != nil {
			return
		}
		f, err := wire.DecodeFrame(b)
		if err != nil {
			p.Errorf("a frame of the hub: %v", err)
			return
		}
		p.frames <- f
	}
}

// stall has the peer read no more than one frame until resume.
func (p *peer) stall() { p.hold <- struct{}{} }

func (p *peer) resume() { <-p.hold }

func (p *peer) send(channel uint16, body wire.Performative, payload ...byte) {
	p.Helper()
	p.write(wire.AppendFrame(nil, channel, body, payload))
}

func (p *peer) write(b []byte) {
	p.Helper()
	p.Conn.SetWriteDeadline(time.Now().Add(time.Minute))
	if _, err := p.Conn.Write(b); err != nil {
		p.Fatalf("write: %v", err)
	}
}

// next returns the frame that the hub has sent.
func (p *peer) next() wire.Frame {
	p.Helper()
	synctest.Wait()
	select {
	case f := <-p.frames:
		return f
	default:
		p.Fatal("the hub sends nothing")
		return wire.Frame{}
	}
}

// want compares the next frame.
func (p *peer) want(channel uint16, want wire.Performative) {
	p.Helper()
	f := p.next()
	if f.Channel != channel {
		p.Errorf("a frame on channel %d, want %d", f.Channel, channel)
	}
	if diff := cmp.Diff(want, f.Body); diff != "" {
		p.Errorf("the hub's frame (-want +got):\n%s", diff)
	}
}

// wantQuiet fails if the hub has sent something.
func (p *peer) wantQuiet() {
	p.Helper()
	synctest.Wait()
	select {
	case f := <-p.frames:
		p.Errorf("the hub sends %#v", f.Body)
	default:
	}
}

// wantClosed expects close with a condition behind the end of every session,
// answers it, and wants Serve to return the error.
func (p *peer) wantClosed(condition wire.Symbol) {
	p.Helper()
	f := p.next()
	for _, isEnd := f.Body.(*wire.End); isEnd; _, isEnd = f.Body.(*wire.End) {
		f = p.next()
	}
	c, ok := f.Body.(*wire.Close)
	if !ok || c.Error == nil || c.Error.Condition != condition {
		p.Fatalf("the hub sends %#v, want close with %s", f.Body, condition)
	}
	p.send(0, &wire.Close{})
	err := p.wantServed()
	if e, ok := err.(*wire.Error); !ok || e.Condition != condition {
		p.Errorf("Serve returned %v, want %s", err, condition)
	}
}

// wantServed returns what Serve has returned.
func (p *peer) wantServed() error {
	p.Helper()
	synctest.Wait()
	select {
	case err := <-p.served:
		p.served <- nil
		select {
		case <-p.closed:
		default:
			p.Error("the hub has not closed the connection")
		}
		return err
	default:
		p.Fatal("Serve goes on")
		return nil
	}
}

// wantDetached expects detach with a condition.
func (p *peer) wantDetached(handle uint32, condition wire.Symbol) {
	p.Helper()
	f := p.next()
	d, ok := f.Body.(*wire.Detach)
	if !ok || d.Handle != handle || !d.Closed || d.Error == nil || d.Error.Condition != condition {
		p.Fatalf("the hub sends %#v, want detach of %d with %s", f.Body, handle, condition)
	}
}

// wantEnded expects end with a condition.
func (p *peer) wantEnded(condition wire.Symbol) {
	p.Helper()
	f := p.next()
	e, ok := f.Body.(*wire.End)
	if !ok || e.Error == nil || e.Error.Condition != condition {
		p.Fatalf("the hub sends %#v, want end with %s", f.Body, condition)
	}
}

func (p *peer) begin(channel uint16) {
	p.Helper()
	p.send(channel, &wire.Begin{IncomingWindow: 1000, OutgoingWindow: 1000, HandleMax: 1000})
	if _, ok := p.next().Body.(*wire.Begin); !ok {
		p.Fatal("no begin")
	}
}

// attachSender attaches a link on which the peer sends.
func (p *peer) attachSender(channel uint16, handle uint32) {
	p.Helper()
	p.send(channel, &wire.Attach{Name: name(handle), Handle: handle, Role: wire.Sender, InitialDeliveryCount: new(uint32)})
	p.next()
	p.next()
}

// attachReceiver attaches a link on which the hub sends.
func (p *peer) attachReceiver(channel uint16, handle uint32) {
	p.Helper()
	p.send(channel, &wire.Attach{Name: name(handle), Handle: handle, Role: wire.Receiver})
	p.next()
}

func name(handle uint32) string { return string(rune('a' + handle)) }

// grant gives credit, and a window.
func (p *peer) grant(channel uint16, handle, count, credit, seen, window uint32) {
	p.Helper()
	p.send(channel, &wire.Flow{
		NextIncomingID: &seen, IncomingWindow: window, OutgoingWindow: 1000,
		Handle: &handle, DeliveryCount: &count, LinkCredit: &credit,
	})
}

// transfer sends a delivery, or its first frame.
func (p *peer) transfer(channel uint16, handle, id uint32, more bool, payload string) {
	p.Helper()
	p.send(channel, &wire.Transfer{Handle: handle, DeliveryID: &id, DeliveryTag: []byte{byte(id)}, MessageFormat: new(uint32), More: more}, []byte(payload)...)
}

func ptr[T any](v T) *T { return &v }
