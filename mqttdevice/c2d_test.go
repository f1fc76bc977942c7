package mqttdevice

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
)

func TestParseMessage(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want CloudToDeviceMessage
	}{
		{
			name: "as IoT Hub writes it",
			in: "%24.mid=m-1&%24.to=%2Fdevices%2Fdev-1%2Fmessages%2FdeviceBound&%24.cid=c-1&%24.uid=u-1&%24.ct=application%2Fjson&%24.ce=utf-8" +
				"&iothub-ack=full&prop1&prop2=&prop3=a%20string",
			want: CloudToDeviceMessage{
				ID: "m-1", CorrelationID: "c-1", UserID: "u-1", To: "/devices/dev-1/messages/deviceBound",
				ContentType: "application/json", ContentEncoding: "utf-8", Ack: "full",
				Properties: map[string]string{"prop1": "", "prop2": "", "prop3": "a string"},
			},
		},
		{"nothing", "", CloudToDeviceMessage{}},
		{"dollars as they are", "$.mid=1", CloudToDeviceMessage{ID: "1"}},
		{"a time", "%24.exp=2026-01-01T00%3A00%3A00.5000000Z", CloudToDeviceMessage{Expiry: time.Date(2026, 1, 1, 0, 0, 0, 5e8, time.UTC)}},
		{"a time that is none", "%24.exp=soon", CloudToDeviceMessage{Properties: map[string]string{"$.exp": "soon"}}},
		{"a system property of tomorrow", "%24.new=1", CloudToDeviceMessage{Properties: map[string]string{"$.new": "1"}}},
		{"a plus is a plus", "a+b=c+d", CloudToDeviceMessage{Properties: map[string]string{"a+b": "c+d"}}},
		{"the last of two counts", "a=1&a=2", CloudToDeviceMessage{Properties: map[string]string{"a": "2"}}},
		{"an equals sign in a value", "a=1=2", CloudToDeviceMessage{Properties: map[string]string{"a": "1=2"}}},
		{"an escape that is none", "a=%zz&&=x", CloudToDeviceMessage{Properties: map[string]string{"a": "%zz"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, parseMessage(tt.in)); diff != "" {
				t.Errorf("parseMessage(%q) (-want +got):\n%s", tt.in, diff)
			}
		})
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add("a", "b c", "m")
	f.Add("$.x", "=&%", "")
	f.Fuzz(func(t *testing.T, name, value, id string) {
		parseMessage(name)
		switch name {
		case "", "$.mid", "$.cid", "$.uid", "$.to", "$.ct", "$.ce", "$.exp", "iothub-ack":
			t.Skip("has a field of its own")
		}
		want := CloudToDeviceMessage{ID: id, Properties: map[string]string{name: value}}
		got := parseMessage(url.PathEscape("$.mid") + "=" + escape(id) + "&" + escape(name) + "=" + escape(value))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// sendMessage sends a cloud-to-device message at QoS 1.
func (c *peerConn) sendMessage(id uint16, payload string) {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID = 1, id
	p.TopicName, p.Payload = fmt.Sprintf("devices/dev-1/messages/devicebound/%%24.mid=%d&%%24.to=x", id), []byte(payload)
	c.send(p)
}

// acceptMessages is accept for a client that also subscribes to messages.
func (p *peer) acceptMessages() *peerConn {
	p.t.Helper()
	c := <-p.conns
	next[*packets.ConnectPacket](c)
	c.connack(packets.Accepted)
	subscribe := next[*packets.SubscribePacket](c)
	codes := make([]byte, len(subscribe.Topics))
	for i, filter := range subscribe.Topics {
		codes[i] = subscribe.Qoss[i]
		if filter == "devices/dev-1/messages/devicebound/#" && codes[i] != 1 {
			p.t.Errorf("%s at QoS %d, want 1", filter, codes[i])
		}
	}
	if len(codes) != 4 {
		p.t.Errorf("the client subscribed to %v, want messages too", subscribe.Topics)
	}
	c.suback(subscribe, codes...)
	return c
}

// handling returns a client that is connected and gives messages to h, and the peer's end.
func handling(t *testing.T, p *peer, h MessageHandler) (*Client, *peerConn) {
	t.Helper()
	c, _ := device(t, p, Options{})
	c.HandleMessage(h)
	result := make(chan error, 1)
	go func() { result <- c.Connect(t.Context()) }()
	far := p.acceptMessages()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	return c, far
}

func TestMessagesAreAcknowledgedOnceHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		seen, verdict := make(chan string), make(chan error)
		c, far := handling(t, p, func(_ context.Context, m CloudToDeviceMessage) error {
			seen <- m.ID + " " + string(m.Payload)
			err := <-verdict
			if err == errPanic {
				panic(err)
			}
			return err
		})
		defer c.Close()
		for i, payload := range []string{"fails", "panics", "first", "second"} {
			far.sendMessage(uint16(i+1), payload)
		}
		for i, outcome := range []error{errors.New("no"), errPanic, nil, nil} {
			got, want := <-seen, fmt.Sprint(i+1, " ", []string{"fails", "panics", "first", "second"}[i])
			if got != want {
				t.Errorf("the handler got %q, want %q", got, want)
			}
			synctest.Wait()
			if len(far.in) > 0 {
				t.Fatalf("message %d: the client sent %v while it was being handled", i+1, <-far.in)
			}
			verdict <- outcome
			if outcome != nil {
				continue
			}
			if got := next[*packets.PubackPacket](far).MessageID; got != uint16(i+1) {
				t.Errorf("the client acknowledged %d, want %d", got, i+1)
			}
		}
	})
}

var errPanic = errors.New("panic")

func TestMessagesOfALostConnectionAreLeftToTheHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		seen, finish := make(chan string), make(chan struct{})
		c, far := handling(t, p, func(_ context.Context, m CloudToDeviceMessage) error {
			seen <- string(m.Payload)
			<-finish
			return nil
		})
		defer c.Close()
		far.sendMessage(1, "under way")
		far.sendMessage(2, "waiting")
		<-seen
		synctest.Wait()
		far.Close()
		far = p.acceptMessages()
		far.sendMessage(1, "again")
		finish <- struct{}{}
		if got := <-seen; got != "again" {
			t.Errorf("the handler got %q, want the message that came again", got)
		}
		finish <- struct{}{}
		next[*packets.PubackPacket](far)
	})
}

func TestCloseLetsAMessageFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		seen, finish := make(chan string, 10), make(chan struct{})
		c, far := handling(t, p, func(_ context.Context, m CloudToDeviceMessage) error {
			seen <- string(m.Payload)
			<-finish
			return nil
		})
		far.sendMessage(1, "under way")
		far.sendMessage(2, "waiting")
		<-seen
		go c.Close()
		synctest.Wait()
		close(finish)
		if got := next[*packets.PubackPacket](far).MessageID; got != 1 {
			t.Errorf("the client acknowledged %d, want 1", got)
		}
		next[*packets.DisconnectPacket](far)
		synctest.Wait()
		if len(seen) > 0 {
			t.Errorf("a message was handled after Close: %s", <-seen)
		}
	})
}

func TestTooManyMessagesAreLeftToTheHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		finish := make(chan struct{})
		c, far := handling(t, p, func(context.Context, CloudToDeviceMessage) error { <-finish; return nil })
		defer c.Close()
		const sent = maxMessages + 10
		for i := range sent {
			far.sendMessage(uint16(i+1), "")
			synctest.Wait()
		}
		close(finish)
		for i := range maxMessages + 1 { // one is with the handler
			if got := next[*packets.PubackPacket](far).MessageID; got != uint16(i+1) {
				t.Fatalf("the client acknowledged %d, want %d", got, i+1)
			}
		}
		synctest.Wait()
		if len(far.in) > 0 {
			t.Errorf("the client sent %v, want no more than %d acknowledgements", <-far.in, maxMessages+1)
		}
	})
}

// A session that the hub kept may still have the subscription of an earlier program.
func TestMessagesWithoutHandlerAreLeftToTheHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, nil)
		far.sendMessage(1, "x")
		synctest.Wait()
		c.Close()
		far.gone()
	})
}
