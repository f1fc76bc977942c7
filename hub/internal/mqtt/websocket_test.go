package mqtt_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
)

func TestWebSocketHandshake(t *testing.T) {
	h := hubtest.New(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: h.ClientTLS()}}
	defer client.CloseIdleConnections()
	for _, tt := range []struct {
		name, path, protocol string
		header               http.Header
		status               int
		echoed, says         string
	}{
		{name: "Node, with a compression it offers", path: "/$iothub/websocket", protocol: "mqtt", header: http.Header{"Sec-WebSocket-Extensions": {"permessage-deflate; client_max_window_bits"}}, status: 101, echoed: "mqtt"},
		{name: "C's spelling", path: "/$iothub/websocket", protocol: "MQTT", status: 101, echoed: "MQTT"},
		{name: "Java's query", path: "/$iothub/websocket?iothub-no-client-cert=true", protocol: "mqtt", status: 101, echoed: "mqtt"},
		{name: "an encoded path", path: "/%24iothub/websocket", protocol: "mqtt", status: 101, echoed: "mqtt"},
		{name: "Python's origin", path: "/$iothub/websocket", protocol: "mqtt", header: http.Header{"Origin": {"https://elsewhere:443"}}, status: 101, echoed: "mqtt"},
		{name: "one of several", path: "/$iothub/websocket", protocol: "mqttv5, mqtt", status: 101, echoed: "mqtt"},
		{name: "no subprotocol", path: "/$iothub/websocket", status: 400, says: `must be "mqtt"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+h.HTTPSAddr+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, values := range tt.header {
				r.Header[name] = values
			}
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
			r.Header.Set("Sec-WebSocket-Version", "13")
			r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
			if tt.protocol != "" {
				r.Header.Set("Sec-WebSocket-Protocol", tt.protocol)
			}
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != tt.status || res.Header.Get("Sec-WebSocket-Protocol") != tt.echoed || res.Header.Get("Sec-WebSocket-Extensions") != "" {
				t.Errorf("%s, headers %v, want %d with subprotocol %q and no extension", res.Status, res.Header, tt.status, tt.echoed)
			}
			if tt.status != 101 {
				if body, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(body), tt.says) {
					t.Errorf("body %q (%v), want %q in it", body, err, tt.says)
				}
			}
		})
	}
}

// TestWebSocketFrames cuts packets into frames at every byte, and puts several
// packets into one.
func TestWebSocketFrames(t *testing.T) {
	h := hubtest.New(t)
	cs := h.Device("d1")
	d := wiretest.DialWebSocket(t, h)
	for _, b := range bytesOf(t, wiretest.ConnectPacket(t, cs)) {
		d.SendBytes(b)
	}
	wiretest.Receive[*packets.ConnackPacket](d)
	var all bytes.Buffer
	for _, p := range []packets.ControlPacket{
		wiretest.SubscribePacket(1, 1, "$iothub/twin/res/#"),
		wiretest.PublishPacket(2, 1, "devices/d1/messages/events/", strings.Repeat("x", 100_000)), // more than a WebSocket library takes by default
		packets.NewControlPacket(packets.Pingreq),
	} {
		if err := p.Write(&all); err != nil {
			t.Fatal(err)
		}
	}
	d.SendBytes(all.Bytes()...)
	wiretest.Receive[*packets.SubackPacket](d)
	wiretest.Receive[*packets.PubackPacket](d)
	wiretest.Receive[*packets.PingrespPacket](d)
}

func TestWebSocketTextFrames(t *testing.T) {
	h := hubtest.New(t)
	ws, _, err := websocket.Dial(t.Context(), "wss://"+h.HTTPSAddr+"/$iothub/websocket", &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: h.ClientTLS()}},
		Subprotocols: []string{"mqtt"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(t.Context(), websocket.MessageText, bytesOf(t, wiretest.ConnectPacket(t, h.Device("d1")))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(t.Context()); err == nil {
		t.Error("the hub answers text frames")
	}
}
