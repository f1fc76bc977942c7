package engine

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// Clients send all of their handshake, and more, in one flight.
func TestHandshakeInOneFlight(t *testing.T) {
	in := []byte(wire.HeaderSASL)
	init := &wire.SASLInit{Mechanism: "PLAIN", InitialResponse: bytes.Repeat([]byte("x"), 3000), Hostname: "example.com"}
	in = wire.AppendSASL(in, init)
	in = append(in, wire.HeaderAMQP...)
	in = wire.AppendFrame(in, 0, &goodOpen, nil)
	in = wire.AppendFrame(in, 0, &wire.Close{}, nil)
	for _, chunk := range []int{1, 100, 10_000} {
		s := &stream{in: bytes.Clone(in), chunk: chunk}
		c := New(s, Options{})
		if c.NetConn() != s {
			t.Error("NetConn is another")
		}
		if h, err := c.Header(); h != wire.HeaderSASL || err != nil {
			t.Fatalf("header %q, %v", h, err)
		}
		f, err := c.SASLFrame()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wire.Performative(init), f.Body); diff != "" {
			t.Errorf("SASL (-want +got):\n%s", diff)
		}
		if h, err := c.Header(); h != wire.HeaderAMQP || err != nil {
			t.Fatalf("header %q, %v", h, err)
		}
		opened := false
		err = c.Serve(&handler{open: func(o *wire.Open) error {
			opened = true
			return nil
		}})
		if err != ErrClosed || !opened {
			t.Errorf("Serve returned %v, opened: %v", err, opened)
		}
	}
}

func TestSASLFrameIsRefused(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		want wire.Symbol
	}{
		{"of AMQP", wire.AppendFrame(nil, 0, &goodOpen, nil), condFraming},
		{"too long", wire.AppendSASL(nil, &wire.SASLInit{InitialResponse: make([]byte, maxSASLFrame)}), condFraming},
		{"of another protocol", []byte("GET / HTTP/1.1\r\n\r\n"), condFraming},
		{"without meaning", []byte("\x00\x00\x00\x0c\x02\x01\x00\x00\x00\x53\x99\x45"), condDecode},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(&stream{in: tt.in, chunk: 10_000}, Options{}).SASLFrame()
			if e := (*wire.Error)(nil); !errors.As(err, &e) || e.Condition != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

func TestHandshakeIsLost(t *testing.T) {
	if _, err := New(&stream{in: []byte("AMQP\x00"), chunk: 10}, Options{}).Header(); err != ErrLost {
		t.Errorf("Header: %v", err)
	}
	if _, err := New(&stream{in: []byte{0, 0, 0, 9}, chunk: 10}, Options{}).SASLFrame(); err != ErrLost {
		t.Errorf("SASLFrame: %v", err)
	}
}

// Before Serve nothing can be said to the peer.
func TestCloseBeforeServe(t *testing.T) {
	forced := &wire.Error{Condition: "amqp:connection:forced"}
	s := &stream{in: wire.AppendFrame(nil, 0, &goodOpen, nil), chunk: 100}
	c := New(s, Options{})
	c.Close(forced)
	if err := c.Serve(&handler{}); err != forced || !s.closed {
		t.Errorf("Serve returned %v", err)
	}
}
