package mqttdevice

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
)

func TestMethodsAreAnswered(t *testing.T) {
	echo := func(_ context.Context, m Method) Response {
		return Response{Payload: map[string]any{"name": m.Name, "payload": m.Payload}}
	}
	prepare := func(c *Client) {
		c.HandleMethod("echo", echo)
		c.HandleMethod("teapot", func(context.Context, Method) Response { return Response{Status: 418} })
		c.HandleMethod("panics", func(context.Context, Method) Response { panic("secret") })
		c.HandleMethod("no-json", func(context.Context, Method) Response { return Response{Payload: make(chan int)} })
		c.HandleMethod("huge", func(context.Context, Method) Response {
			return Response{Payload: strings.Repeat("x", maxMethodPayload)}
		})
		c.HandleMethod("removed", echo)
		c.HandleMethod("removed", nil)
	}
	tests := []struct {
		name       string
		topic      string
		payload    string
		wantTopic  string
		wantAnswer string
	}{
		{"the handler's answer", "echo/?$rid=a7", `{"delay":5}`, "200/?$rid=a7", `{"name":"echo","payload":{"delay":5}}`},
		{"a call without payload", "echo/?$rid=1", "", "200/?$rid=1", `{"name":"echo","payload":null}`},
		{"the request id goes back as it came", "echo/?$rid=3f2b-%41", "1", "200/?$rid=3f2b-%41", `{"name":"echo","payload":1}`},
		{"a status without payload", "teapot/?$rid=1", "null", "418/?$rid=1", "null"},
		{"a method that nobody handles", "unknown/?$rid=1", "{}", "501/?$rid=1", `{"message":"no such method"}`},
		{"a handler that was removed", "removed/?$rid=1", "{}", "501/?$rid=1", `{"message":"no such method"}`},
		{"a handler that panics", "panics/?$rid=1", "{}", "500/?$rid=1", `{"message":"the method handler panicked"}`},
		{"an answer that is no JSON", "no-json/?$rid=1", "{}", "500/?$rid=1", `{"message":"the method's answer is no JSON"}`},
		{"an answer that is too large", "huge/?$rid=1", "{}", "500/?$rid=1", `{"message":"the method's answer is larger than 128 KiB"}`},
	}
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, prepare)
		defer c.Close()
		far.publish("$iothub/methods/POST/echo/", "{}")  // no request id
		far.publish("$iothub/methods/POST//?$rid=1", "") // no name
		for _, tt := range tests {
			far.publish("$iothub/methods/POST/"+tt.topic, tt.payload)
			got := next[*packets.PublishPacket](far)
			if diff := cmp.Diff("$iothub/methods/res/"+tt.wantTopic, got.TopicName); diff != "" {
				t.Errorf("%s: topic (-want +got):\n%s", tt.name, diff)
			}
			if diff := cmp.Diff(tt.wantAnswer, string(got.Payload)); diff != "" {
				t.Errorf("%s: payload (-want +got):\n%s", tt.name, diff)
			}
			if got.Qos != 0 {
				t.Errorf("%s: answer at QoS %d, want 0", tt.name, got.Qos)
			}
		}

		c.HandleMethod("", echo)
		far.publish("$iothub/methods/POST/unknown/?$rid=1", "{}")
		if got, want := string(next[*packets.PublishPacket](far).Payload), `{"name":"unknown","payload":{}}`; got != want {
			t.Errorf("the handler of every other method answered %s, want %s", got, want)
		}
	})
}

// The hub may send as soon as it has accepted the device: the session it kept has the subscriptions.
func TestMethodBeforeSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, _ := device(t, p, Options{})
		defer c.Close()
		go c.Connect(t.Context())
		far := <-p.conns
		next[*packets.ConnectPacket](far)
		far.connack(packets.Accepted)
		far.publish("$iothub/methods/POST/x/?$rid=1", "{}")
		topics := map[string]bool{}
		for range 2 {
			switch packet := (<-far.in).(type) {
			case *packets.PublishPacket:
				topics[packet.TopicName] = true
			case *packets.SubscribePacket:
				topics["SUBSCRIBE"] = true
				far.suback(packet, 0, 0, 0)
			}
		}
		want := map[string]bool{"SUBSCRIBE": true, "$iothub/methods/res/501/?$rid=1": true}
		if diff := cmp.Diff(want, topics); diff != "" {
			t.Errorf("client sent (-want +got):\n%s", diff)
		}
	})
}

func TestMethodsRunSideBySideUpToALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		release := make(chan struct{})
		c, far, _ := connected(t, p, func(c *Client) {
			c.HandleMethod("wait", func(context.Context, Method) Response { <-release; return Response{} })
		})
		defer c.Close()
		for i := range maxMethods {
			far.publish(fmt.Sprintf("$iothub/methods/POST/wait/?$rid=%d", i), "{}")
		}
		synctest.Wait()
		far.publish("$iothub/methods/POST/wait/?$rid=many", "{}")
		if got, want := next[*packets.PublishPacket](far).TopicName, "$iothub/methods/res/429/?$rid=many"; got != want {
			t.Errorf("the client published %s, want %s", got, want)
		}
		close(release)
		for range maxMethods {
			if got := next[*packets.PublishPacket](far).TopicName; !strings.HasPrefix(got, "$iothub/methods/res/200/") {
				t.Errorf("the client published %s, want an answer", got)
			}
		}
	})
}

func FuzzTopics(f *testing.F) {
	f.Add("$iothub/methods/POST/reboot/?$rid=a7")
	f.Add("$iothub/twin/res/204/?$rid=2&$version=124")
	f.Add("$iothub/twin/PATCH/properties/desired/?$version=8")
	f.Add("$iothub/twin/res//?&=&$rid")
	f.Fuzz(func(t *testing.T, topic string) {
		if name, rid, ok := parseMethodTopic(topic); ok {
			n, r, ok := parseMethodTopic(methodTopic + name + "/?$rid=" + rid)
			if n != name || r != rid || !ok {
				t.Errorf("method %q rid %q of %q become %q and %q", name, rid, topic, n, r)
			}
		}
		if status, rid, version, ok := parseTwinAnswerTopic(topic); ok {
			s, r, v, ok := parseTwinAnswerTopic(fmt.Sprintf("%s%d/?$rid=%s&$version=%d", twinAnswerTopic, status, rid, version))
			if s != status || r != rid || v != version || !ok {
				t.Errorf("status %d rid %q version %d of %q become %d, %q and %d", status, rid, version, topic, s, r, v)
			}
		}
		parseDesiredPatchTopic(topic)
	})
}

func TestMessageIsJSON(t *testing.T) {
	if got := message("\x00\"<"); !json.Valid(got) {
		t.Errorf("message is %s, want JSON", got)
	}
}
