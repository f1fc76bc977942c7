package engine

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// A stream is a connection whose peer has sent bytes and gone, and reads all or
// nothing of what it is sent.
type stream struct {
	net.Conn // panics if something else is asked
	in       []byte
	chunk    int
	deaf     bool
	closed   bool
}

func (s *stream) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), s.chunk)], s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *stream) Write(b []byte) (int, error) {
	if s.deaf {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}

func (s *stream) Close() error                     { s.closed = true; return nil }
func (s *stream) SetDeadline(time.Time) error      { return nil }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

// A chatty handler sends and settles whenever it can.
func chatty(told *atomic.Int32) *handler {
	var kept []*Delivery
	links := 0
	return &handler{attach: func(l *Link) error {
		if links++; links%7 == 0 {
			return &wire.Error{Condition: "amqp:not-found"}
		}
		told.Add(1)
		detached := func() { told.Add(-1) }
		l.Credit = 5
		l.MaxMessageSize = 1000
		l.Inlet = &inlet{detached: detached, receive: func(d *Delivery) {
			if kept = append(kept, d); len(kept) > 3 {
				kept[0].Accept()
				kept[2].Settle(wire.Released{})
				kept = kept[1:]
			}
		}}
		n := 0
		l.Outlet = &outlet{
			detached: detached,
			ready: func() {
				for n < 1000 && l.Send(make([]byte, n%3*700), nil, n%4 == 0, n) {
					n++
				}
				l.Post([]byte("posted"), n%2 == 0)
				if n%13 == 12 {
					DetachAll([]*Link{l}, nil)
				}
			},
			settled: func(ref any, _ wire.State) wire.State {
				if ref.(int)%3 == 0 {
					return &wire.Rejected{}
				}
				switch {
				case ref.(int)%7 == 6:
					DetachAll([]*Link{l}, nil)
				case ref.(int)%11 == 10:
					l.Detach(nil)
				}
				return nil
			},
		}
		return nil
	}}
}

// Whatever a peer sends, its connection ends when it has gone, nothing is left
// of what was queued, and every link is told.
func FuzzServe(f *testing.F) {
	frames := func(bodies ...wire.Performative) (all []byte) {
		for _, b := range bodies {
			var payload []byte
			if _, ok := b.(*wire.Transfer); ok {
				payload = []byte("payload")
			}
			all = wire.AppendFrame(all, 1, b, payload)
		}
		return all
	}
	one := uint32(1)
	start := []wire.Performative{&goodOpen, &wire.Begin{IncomingWindow: 3, HandleMax: 10}, &wire.Attach{Name: "a", Role: wire.Sender}, &wire.Attach{Name: "b", Handle: 1, Role: wire.Receiver}}
	f.Add(frames(append(start, &wire.Transfer{DeliveryID: new(uint32), More: true}, &wire.Transfer{DeliveryID: new(uint32)}, &wire.Transfer{DeliveryID: &one}, &wire.Detach{}, &wire.End{}, &wire.Close{})...), uint16(7), false)
	f.Add(frames(append(start, &wire.Flow{IncomingWindow: 3, Handle: &one, LinkCredit: ptr(uint32(20)), Drain: true}, &wire.Flow{NextIncomingID: ptr(uint32(2)), IncomingWindow: 3}, &wire.Disposition{Role: wire.Receiver, Last: ptr(uint32(9)), State: wire.Accepted{}})...), uint16(1000), false)
	f.Add(frames(append(start, &wire.Attach{Name: "a", Handle: 3, Role: wire.Sender}, &wire.Attach{Name: "x", Handle: 3}, &wire.Begin{}, nil)...), uint16(64), true)
	f.Add([]byte("\x00\x00\x00\x08\x02\x00\x00\x00"), uint16(1), false)
	f.Fuzz(served)
}

// FuzzFrames is FuzzServe with frames that are well formed: what a peer does in
// the wrong order.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x00\x10\x00\x11\x01\x20\x00\x30\x01\x40\x00\x50\x00"), uint16(100), false)
	f.Add([]byte("\x00\x00\x11\x01\x31\x02\x31\x09\x51\xff\x61\x00\x71\x00\x80\x00"), uint16(3), false)
	f.Fuzz(func(t *testing.T, ops []byte, chunk uint16, deaf bool) {
		in := wire.AppendFrame(nil, 0, &wire.Open{MaxFrameSize: 512, ChannelMax: 100, IdleTimeout: time.Minute}, nil)
		for ; len(ops) >= 2; ops = ops[2:] {
			in = appendOp(in, ops[0], ops[1])
		}
		served(t, in, chunk, deaf)
	})
}

// appendOp appends a frame that two bytes stand for.
func appendOp(in []byte, op, b byte) []byte {
	channel := uint16(op & 1)
	handle := uint32(op >> 1 & 3)
	small := uint32(b & 15)
	flag := b&16 != 0
	tag := []byte{b}
	role := wire.Role(handle&1 != 0)
	var payload []byte
	var body wire.Performative
	switch op >> 4 {
	case 0, 1:
		body = &wire.Begin{IncomingWindow: small, HandleMax: 8}
	case 2, 3:
		body = &wire.Attach{Name: string(tag), Handle: handle, Role: role, SndSettleMode: ptr(b >> 6)}
	case 4, 5:
		body = &wire.Flow{NextIncomingID: ptr(uint32(b >> 5)), IncomingWindow: small, Handle: &handle, DeliveryCount: ptr(uint32(b >> 6)), LinkCredit: &small, Drain: flag, Echo: b&32 != 0}
	case 6:
		body = &wire.Flow{NextIncomingID: ptr(uint32(b)), IncomingWindow: 10, Echo: flag}
	case 7, 8:
		body = &wire.Transfer{Handle: handle, DeliveryID: &small, DeliveryTag: tag, More: flag, Aborted: b&32 != 0, Settled: ptr(b&64 != 0)}
		payload = make([]byte, small*20)
	case 9, 10:
		body = &wire.Disposition{Role: !wire.Role(b&128 != 0), First: small, Last: ptr(small + uint32(b>>5)), Settled: flag, State: wire.Accepted{}}
	case 11, 12:
		body = &wire.Detach{Handle: handle, Closed: flag}
	case 13:
		body = &wire.End{}
	case 14:
		if b == 0 {
			body = &wire.Close{}
		}
	}
	return wire.AppendFrame(in, channel, body, payload)
}

// served serves a peer that has sent in.
func served(t *testing.T, in []byte, chunk uint16, deaf bool) {
	var told atomic.Int32
	queued := 0
	s := &stream{in: in, chunk: max(1, int(chunk)), deaf: deaf}
	c := New(s, Options{MaxSessions: 3, MaxLinks: 10, Queued: func(n int) {
		if queued += n; queued < 0 || queued > 2*maxQueued {
			t.Errorf("%d bytes wait", queued)
		}
	}})
	err := c.Serve(chatty(&told))
	if told.Load() != 0 || queued != 0 || !s.closed || err == nil {
		t.Errorf("Serve returned %v; %d links are not told, %d bytes wait, closed: %v", err, told.Load(), queued, s.closed)
	}
	if c.unsettled < 0 || c.assembled < 0 || c.links < 0 {
		t.Errorf("%d unsettled, %d bytes assembled, %d links", c.unsettled, c.assembled, c.links)
	}
}
