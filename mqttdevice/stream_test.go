package mqttdevice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// A feed is a source of messages "0", "1", ... for SendStream.
type feed struct {
	n     chan int // how many more there are; closed at the end
	left  int
	asked int
	acked int
}

func newFeed(n int) *feed {
	f := &feed{n: make(chan int, 16)}
	f.n <- n
	return f
}

func (f *feed) next(ctx context.Context) (Message, error) {
	for f.left == 0 {
		select {
		case n, ok := <-f.n:
			if !ok {
				return Message{}, io.EOF
			}
			f.left = n
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
	f.left--
	f.asked++
	return Message{Payload: fmt.Append(nil, f.asked-1)}, nil
}

// stream sends f and returns where the result comes.
func (f *feed) stream(ctx context.Context, c *Client, window int) chan error {
	result := make(chan error, 1)
	go func() { result <- c.SendStream(ctx, window, f.next, func() { f.acked++ }) }()
	return result
}

// arrive returns the next n messages, which must be numbered from first on.
func arrive(c *peerConn, first, n int) []*packets.PublishPacket {
	c.t.Helper()
	var all []*packets.PublishPacket
	for i := range n {
		p := next[*packets.PublishPacket](c)
		if want := fmt.Sprint(first + i); string(p.Payload) != want || p.Qos != 1 {
			c.t.Errorf("message %s arrived at QoS %d, want %s", p.Payload, p.Qos, want)
		}
		all = append(all, p)
	}
	return all
}

func TestStreamKeepsAWindowOfMessagesOnTheirWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, nil)
		defer c.Close()
		f := newFeed(5)
		result := f.stream(t.Context(), c, 3)
		way := arrive(far, 0, 3)
		synctest.Wait()
		if n := len(far.in); n != 0 {
			t.Errorf("%d messages came beyond the window", n)
		}
		far.puback(way[1]) // no hub does this; the order of acked stays
		synctest.Wait()
		if f.acked != 0 {
			t.Errorf("%d acknowledged, want 0", f.acked)
		}
		far.puback(way[0])
		way = append(way[2:], arrive(far, 3, 2)...)
		synctest.Wait()
		if f.acked != 2 {
			t.Errorf("%d acknowledged, want 2", f.acked)
		}
		close(f.n)
		for _, m := range way {
			synctest.Wait()
			select {
			case err := <-result:
				t.Fatalf("SendStream returned %v before the last PUBACK", err)
			default:
			}
			far.puback(m)
		}
		if err := <-result; err != nil || f.acked != 5 {
			t.Errorf("error %v, %d acknowledged, want 5", err, f.acked)
		}
	})
}

func TestStreamEndsWithItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, nil)
		defer c.Close()
		f := newFeed(3)
		result := f.stream(t.Context(), c, 10)
		far.puback(arrive(far, 0, 3)[0])
		synctest.Wait()
		far.Close()
		if err := <-result; !errors.Is(err, ErrConnectionLost) || f.acked != 1 {
			t.Errorf("error %v, %d acknowledged; want %v, 1", err, f.acked, ErrConnectionLost)
		}
		// Nothing is sent on the next connection before the caller begins again.
		far = p.accept()
		synctest.Wait()
		if n := len(far.in); n != 0 {
			t.Errorf("%d packets came on the next connection", n)
		}
	})
}

func TestStreamWithNothingOnItsWayOutlivesConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, nil)
		defer c.Close()
		f := newFeed(1)
		result := f.stream(t.Context(), c, 10)
		far.puback(arrive(far, 0, 1)[0])
		synctest.Wait()
		far.Close()
		far = p.accept()
		f.n <- 1
		far.puback(arrive(far, 1, 1)[0])
		close(f.n)
		if err := <-result; err != nil || f.acked != 2 {
			t.Errorf("error %v, %d acknowledged, want 2", err, f.acked)
		}
	})
}

// TestStreamMakesWayForARenewal checks that a stream that never pauses does not
// keep a connection until its token has expired.
func TestStreamMakesWayForARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, nil)
		defer c.Close()
		f := newFeed(1 << 30)
		result := f.stream(t.Context(), c, 2)
		began := time.Now()
		sent := 0
		way := arrive(far, 0, 2)
		for left := false; !left; {
			time.Sleep(time.Second) // of the test's own clock
			if len(way) > 0 {
				far.puback(way[0])
				sent++
				way = way[1:]
			}
			synctest.Wait()
			for len(far.in) > 0 {
				switch packet := (<-far.in).(type) {
				case *packets.PublishPacket:
					way = append(way, packet)
				case *packets.UnsubscribePacket:
					far.unsuback(packet)
				default:
					left = true
				}
			}
		}
		if len(way) > 0 {
			t.Errorf("the client left with %d messages on their way", len(way))
		}
		if lasted := time.Since(began); lasted >= DefaultTokenLife {
			t.Errorf("the connection lasted %v", lasted)
		}
		far = p.accept()
		arrive(far, sent, 2)
		far.Close()
		if err := <-result; !errors.Is(err, ErrConnectionLost) || f.acked != sent {
			t.Errorf("error %v, %d acknowledged; want %v, %d", err, f.acked, ErrConnectionLost, sent)
		}
	})
}

func TestStreamThatIsStoppedWaitsForAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, nil)
		defer c.Close()
		for acks := range 2 {
			f := newFeed(2)
			ctx, cancel := context.WithCancel(t.Context())
			result := f.stream(ctx, c, 10)
			way := arrive(far, 0, 2)
			synctest.Wait() // the client knows that it has sent both
			cancel()
			synctest.Wait()
			for _, m := range way[:acks+1] {
				far.puback(m)
			}
			if err := <-result; !errors.Is(err, context.Canceled) || f.acked != acks+1 {
				t.Errorf("error %v, %d acknowledged, want %d", err, f.acked, acks+1)
			}
		}
	})
}

func TestStreamRefusesWhatCannotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, nil)
		defer c.Close()
		n := 0
		next := func(context.Context) (Message, error) {
			n++
			return Message{Payload: make([]byte, n*maxMessage)}, nil
		}
		result := make(chan error, 1)
		go func() { result <- c.SendStream(t.Context(), 0, next, func() {}) }()
		far.puback(func() *packets.PublishPacket { p := <-far.in; return p.(*packets.PublishPacket) }())
		checkError(t, <-result, "524288 bytes")
	})
}
