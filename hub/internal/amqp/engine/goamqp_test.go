package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// serveGoAMQP serves connections of go-amqp by the handler that each gets, and
// returns a client.
func dialGoAMQP(t *testing.T, h Handler, opt Options, clientOptions *amqp.ConnOptions) *amqp.Conn {
	t.Helper()
	near, far := tcpPair(t)
	served := make(chan error, 1)
	go func() { served <- serveConn(far, opt, h) }()
	t.Cleanup(func() {
		near.Close()
		<-served
	})
	c, err := amqp.NewConn(t.Context(), near, clientOptions)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serveConn answers the header and serves.
func serveConn(nc net.Conn, opt Options, h Handler) error {
	c := New(nc, opt)
	header, err := c.Header()
	if err != nil {
		return err
	}
	if header != wire.HeaderAMQP {
		return fmt.Errorf("header %q", header)
	}
	if err := c.Write([]byte(wire.HeaderAMQP)); err != nil {
		return err
	}
	return c.Serve(h)
}

func tcpPair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

func TestGoAMQPSends(t *testing.T) {
	got := make(chan string, 10)
	h := &handler{attach: func(l *Link) error {
		l.Credit = 10
		l.MaxMessageSize = 1 << 20
		l.Inlet = &inlet{receive: func(d *Delivery) {
			m, err := wire.DecodeMessage(d.Payload)
			if err != nil {
				d.Reject(&wire.Error{Condition: condDecode, Description: err.Error()})
				return
			}
			got <- string(m.Data[0])
			if strings.HasPrefix(string(m.Data[0]), "bad") {
				d.Reject(&wire.Error{Condition: "com.example:bad", Description: "it is bad"})
				return
			}
			d.Accept()
		}}
		return nil
	}}
	c := dialGoAMQP(t, h, Options{}, nil)
	s, err := c.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := s.NewSender(t.Context(), "somewhere", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		text := fmt.Sprint(i, strings.Repeat("x", 3000*i))
		if err := sender.Send(t.Context(), amqp.NewMessage([]byte(text)), nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(text, <-got); diff != "" {
			t.Fatalf("message %d (-want +got):\n%s", i, diff)
		}
	}
	err = sender.Send(t.Context(), amqp.NewMessage([]byte("bad one")), nil)
	if e := (*amqp.Error)(nil); !errors.As(err, &e) || e.Condition != "com.example:bad" || e.Description != "it is bad" {
		t.Errorf("a rejected message: %v", err)
	}
	err = sender.Send(t.Context(), amqp.NewMessage(make([]byte, 2<<20)), nil)
	if e := (*amqp.Error)(nil); !errors.As(err, &e) || e.Condition != amqp.ErrCondMessageSizeExceeded {
		t.Errorf("a message that is too large: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestGoAMQPReceives(t *testing.T) {
	for _, frame := range []uint32{0, 512, 4096} {
		t.Run(fmt.Sprintf("in frames of %d", frame), func(t *testing.T) {
			settled := make(chan any, 100)
			n := 0
			h := &handler{attach: func(l *Link) error {
				l.Outlet = &outlet{
					ready: func() {
						for n < 100 && l.Send(dataMessage(strings.Repeat("x", 3000*n)), nil, false, n) {
							n++
						}
					},
					settled: func(ref any, s wire.State) wire.State {
						settled <- ref
						return nil
					},
				}
				return nil
			}}
			c := dialGoAMQP(t, h, Options{}, &amqp.ConnOptions{MaxFrameSize: frame})
			s, err := c.NewSession(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.NewReceiver(t.Context(), "somewhere", &amqp.ReceiverOptions{Credit: 7})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				m, err := r.Receive(ctx, nil)
				cancel()
				if err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
				if len(m.GetData()) != 3000*i {
					t.Fatalf("message %d has %d bytes", i, len(m.GetData()))
				}
				if err := r.AcceptMessage(t.Context(), m); err != nil {
					t.Fatal(err)
				}
				if ref := <-settled; ref != i {
					t.Fatalf("settled %v, want %d", ref, i)
				}
			}
			if err := r.Close(t.Context()); err != nil {
				t.Errorf("detach: %v", err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Errorf("end: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

func TestGoAMQPIsRefused(t *testing.T) {
	h := &handler{attach: func(l *Link) error { return &wire.Error{Condition: "amqp:not-found", Description: "there is none"} }}
	c := dialGoAMQP(t, h, Options{}, nil)
	s, err := c.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.NewReceiver(t.Context(), "nowhere", nil)
	if e := (*amqp.Error)(nil); !errors.As(err, &e) || e.Condition != amqp.ErrCondNotFound || e.Description != "there is none" {
		t.Errorf("receiver: %v", err)
	}
	_, err = s.NewSender(t.Context(), "nowhere", nil)
	if e := (*amqp.Error)(nil); !errors.As(err, &e) || e.Condition != amqp.ErrCondNotFound {
		t.Errorf("sender: %v", err)
	}
}

// In mode second, go-amqp waits for the answer to each disposition.
func TestGoAMQPInModeSecond(t *testing.T) {
	h := &handler{attach: func(l *Link) error {
		sent := false
		l.Outlet = &outlet{ready: func() {
			if !sent {
				sent = l.Send(dataMessage("one"), nil, false, "ref")
				l.Send(dataMessage("two"), nil, false, nil)
			}
		}}
		return nil
	}}
	c := dialGoAMQP(t, h, Options{}, nil)
	s, err := c.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.NewReceiver(t.Context(), "somewhere", &amqp.ReceiverOptions{Credit: 2, SettlementMode: amqp.ReceiverSettleModeSecond.Ptr()})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		m, err := r.Receive(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.AcceptMessage(ctx, m); err != nil {
			t.Errorf("accept: %v", err)
		}
	}
}

func TestGoAMQPDrains(t *testing.T) {
	h := &handler{attach: func(l *Link) error {
		l.Outlet = &outlet{ready: func() {}}
		return nil
	}}
	c := dialGoAMQP(t, h, Options{}, nil)
	s, err := c.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.NewReceiver(t.Context(), "somewhere", &amqp.ReceiverOptions{Credit: -1})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := r.IssueCredit(5); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := r.DrainCredit(ctx, nil); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
}

// However a peer goes, the words for it are not Go's.
func TestPeerGoes(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn){
		"in order":  func(nc *net.TCPConn) { nc.Close() },
		"at once":   func(nc *net.TCPConn) { nc.SetLinger(0); nc.Close() },
		"in halves": func(nc *net.TCPConn) { nc.CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			near, far := tcpPair(t)
			defer near.Close()
			served := make(chan error, 1)
			attached := make(chan struct{})
			sent := sync.OnceFunc(func() { close(attached) })
			h := &handler{attach: func(l *Link) error {
				l.Outlet = &outlet{ready: func() {
					for l.Send(make([]byte, 10_000), nil, true, nil) {
					}
					sent()
				}}
				return nil
			}}
			go func() { served <- serveConn(far, Options{}, h) }()
			all := []byte(wire.HeaderAMQP)
			for _, f := range []wire.Performative{&goodOpen, &wire.Begin{IncomingWindow: 1000, HandleMax: 1}, &wire.Attach{Role: wire.Receiver}, &wire.Flow{IncomingWindow: 1000, Handle: new(uint32), LinkCredit: ptr(uint32(1000))}} {
				all = wire.AppendFrame(all, 0, f, nil)
			}
			if _, err := near.Write(all); err != nil {
				t.Fatal(err)
			}
			<-attached
			leave(near.(*net.TCPConn))
			if err := <-served; err != ErrLost {
				t.Errorf("Serve returned %v", err)
			}
		})
	}
}
