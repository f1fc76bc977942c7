package mqttdevice

import (
	"context"
	"maps"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
)

func TestMessageTopic(t *testing.T) {
	tests := []struct {
		name string
		id   string
		m    Message
		want string
	}{
		{"no properties", "dev-1", Message{}, "devices/dev-1/messages/events/"},
		{"a module", "dev-1/mod-1", Message{Output: "alert"}, "devices/dev-1/modules/mod-1/messages/events/%24.on=alert"},
		{"an id with punctuation stays as it is", "a+b#%'$", Message{}, "devices/a+b#%'$/messages/events/"},
		{
			"system properties come first, the application's are sorted", "dev-1",
			Message{ID: "1", CorrelationID: "c", UserID: "u", ContentType: "application/json", ContentEncoding: "utf-8",
				Created: time.Date(2026, 1, 2, 3, 4, 5, 600, time.FixedZone("", 3600)), Component: "thermostat1",
				Properties: map[string]string{"b": "x y+z/&=%", "a": "", "ä": "€", "$.ifid": "urn:x"}},
			"devices/dev-1/messages/events/%24.mid=1&%24.cid=c&%24.uid=u&%24.ct=application%2Fjson&%24.ce=utf-8" +
				"&%24.ctime=2026-01-02T02%3A04%3A05.0000006Z&%24.sub=thermostat1" +
				"&%24.ifid=urn%3Ax&a=&b=x%20y%2Bz%2F%26%3D%25&%C3%A4=%E2%82%AC",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.m.topic(tt.id)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("topic (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMessageLimits(t *testing.T) {
	exact := Message{Payload: make([]byte, maxMessage-4), ID: "1", Properties: map[string]string{"a": "bc"}}
	if _, err := exact.topic("dev-1"); err != nil {
		t.Errorf("a message of the largest size: %v", err)
	}
	tests := []struct {
		name string
		m    Message
		want string
	}{
		{"one byte too many", Message{Payload: exact.Payload, ID: "12", Properties: exact.Properties}, "262145 bytes"},
		{"a topic too long for MQTT", Message{Properties: map[string]string{"a": strings.Repeat(" ", 22000)}}, "encoded"},
		{"a property without a name", Message{Properties: map[string]string{"": "x"}}, "no name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.m.topic("dev-1")
			checkError(t, err, tt.want)
		})
	}
}

func TestSendWaitsForTheAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, nil)
		defer c.Close()
		result := make(chan error, 1)
		go func() {
			result <- c.Send(context.Background(), Message{Payload: []byte("21.5"), Properties: map[string]string{"a": "b"}})
		}()
		got := next[*packets.PublishPacket](far)
		if got.Qos != 1 || got.TopicName != "devices/dev-1/messages/events/a=b" || string(got.Payload) != "21.5" {
			t.Errorf("sent %v", got)
		}
		synctest.Wait()
		select {
		case err := <-result:
			t.Fatalf("Send returned %v before PUBACK", err)
		default:
		}
		far.puback(got)
		if err := <-result; err != nil {
			t.Errorf("Send returned %v", err)
		}
	})
}

// A hub decodes what a client encodes, and finds every property.
func FuzzPropertyBag(f *testing.F) {
	f.Add("name", "value", "message-id")
	f.Add("a&b=c", "50%+1 /?", "ü\x00$.")
	f.Fuzz(func(t *testing.T, name, value, id string) {
		m := Message{ID: id, Properties: map[string]string{name: value}}
		topic, err := m.topic("dev-1")
		if err != nil {
			t.Skip()
		}
		got := map[string]string{}
		for pair := range strings.SplitSeq(strings.TrimPrefix(topic, "devices/dev-1/messages/events/"), "&") {
			if strings.ContainsAny(pair, "/+#$ ") {
				t.Errorf("%q has characters that mean something in a topic", pair)
			}
			n, v, _ := strings.Cut(pair, "=")
			n, err1 := url.PathUnescape(n)
			v, err2 := url.PathUnescape(v)
			if err1 != nil || err2 != nil {
				t.Fatalf("%q cannot be decoded", pair)
			}
			got[n] = v
		}
		want := maps.Clone(m.Properties)
		if _, twice := want["$.mid"]; id != "" && !twice {
			want["$.mid"] = id
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("bag %s (-want +got):\n%s", topic, diff)
		}
	})
}
