package mqttdevice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
)

func TestReconnectsAfterADrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, events := connected(t, p, nil)
		defer c.Close()
		events.await(Connected)
		for i := range 5 {
			far.Close()
			got := events.await(Disconnected)
			if !errors.Is(got.Reason, errHubClosed) || got.Retry > backoffMin<<i {
				t.Errorf("drop %d: event %+v, want %v and a retry within %v", i, got, errHubClosed, backoffMin<<i)
			}
			began := time.Now()
			far = p.accept() // which wants a SUBSCRIBE
			events.await(Connected)
			if waited := time.Since(began); waited != got.Retry {
				t.Errorf("drop %d: connected after %v, want %v", i, waited, got.Retry)
			}
		}
		// A connection that lasted is no failure.
		time.Sleep(2 * backoffMax)
		far.Close()
		if got := events.await(Disconnected); got.Retry > backoffMin {
			t.Errorf("after a long connection: retry in %v, want at most %v", got.Retry, backoffMin)
		}
	})
}

func TestRefusedWhileAwayIsTriedAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, events := connected(t, p, nil)
		defer c.Close()
		far.Close()
		events.await(Disconnected)
		for range 20 {
			p.refuse(packets.ErrRefusedNotAuthorised)
			got := events.await(Disconnected)
			if !errors.Is(got.Reason, ErrUnauthorized) || got.Retry > refusedBackoffMax {
				t.Errorf("event %+v, want %v and a retry within %v", got, ErrUnauthorized, refusedBackoffMax)
			}
		}
		p.accept()
		events.await(Connected)
	})
}

func TestBackoffHasFullJitterUnderADoublingCeiling(t *testing.T) {
	tests := []struct {
		attempt int
		err     error
		ceiling time.Duration
	}{
		{0, io.EOF, time.Second},
		{3, io.EOF, 8 * time.Second},
		{6, io.EOF, time.Minute},
		{1 << 20, io.EOF, time.Minute},
		{0, refusal(5), 10 * time.Second},
		{1 << 20, fmt.Errorf("connect: %w", refusal(5)), 5 * time.Minute},
	}
	for _, tt := range tests {
		var low, high bool
		for range 1000 {
			d := backoff(tt.attempt, tt.err)
			if d < 0 || d >= tt.ceiling {
				t.Fatalf("attempt %d after %v: %v, want less than %v", tt.attempt, tt.err, d, tt.ceiling)
			}
			low = low || d < tt.ceiling/10
			high = high || d > tt.ceiling/10*9
		}
		if !low || !high {
			t.Errorf("attempt %d after %v: 1000 delays do not reach from 0 to %v", tt.attempt, tt.err, tt.ceiling)
		}
	}
}

func TestSilenceEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, events := connected(t, p, nil)
		defer c.Close()
		events.await(Connected)
		time.Sleep(30 * time.Minute) // pings are answered
		select {
		case got := <-events.ch:
			t.Errorf("event %+v on an idle connection, want none", got)
		default:
		}
		far.mu.Lock()
		far.mute = true
		far.mu.Unlock()
		began := time.Now()
		got := events.await(Disconnected)
		if !errors.Is(got.Reason, errNoPong) {
			t.Errorf("connection ended with %v, want %v", got.Reason, errNoPong)
		}
		if waited := time.Since(began); waited > defaultKeepAlive+2*pingTimeout {
			t.Errorf("noticed after %v", waited)
		}
	})
}

func TestTokenIsRenewedBeforeItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, events := device(t, p, Options{TokenLife: time.Hour})
		defer c.Close()
		go c.Connect(t.Context())
		far := <-p.conns
		first := next[*packets.ConnectPacket](far)
		far.connack(packets.Accepted)
		far.suback(next[*packets.SubscribePacket](far), 0, 0, 0)
		events.await(Connected)

		began := time.Now()
		next[*packets.DisconnectPacket](far)
		if life := time.Since(began); life < 48*time.Minute || life > 52*time.Minute {
			t.Errorf("the token of an hour was replaced after %v", life)
		}
		far = <-p.conns
		second := next[*packets.ConnectPacket](far)
		if string(first.Password) == string(second.Password) {
			t.Error("the second connection has the first one's token")
		}
		far.connack(packets.Accepted)
		far.suback(next[*packets.SubscribePacket](far), 0, 0, 0)

		// It is no loss: events show none, and calls that come in between wait.
		want := []Status{Connecting, Connected}
		got := []Status{(<-events.ch).Status, (<-events.ch).Status}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestRenewalSendsAnswersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		finish := make(chan struct{})
		c, far, _ := connected(t, p, func(c *Client) {
			c.HandleMethod("slow", func(context.Context, Method) Response {
				<-finish
				return Response{}
			})
		})
		defer c.Close()
		time.Sleep(50 * time.Minute)
		far.publish("$iothub/methods/POST/slow/?$rid=1", "{}")
		time.Sleep(5 * time.Minute) // the time to renew is over, that of the token is not
		close(finish)
		if got := next[*packets.PublishPacket](far).TopicName; got != "$iothub/methods/res/200/?$rid=1" {
			t.Errorf("the client published %s, want the answer", got)
		}
		next[*packets.DisconnectPacket](far)
		p.accept()
	})
}

func TestRenewalDoesNotWaitLongerThanTheTokenLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, func(c *Client) {
			c.HandleMethod("stuck", func(ctx context.Context, _ Method) Response {
				<-ctx.Done()
				return Response{}
			})
		})
		defer c.Close()
		began := time.Now()
		far.publish("$iothub/methods/POST/stuck/?$rid=1", "{}")
		next[*packets.DisconnectPacket](far)
		if waited, want := time.Since(began), defaultTokenLife+closeGrace; waited != want {
			t.Errorf("renewed after %v, want %v", waited, want)
		}
		p.accept()
	})
}

func TestCallsUnderWayFailWithTheConnection(t *testing.T) {
	calls := map[string]func(*Client) error{
		"Twin":          func(c *Client) error { _, err := c.Twin(context.Background()); return err },
		"PatchReported": func(c *Client) error { _, err := c.PatchReported(context.Background(), struct{}{}); return err },
		"Send":          func(c *Client) error { return c.Send(context.Background(), Message{}) },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				c, far, _ := connected(t, p, nil)
				defer c.Close()
				began := time.Now()
				result := make(chan error)
				go func() { result <- call(c) }()
				next[*packets.PublishPacket](far)
				far.Close()
				if err := <-result; !errors.Is(err, ErrConnectionLost) || !errors.Is(err, errHubClosed) {
					t.Errorf("%s returned %v, want %v and %v", name, err, ErrConnectionLost, errHubClosed)
				}
				if waited := time.Since(began); waited != 0 {
					t.Errorf("%s returned after %v, want at once", name, waited)
				}

				// The next one waits for the next connection.
				go func() { result <- call(c) }()
				far = p.accept()
				next[*packets.PublishPacket](far)
				c.Close()
				if err := <-result; !errors.Is(err, ErrClosed) {
					t.Errorf("%s returned %v, want %v", name, err, ErrClosed)
				}
				if err := call(c); !errors.Is(err, ErrClosed) {
					t.Errorf("%s on a closed client returned %v, want %v", name, err, ErrClosed)
				}
			})
		})
	}
}

func TestCallsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, nil)
		defer c.Close()
		short := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			t.Cleanup(cancel)
			return ctx
		}
		if err := c.Send(short(), Message{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send without PUBACK returned %v, want %v", err, context.DeadlineExceeded)
		}
		if _, err := c.Twin(short()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Twin without an answer returned %v, want %v", err, context.DeadlineExceeded)
		}
		if _, err := c.Twin(t.Context()); !errors.Is(err, errNoResponse) {
			t.Errorf("Twin without an answer returned %v, want %v", err, errNoResponse)
		}
		far.Close()
		synctest.Wait()
		if err := c.Send(short(), Message{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send without a connection returned %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

// A hub that is alive but reads nothing blocks every write.
func TestHubThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, events := device(t, nil, Options{})
		defer c.Close()
		hub := make(chan net.Conn, 1)
		c.dial = func(ctx context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			select {
			case hub <- far:
				return near, nil
			default:
				return nil, errors.New("one is enough")
			}
		}
		go c.Connect(t.Context())
		far := &peerConn{t: t, Conn: <-hub}
		defer far.Close()
		packets.ReadPacket(far)
		far.connack(packets.Accepted)
		subscribe, err := packets.ReadPacket(far)
		if err != nil {
			t.Fatal(err)
		}
		far.suback(subscribe.(*packets.SubscribePacket), 0, 0, 0)
		events.await(Connected)

		began := time.Now()
		result := make(chan error)
		const calls = 5
		for range calls {
			go func() { result <- c.Send(context.Background(), Message{}) }()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Send(ctx, Message{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send returned %v, want %v", err, context.DeadlineExceeded)
		}
		for range calls {
			if err := <-result; !errors.Is(err, ErrConnectionLost) {
				t.Errorf("Send returned %v, want %v", err, ErrConnectionLost)
			}
		}
		if waited := time.Since(began); waited != writeTimeout {
			t.Errorf("calls failed after %v, want %v", waited, writeTimeout)
		}
	})
}
