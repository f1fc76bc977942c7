package mqtt

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/sas"
)

// A peer is the other end of a connection to a hub whose clock the test owns:
// time passes when everybody waits. Writes block until the hub reads.
type peer struct {
	t *testing.T
	net.Conn
	closed chan time.Time // when the hub closed the connection
	read   chan packets.ControlPacket
}

// inBubble runs a test with the door of a hub that has device "d1".
func inBubble(t *testing.T, run func(t *testing.T, d *Door)) {
	synctest.Test(t, func(t *testing.T) {
		db, err := store.OpenMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		events, err := eventlog.OpenMemory(eventlog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer events.Close()
		h, err := hub.New(hub.Options{Store: db, Events: events})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		d := New(h, Options{})
		defer closeDoor(d)
		if _, err := h.PutIdentity(testDevice, hub.IdentitySpec{}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
		run(t, d)
	})
}

// closeDoor ends the connections as a node does.
func closeDoor(d *Door) {
	d.hub.Stop()
	d.Close()
}

func connectTo(t *testing.T, d *Door) *peer {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close() })
	d.running.Go(func() { d.handshake(far, d.metrics.plain) })
	return &peer{t: t, Conn: near, closed: make(chan time.Time, 1), read: make(chan packets.ControlPacket, 100)}
}

// listen reads what the hub sends until it closes the connection.
func (p *peer) listen() {
	go func() {
		for {
			packet, err := packets.ReadPacket(p)
			if err != nil {
				p.closed <- time.Now()
				return
			}
			p.read <- packet
		}
	}()
}

func (p *peer) connect(d *Door, life time.Duration, keepAlive uint16) {
	p.t.Helper()
	p.listen()
	i, err := d.hub.Identity(testDevice)
	if err != nil {
		p.t.Fatal(err)
	}
	token, err := sas.Sign("localhost/devices/d1", "", i.Auth.SymmetricKey.Primary, time.Now().Add(life))
	if err != nil {
		p.t.Fatal(err)
	}
	connect := &packets.ConnectPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Connect}, ProtocolName: "MQTT", ProtocolVersion: 4, Keepalive: keepAlive,
		ClientIdentifier: "d1", UsernameFlag: true, Username: "localhost/d1/?api-version=2021-04-12", PasswordFlag: true, Password: []byte(token)}
	if err := connect.Write(p); err != nil {
		p.t.Fatal(err)
	}
	if ack, ok := (<-p.read).(*packets.ConnackPacket); !ok || ack.ReturnCode != 0 {
		p.t.Fatalf("got %v, want CONNACK 0", ack)
	}
}

// wantClosedAfter wants the hub to close the connection at that time from now.
func (p *peer) wantClosedAfter(d time.Duration) {
	p.t.Helper()
	began := time.Now()
	select {
	case at := <-p.closed:
		if got := at.Sub(began); got != d {
			p.t.Errorf("closed after %v, want %v", got, d)
		}
	case <-time.After(d + time.Hour):
		p.t.Errorf("not closed %v after the time", time.Hour)
	}
}

func TestSilentPeers(t *testing.T) {
	for _, tt := range []struct {
		name      string
		keepAlive uint16
		want      time.Duration
	}{
		{"one and a half times the keep-alive", 60, 90 * time.Second},
		{"the service's cap", 1740, 1767 * time.Second},
		{"no keep-alive is the cap", 0, 1767 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, d *Door) {
				p := connectTo(t, d)
				p.connect(d, time.Hour, tt.keepAlive)
				p.wantClosedAfter(tt.want)
			})
		})
	}
	t.Run("any packet starts the time anew", func(t *testing.T) {
		inBubble(t, func(t *testing.T, d *Door) {
			p := connectTo(t, d)
			p.connect(d, time.Hour, 60)
			for range 3 {
				time.Sleep(89 * time.Second) // of the bubble's clock
				p.Write([]byte{packets.Pingreq << 4, 0})
				<-p.read
			}
			p.wantClosedAfter(90 * time.Second)
		})
	})
	t.Run("the token's expiry and five minutes", func(t *testing.T) {
		inBubble(t, func(t *testing.T, d *Door) {
			p := connectTo(t, d)
			p.connect(d, 10*time.Minute, 0)
			p.wantClosedAfter(15 * time.Minute)
		})
	})
}

func TestSlowPeers(t *testing.T) {
	t.Run("nothing at all", func(t *testing.T) {
		inBubble(t, func(t *testing.T, d *Door) {
			p := connectTo(t, d)
			p.listen()
			p.wantClosedAfter(connectTimeout)
		})
	})
	t.Run("a CONNECT of one byte a minute", func(t *testing.T) {
		inBubble(t, func(t *testing.T, d *Door) {
			p := connectTo(t, d)
			p.listen()
			p.Write([]byte{packets.Connect << 4})
			time.Sleep(connectTimeout - time.Second)
			p.Write([]byte{100})
			p.wantClosedAfter(time.Second)
		})
	})
	t.Run("a packet of one byte a minute", func(t *testing.T) {
		inBubble(t, func(t *testing.T, d *Door) {
			p := connectTo(t, d)
			p.connect(d, 24*time.Hour, 240)
			wrote := make(chan struct{})
			go func() {
				defer close(wrote)
				big := pack(t, publishOf(200_000))
				for i := range big {
					if _, err := p.Write(big[i : i+1]); err != nil {
						return
					}
					time.Sleep(time.Minute)
				}
			}()
			p.wantClosedAfter(360 * time.Second)
			<-wrote
		})
	})
	t.Run("nothing is read", func(t *testing.T) {
		inBubble(t, func(t *testing.T, d *Door) {
			p := connectTo(t, d)
			p.connect(d, time.Hour, 0)
			p.Write(pack(t, &packets.SubscribePacket{FixedHeader: packets.FixedHeader{MessageType: packets.Subscribe, Qos: 1}, MessageID: 1, Topics: []string{"$iothub/#"}, Qoss: []byte{0}}))
			<-p.read
			c := d.hub.Link(testDevice).(*conn)
			// The far end takes no more: what it is sent waits.
			p.stop()
			patch := bytes.Repeat([]byte("x"), 32<<10)
			c.SendDesired(2, patch)
			synctest.Wait() // that one is being written
			c.SendDesired(2, patch)
			c.SendDesired(2, patch)
			if queued := c.backlog(); queued == 0 {
				t.Error("nothing waits")
			}
			began := time.Now()
			<-c.gone
			if got := time.Since(began); got != writeTimeout {
				t.Errorf("gone after %v, want %v", got, writeTimeout)
			}
			if !errors.Is(c.reason, errSlowReader) {
				t.Errorf("reason %v, want %v", c.reason, errSlowReader)
			}
		})
	})
	t.Run("too much waits", func(t *testing.T) {
		inBubble(t, func(t *testing.T, d *Door) {
			p := connectTo(t, d)
			p.connect(d, time.Hour, 0)
			p.Write(pack(t, &packets.SubscribePacket{FixedHeader: packets.FixedHeader{MessageType: packets.Subscribe, Qos: 1}, MessageID: 1, Topics: []string{"$iothub/#"}, Qoss: []byte{0}}))
			<-p.read
			c := d.hub.Link(testDevice).(*conn)
			p.stop()
			began := time.Now()
			for range 2 * maxQueued / hub.MaxMethodPayload {
				c.sendMethod("1", topicOfMethod("m", "1"), make([]byte, hub.MaxMethodPayload))
				if n := c.backlog(); n > maxQueued {
					t.Errorf("%d bytes wait, want at most %d", n, maxQueued)
				}
			}
			<-c.gone
			if !errors.Is(c.reason, errSlowReader) || time.Since(began) != 0 {
				t.Errorf("gone for %v after %v, want %v at once", c.reason, time.Since(began), errSlowReader)
			}
		})
	})
	t.Run("answers to many requests are not read", func(t *testing.T) {
		inBubble(t, func(t *testing.T, d *Door) {
			p := connectTo(t, d)
			p.connect(d, time.Hour, 0)
			c := d.hub.Link(testDevice).(*conn)
			p.stop()
			get := pack(t, &packets.PublishPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Publish}, TopicName: "$iothub/twin/GET/?$rid=1"})
			wrote := make(chan struct{})
			go func() {
				defer close(wrote)
				p.Write(bytes.Repeat(get, 10_000))
			}()
			<-c.gone
			<-wrote
			if !errors.Is(c.reason, errSlowReader) {
				t.Errorf("reason %v, want %v", c.reason, errSlowReader)
			}
		})
	})
}

// TestCloseEndsEveryConnection closes a hub with connections in every state.
func TestCloseEndsEveryConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, d *Door) {
		idle, half, connected := connectTo(t, d), connectTo(t, d), connectTo(t, d)
		idle.listen()
		half.listen()
		half.Write([]byte{packets.Connect << 4, 50})
		connected.connect(d, time.Hour, 0)
		closeDoor(d)
		for _, p := range []*peer{idle, half, connected} {
			p.wantClosedAfter(0)
		}
	})
}

func TestMessagesToTheDevice(t *testing.T) {
	inBubble(t, func(t *testing.T, d *Door) {
		p := connectTo(t, d)
		p.connect(d, time.Hour, 0)
		c := d.hub.Link(testDevice).(*conn)
		if c.TakesMessages() {
			t.Error("takes messages before it subscribed")
		}
		p.Write(pack(t, &packets.SubscribePacket{FixedHeader: packets.FixedHeader{MessageType: packets.Subscribe, Qos: 1}, MessageID: 1, Topics: []string{"devices/+/messages/devicebound/#"}, Qoss: []byte{2}}))
		<-p.read
		for i := range maxUnacked + 2 {
			if err := d.hub.SendMessage("d1", hub.Message{Body: []byte(strconv.Itoa(i))}); err != nil {
				t.Fatal(err)
			}
		}
		var ids []uint16
		for i := range maxUnacked {
			got := (<-p.read).(*packets.PublishPacket)
			ids = append(ids, got.MessageID)
			if got.Qos != 1 || !strings.HasPrefix(got.TopicName, "devices/d1/messages/devicebound/%24.to=") || string(got.Payload) != strconv.Itoa(i) {
				t.Errorf("message %d is %v", i, got)
			}
		}
		synctest.Wait()
		if c.TakesMessages() || len(p.read) > 0 {
			t.Error("one message too many is taken")
		}
		waiting := func() int { return d.hub.ConnectionState(testDevice).PendingMessages }
		c.Forget(c.messages[0].token)
		for _, id := range []uint16{999, ids[0]} { // which nobody waits for
			p.Write(pack(t, &packets.PubackPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Puback}, MessageID: id}))
		}
		synctest.Wait()
		if got := waiting(); got != maxUnacked+2 {
			t.Errorf("%d messages wait after acknowledgements of none", got)
		}
		p.Write(pack(t, &packets.PubackPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Puback}, MessageID: ids[1]}))
		for i := range 2 { // in the places of the forgotten one and of the acknowledged one
			if got := (<-p.read).(*packets.PublishPacket); string(got.Payload) != strconv.Itoa(maxUnacked+i) {
				t.Errorf("then comes %s", got.Payload)
			}
		}
		if got := waiting(); got != maxUnacked+1 {
			t.Errorf("%d messages wait after one was acknowledged", got)
		}
		p.Close()
		<-c.gone
		if taken, _ := c.Deliver(&hub.ReceivedMessage{}); taken {
			t.Error("a message is taken after the end")
		}
	})
}

// stop ends listen without closing the connection.
func (p *peer) stop() {
	p.SetReadDeadline(longAgo)
	<-p.closed
}

// TestWhoWritesDirectMethods has the caller write while the device reads, and
// somebody else as soon as the write might wait for the device.
func TestWhoWritesDirectMethods(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	go io.Copy(io.Discard, far)
	c := &conn{door: New(nil, Options{}), net: near, open: true, filters: []subscription{{filter: methodTopic + "#"}}}
	rid, payload := 0, make([]byte, maxUnread/4)
	queue := func() (mine bool) {
		rid++
		name := strconv.Itoa(rid)
		if _, err := c.expect(name); err != nil {
			t.Fatal(err)
		}
		if _, mine = c.queueMethod(name, topicOfMethod("m", name), payload); mine {
			c.write()
		}
		c.writers.Wait()
		return mine
	}
	for _, want := range []bool{true, true, true, false, false} {
		if got := queue(); got != want {
			t.Fatalf("call %d is written by its caller: %v, want %v", rid, got, want)
		}
	}
	c.answer("5", answer{}) // what was sent before has been read too
	if !queue() {
		t.Error("a call is not written by its caller though all before it were read")
	}
}

// TestMethodIsSentToNobodyWhoLeft is about a device that ends its subscription
// while a call is on its way to it: what UNSUBACK promised holds.
func TestMethodIsSentToNobodyWhoLeft(t *testing.T) {
	c := &conn{door: New(nil, Options{}), open: true}
	if c.sendMethod("1", topicOfMethod("m", "1"), nil) || c.backlog() > 0 {
		t.Error("a method is sent without a subscription")
	}
}
