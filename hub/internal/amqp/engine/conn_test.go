package engine

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

var goodOpen = wire.Open{ContainerID: "peer", MaxFrameSize: 65536, ChannelMax: 100}

func TestOpenIsAnswered(t *testing.T) {
	var got *wire.Open
	h := &handler{open: func(o *wire.Open) error { got = o; return nil }}
	unopened(t, h, Options{Container: "hub"}, func(p *peer) {
		p.send(0, &wire.Open{ContainerID: "", Hostname: "example.com", MaxFrameSize: 4096, ChannelMax: 65535})
		p.want(0, &wire.Open{ContainerID: "hub", MaxFrameSize: 65536, ChannelMax: 8191, IdleTimeout: 4 * time.Minute})
		if got.Hostname != "example.com" {
			p.Errorf("the handler got %v", got)
		}
		p.send(0, &wire.Close{})
		p.want(0, &wire.Close{})
		if err := p.wantServed(); err != ErrClosed {
			p.Errorf("Serve returned %v", err)
		}
	})
}

func TestOpenIsRefused(t *testing.T) {
	tests := []struct {
		name string
		open wire.Open
		err  error
		want wire.Error
	}{
		{"frames too small", wire.Open{MaxFrameSize: 511}, nil, wire.Error{Condition: "amqp:invalid-field", Description: "a max-frame-size of 511 is too small"}},
		{"heartbeats too often", wire.Open{MaxFrameSize: 512, IdleTimeout: time.Millisecond}, nil, wire.Error{Condition: "amqp:invalid-field", Description: "an idle-time-out of 1ms is too short"}},
		{"by the handler", goodOpen, &wire.Error{Condition: "amqp:not-found", Description: "no hub"}, wire.Error{Condition: "amqp:not-found", Description: "no hub"}},
		{"by a fault of the handler", goodOpen, errors.New("a secret"), wire.Error{Condition: "amqp:internal-error", Description: "internal error"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := &handler{open: func(*wire.Open) error { return tt.err }}
			unopened(t, h, Options{}, func(p *peer) {
				p.send(0, &tt.open)
				if _, ok := p.next().Body.(*wire.Open); !ok {
					p.Error("no open before close")
				}
				p.want(0, &wire.Close{Error: &tt.want})
				p.wantQuiet()
				p.send(0, &wire.Close{})
				if diff := cmp.Diff(error(&tt.want), p.wantServed()); diff != "" {
					p.Errorf("Serve (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestFramesBeforeOpen(t *testing.T) {
	for name, body := range map[string]wire.Performative{"begin": &wire.Begin{}, "empty": nil} {
		t.Run(name, func(t *testing.T) {
			unopened(t, &handler{}, Options{}, func(p *peer) {
				p.send(0, body)
				if _, ok := p.next().Body.(*wire.Open); !ok {
					p.Error("no open before close")
				}
				p.wantClosed("amqp:illegal-state")
			})
		})
	}
}

func TestBrokenFramesCloseTheConnection(t *testing.T) {
	tests := []struct {
		name, bytes string
		want        wire.Symbol
	}{
		{"too short", "\x00\x00\x00\x07\x02\x00\x00\x00", condFraming},
		{"too long", "\x00\x01\x00\x01\x02\x00\x00\x00", condFraming},
		{"of another protocol", "GET / HTTP/1.1\r\n\r\n", condFraming},
		{"with a performative that is none", "\x00\x00\x00\x0c\x02\x00\x00\x00\x00\x53\x99\x45", condDecode},
		{"of SASL", "\x00\x00\x00\x10\x02\x01\x00\x00\x00\x53\x44\xc0\x03\x01\x50\x00", condFraming},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, &handler{}, func(p *peer) {
				p.write([]byte(tt.bytes))
				c, ok := p.next().Body.(*wire.Close)
				if !ok || c.Error == nil || c.Error.Condition != tt.want {
					p.Fatalf("the hub sends %v, want %s", c, tt.want)
				}
				// What comes behind is passed over until the peer has gone.
				p.write([]byte("and more"))
				start := time.Now()
				err := <-p.served
				p.served <- nil
				if e := (*wire.Error)(nil); !errors.As(err, &e) || e.Condition != tt.want {
					p.Errorf("Serve returned %v", err)
				}
				if d := time.Since(start); d != closeTimeout {
					p.Errorf("it ended after %v", d)
				}
			})
		})
	}
}

func TestSecondOpen(t *testing.T) {
	inBubble(t, &handler{}, func(p *peer) {
		p.send(0, &goodOpen)
		p.wantClosed("amqp:illegal-state")
	})
}

func TestPeerClosesWithAnError(t *testing.T) {
	inBubble(t, &handler{}, func(p *peer) {
		p.send(0, &wire.Close{Error: &wire.Error{Condition: "amqp:internal-error"}})
		p.want(0, &wire.Close{})
		err := p.wantServed()
		if e := (*wire.Error)(nil); !errors.Is(err, ErrClosed) || !errors.As(err, &e) {
			p.Errorf("Serve returned %v", err)
		}
		if p.hub.Reason() != err {
			p.Errorf("Reason is %v", p.hub.Reason())
		}
	})
}

func TestPeerIsLost(t *testing.T) {
	inBubble(t, &handler{}, func(p *peer) {
		p.write([]byte{0, 0})
		p.Conn.Close()
		if err := p.wantServed(); err != ErrLost {
			p.Errorf("Serve returned %v", err)
		}
	})
}

func TestHubCloses(t *testing.T) {
	forced := &wire.Error{Condition: "amqp:connection:forced", Description: "bye"}
	inBubble(t, &handler{}, func(p *peer) {
		if p.hub.Reason() != nil {
			p.Errorf("Reason is %v", p.hub.Reason())
		}
		p.hub.Close(forced)
		p.hub.Close(nil)
		p.want(0, &wire.Close{Error: forced})
		p.begin2()
		p.wantQuiet() // what comes behind close means nothing
		p.send(0, &wire.Close{})
		if err := p.wantServed(); err != forced {
			p.Errorf("Serve returned %v", err)
		}
		p.wantQuiet()
	})
}

func (p *peer) begin2() { p.send(1, &wire.Begin{HandleMax: 1}) }

func TestHubClosesWithoutAnError(t *testing.T) {
	inBubble(t, &handler{}, func(p *peer) {
		p.hub.Close(nil)
		p.want(0, &wire.Close{})
		p.Conn.Close()
		if err := p.wantServed(); err != nil {
			p.Errorf("Serve returned %v", err)
		}
	})
}

func TestHubClosesBeforeOpen(t *testing.T) {
	unopened(t, &handler{}, Options{}, func(p *peer) {
		p.hub.Close(&wire.Error{Condition: "amqp:connection:forced"})
		if _, ok := p.next().Body.(*wire.Open); !ok {
			p.Error("no open before close")
		}
		p.wantClosed("amqp:connection:forced")
	})
}

func TestCloseIsNotAnswered(t *testing.T) {
	inBubble(t, &handler{}, func(p *peer) {
		start := time.Now()
		p.hub.Close(nil)
		<-p.closed
		if d := time.Since(start); d != 5*time.Second {
			p.Errorf("the hub waited %v", d)
		}
		if err := p.wantServed(); err != nil {
			p.Errorf("Serve returned %v", err)
		}
	})
}

func TestEndDropsTheConnection(t *testing.T) {
	inBubble(t, &handler{}, func(p *peer) {
		reason := errors.New("enough")
		p.hub.End(reason)
		p.hub.End(errors.New("more"))
		if err := p.wantServed(); err != reason {
			p.Errorf("Serve returned %v", err)
		}
	})
}

func TestPeerThatDoesNotOpen(t *testing.T) {
	unopened(t, &handler{}, Options{}, func(p *peer) {
		start := time.Now()
		err := <-p.served
		p.served <- nil
		if err != ErrSilent {
			p.Errorf("Serve returned %v", err)
		}
		if d := time.Since(start); d < openTimeout || d > openTimeout+time.Second {
			p.Errorf("it ended after %v", d)
		}
	})
}

// A byte now and then is no frame.
func TestSilentPeer(t *testing.T) {
	inBubble(t, &handler{}, func(p *peer) {
		start := time.Now()
		time.Sleep(3 * time.Minute)
		p.send(0, nil)
		synctest.Wait()
		if heard := p.hub.LastActivity(); !heard.Equal(time.Now()) {
			p.Errorf("the last activity was at %v", heard)
		}
		for _, b := range wire.AppendFrame(nil, 0, &wire.Close{}, nil)[:7] {
			p.write([]byte{b})
			time.Sleep(time.Minute)
		}
		err := <-p.served
		p.served <- nil
		if err != ErrSilent {
			p.Errorf("Serve returned %v", err)
		}
		if d := time.Since(start); d < 11*time.Minute || d > 11*time.Minute+time.Second {
			p.Errorf("it ended after %v", d)
		}
	})
}

func TestHeartbeats(t *testing.T) {
	open := goodOpen
	open.IdleTimeout = time.Minute
	withPeer(t, &handler{}, Options{}, open, func(p *peer) {
		for range 3 {
			time.Sleep(29 * time.Second)
			p.wantQuiet()
			time.Sleep(time.Second)
			p.want(0, nil)
		}
		time.Sleep(20 * time.Second)
		p.begin(1) // whose answer is a sign of life, too
		time.Sleep(29 * time.Second)
		p.wantQuiet()
		time.Sleep(time.Second)
		p.want(0, nil)
	})
}

func TestNoHeartbeatsForAPeerThatWantsNone(t *testing.T) {
	inBubble(t, &handler{}, func(p *peer) {
		time.Sleep(7 * time.Minute)
		p.wantQuiet()
	})
}
