package mqttdevice

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
)

// leaves expects a client that stops taking methods, and then disconnects.
func (c *peerConn) leaves() {
	c.t.Helper()
	c.unsuback(next[*packets.UnsubscribePacket](c))
	next[*packets.DisconnectPacket](c)
}

func (c *peerConn) unsuback(u *packets.UnsubscribePacket) {
	c.t.Helper()
	if diff := cmp.Diff([]string{"$iothub/methods/POST/#"}, u.Topics); diff != "" {
		c.t.Errorf("UNSUBSCRIBE (-want +got):\n%s", diff)
	}
	ack := packets.NewControlPacket(packets.Unsuback).(*packets.UnsubackPacket)
	ack.MessageID = u.MessageID
	c.send(ack)
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
		up := events.await(Connected)

		began := time.Now()
		ahead := <-p.conns // dialled while the first is in use
		far.leaves()
		if life := time.Since(began); life < 48*time.Minute || life > 52*time.Minute {
			t.Errorf("the token of an hour was replaced after %v", life)
		}
		second := next[*packets.ConnectPacket](ahead)
		if string(first.Password) == string(second.Password) {
			t.Error("the second connection has the first one's token")
		}
		ahead.connack(packets.Accepted)
		ahead.suback(next[*packets.SubscribePacket](ahead), 0, 0, 0)

		// It is no loss: events show none, and calls that come in between wait.
		want := []State{
			{Status: Connecting, Since: up.Since, Attempts: 1, Hub: testHub, Device: "dev-1"},
			{Status: Connected, Since: up.Since, Attempts: 1, Addr: up.Addr, Hub: testHub, Device: "dev-1"},
		}
		if diff := cmp.Diff(want, []State{<-events.ch, <-events.ch}); diff != "" {
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
		time.Sleep(47 * time.Minute)
		far.publish("$iothub/methods/POST/slow/?$rid=1", "{}")
		time.Sleep(12 * time.Minute) // the time to renew is over, that of the token is not
		// A method that crosses the request to send no more is answered too.
		leaving := next[*packets.UnsubscribePacket](far)
		far.publish("$iothub/methods/POST/slow/?$rid=2", "{}")
		far.unsuback(leaving)
		close(finish)
		got := map[string]bool{
			next[*packets.PublishPacket](far).TopicName: true,
			next[*packets.PublishPacket](far).TopicName: true,
		}
		want := map[string]bool{"$iothub/methods/res/200/?$rid=1": true, "$iothub/methods/res/200/?$rid=2": true}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
		far.leaves() // which proves that the hub has read the answers
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
		far.leaves()
		if waited, want := time.Since(began), DefaultTokenLife; waited != want {
			t.Errorf("renewed after %v, want %v", waited, want)
		}
		p.accept()
	})
}

// A hub that does not know the way to part, or a network that fails just then, costs no more than
// the connection.
func TestRenewalThatFails(t *testing.T) {
	t.Run("UNSUBSCRIBE is not answered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			c, far, _ := connected(t, p, nil)
			defer c.Close()
			next[*packets.UnsubscribePacket](far)
			began := time.Now()
			next[*packets.DisconnectPacket](far)
			if waited := time.Since(began); waited != pingTimeout {
				t.Errorf("the client left after %v, want %v", waited, pingTimeout)
			}
			p.accept()
		})
	})
	t.Run("the hub cannot be dialled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			var replace func(dialFunc)
			c, far, events := connected(t, p, func(c *Client) { replace = p.dialling(c) })
			defer c.Close()
			events.await(Connected)
			replace(func(context.Context) (net.Conn, error) { return nil, errors.New("no route") })
			time.Sleep(DefaultTokenLife + 5*time.Minute) // the connection is used for as long as the hub lets it
			select {
			case got := <-events.ch:
				t.Errorf("event %+v, want none", got)
			default:
			}
			far.Close()
			if got := events.await(Disconnected); !errors.Is(got.Reason, ErrTokenExpired) {
				t.Errorf("event %+v, want %v", got, ErrTokenExpired)
			}
		})
	})
	t.Run("the connection breaks meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			var replace func(dialFunc)
			c, far, events := connected(t, p, func(c *Client) { replace = p.dialling(c) })
			defer c.Close()
			events.await(Connected)
			dialling := make(chan struct{}, 1)
			replace(func(ctx context.Context) (net.Conn, error) {
				select {
				case dialling <- struct{}{}:
					<-ctx.Done()
					return nil, ctx.Err()
				default:
					return p.dial(ctx)
				}
			})
			<-dialling
			far.Close()
			if got := events.await(Disconnected); got.Reason != ErrHubClosed {
				t.Errorf("event %+v, want %v", got, ErrHubClosed)
			}
			p.accept()
		})
	})
	t.Run("the client is closed meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			c, far, _ := connected(t, p, nil)
			next[*packets.UnsubscribePacket](far)
			go c.Close()
			next[*packets.DisconnectPacket](far)
			(<-p.conns).gone()
		})
	})
}
