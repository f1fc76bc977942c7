package mqttdevice

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func TestCloseSendsAnswersAndDisconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, events := connected(t, p, func(c *Client) {
			c.HandleMethod("slow", func(ctx context.Context, _ Method) Response {
				time.Sleep(closeGrace / 2)
				// What a handler still has to say is heard, too.
				version, err := c.PatchReported(ctx, map[string]int{"done": 1})
				if err != nil || ctx.Err() != nil {
					t.Errorf("PatchReported in a handler returned %v, context %v", err, ctx.Err())
				}
				return Response{Status: 202, Payload: version}
			})
		})
		far.publish("$iothub/methods/POST/slow/?$rid=1", "{}")
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- c.Close() }()
		synctest.Wait()
		far.publish("$iothub/methods/POST/slow/?$rid=2", "{}") // too late
		patch := next[*packets.PublishPacket](far)
		far.publish("$iothub/twin/res/204/?"+patch.TopicName[len("$iothub/twin/PATCH/properties/reported/?"):]+"&$version=7", "")
		answer := next[*packets.PublishPacket](far)
		if got, want := answer.TopicName+string(answer.Payload), "$iothub/methods/res/202/?$rid=17"; got != want {
			t.Errorf("answer %s, want %s", got, want)
		}
		next[*packets.DisconnectPacket](far)
		far.gone()
		if err := <-closed; err != nil {
			t.Errorf("Close returned %v", err)
		}
		if got := events.await(Disconnected); got.Reason != ErrClosed || got.Retry != 0 {
			t.Errorf("event %+v, want %v", got, ErrClosed)
		}
		if err := c.Close(); err != nil {
			t.Errorf("second Close returned %v", err)
		}
		if err := c.Connect(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Connect after Close returned %v, want %v", err, ErrClosed)
		}
	})
}

func TestCloseCancelsWhatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, func(c *Client) {
			c.HandleMethod("", func(ctx context.Context, _ Method) Response {
				<-ctx.Done()
				return Response{Status: 503}
			})
		})
		far.publish("$iothub/methods/POST/long/?$rid=1", "{}")
		synctest.Wait()
		began := time.Now()
		c.Close()
		if waited := time.Since(began); waited != closeGrace {
			t.Errorf("Close took %v, want %v", waited, closeGrace)
		}
		if got := next[*packets.PublishPacket](far).TopicName; got != "$iothub/methods/res/503/?$rid=1" {
			t.Errorf("the client published %s, want the answer", got)
		}
		next[*packets.DisconnectPacket](far)
	})
}

func TestCloseWithoutAConnection(t *testing.T) {
	t.Run("before Connect", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := device(t, nil, Options{})
			c.Close()
		})
	})
	t.Run("while Connect dials", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := device(t, nil, Options{})
			c.dial = func(ctx context.Context) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			result := make(chan error)
			go func() { result <- c.Connect(t.Context()) }()
			synctest.Wait()
			go c.Close()
			if err := <-result; !errors.Is(err, ErrClosed) {
				t.Errorf("Connect returned %v, want %v", err, ErrClosed)
			}
		})
	})
	t.Run("while Connect waits for CONNACK", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			c, _ := device(t, p, Options{})
			result := make(chan error, 1)
			go func() { result <- c.Connect(t.Context()) }()
			far := <-p.conns
			next[*packets.ConnectPacket](far)
			c.Close()
			if err := <-result; !errors.Is(err, ErrClosed) {
				t.Errorf("Connect returned %v, want %v", err, ErrClosed)
			}
			far.gone()
		})
	})
	t.Run("before the next attempt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			c, far, events := connected(t, p, func(c *Client) {
				c.HandleMethod("", func(ctx context.Context, _ Method) Response {
					<-ctx.Done()
					return Response{}
				})
			})
			far.publish("$iothub/methods/POST/long/?$rid=1", "{}")
			synctest.Wait()
			far.Close()
			events.await(Disconnected)
			began := time.Now()
			c.Close() // the answer can go nowhere, so there is nothing to be patient for
			if waited := time.Since(began); waited != 0 {
				t.Errorf("Close took %v, want none", waited)
			}
		})
	})
}
