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
			time.Sleep(time.Second)
			far.Close()
			got := events.await(Disconnected)
			want, ceiling := ErrHubClosed, usual.least
			if i > 0 { // the hub takes the credential, and yet it keeps nobody
				want, ceiling = ErrTakenOver, contended.least<<i
			}
			began := time.Now()
			if got.Reason != want || got.Retry > ceiling || got.Attempts != 0 || !got.Since.Equal(began) {
				t.Errorf("drop %d: event %+v, want %v, a retry within %v and no attempt since %v", i, got, want, ceiling, began)
			}
			far = p.accept() // which wants a SUBSCRIBE
			back := events.await(Connected)
			now := time.Now()
			wantBack := State{Status: Connected, Since: now, Attempts: 1, Away: got.Retry, Addr: "hub.test:8883", Hub: testHub, Device: "dev-1"}
			if diff := cmp.Diff(wantBack, back); diff != "" || now.Sub(began) != got.Retry {
				t.Errorf("drop %d: back after %v, want %v (-want +got):\n%s", i, now.Sub(began), got.Retry, diff)
			}
		}
		// A connection that lasted is no failure.
		time.Sleep(2 * stable)
		far.Close()
		if got := events.await(Disconnected); got.Reason != ErrHubClosed || got.Retry > usual.least {
			t.Errorf("after a long connection: event %+v, want %v and a retry within %v", got, ErrHubClosed, usual.least)
		}
	})
}

func TestAttemptsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, events := connected(t, p, nil)
		defer c.Close()
		events.await(Connected)
		far.Close()
		lost := time.Now()
		events.await(Disconnected)
		for i := range 3 {
			p.refuse(packets.ErrRefusedServerUnavailable)
			got := events.await(Disconnected)
			if !errors.Is(got.Reason, ErrBusy) || got.Attempts != i+1 || !got.Since.Equal(lost) {
				t.Errorf("event %+v, want %v after attempt %d since %v", got, ErrBusy, i+1, lost)
			}
		}
		far = p.accept()
		if got := events.await(Connected); got.Attempts != 4 || got.Away != time.Since(lost) {
			t.Errorf("event %+v, want it back at the fourth attempt after %v", got, time.Since(lost))
		}
		// A hub that was away in between has reasons of its own to close.
		far.Close()
		if got := events.await(Disconnected); got.Reason != ErrHubClosed {
			t.Errorf("event %+v, want %v", got, ErrHubClosed)
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
			if !errors.Is(got.Reason, ErrUnauthorized) || got.Retry > refused.most {
				t.Errorf("event %+v, want %v and a retry within %v", got, ErrUnauthorized, refused.most)
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
		{6, io.EOF, 20 * time.Second},
		{1 << 20, io.EOF, 20 * time.Second},
		{1, ErrTakenOver, 10 * time.Second},
		{1 << 20, ErrTakenOver, time.Minute},
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
		if !errors.Is(got.Reason, ErrNoPong) {
			t.Errorf("connection ended with %v, want %v", got.Reason, ErrNoPong)
		}
		if waited := time.Since(began); waited > defaultKeepAlive+2*pingTimeout {
			t.Errorf("noticed after %v", waited)
		}
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
				if err := <-result; !errors.Is(err, ErrConnectionLost) || !errors.Is(err, ErrHubClosed) {
					t.Errorf("%s returned %v, want %v and %v", name, err, ErrConnectionLost, ErrHubClosed)
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
