package node_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
)

// amqpHeader is what AMQP begins with, and what a peer that speaks it answers.
const amqpHeader = "AMQP\x00\x01\x00\x00"

// What clients ask for to speak AMQP over WebSocket, byte by byte: libraries would
// clean it up.
func TestWebSocketForAMQP(t *testing.T) {
	h := hubtest.New(t)
	for _, tt := range []struct {
		name, target, protocol, header string
		status                         int
		echoed                         string
	}{
		{name: "Node", target: "/$iothub/websocket", protocol: "AMQPWSB10", header: "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n", status: 101, echoed: "AMQPWSB10"},
		{name: "Java, which names the whole address", target: "https://localhost/$iothub/websocket?iothub-no-client-cert=true", protocol: "AMQPWSB10", status: 101, echoed: "AMQPWSB10"},
		{name: "Event Hubs", target: "/$servicebus/websocket", protocol: "AMQPWSB10", header: "Origin: https://localhost\r\n", status: 101, echoed: "AMQPWSB10"},
		{name: "Python's service client", target: "/$servicebus/websocket/", protocol: "AMQPWSB10", status: 101, echoed: "AMQPWSB10"},
		{name: "an example for Go", target: "/$servicebus/websocket", protocol: "amqp", status: 101, echoed: "amqp"},
		{name: "another spelling", target: "/%24ServiceBus/WebSocket", protocol: "amqpwsb10", status: 101, echoed: "amqpwsb10"},
		{name: "the first that there is", target: "/$iothub/websocket", protocol: "AMQPWSB11, AMQPWSB10, mqtt", status: 101, echoed: "AMQPWSB10"},
		{name: "none that there is", target: "/$iothub/websocket", protocol: "AMQPWSB11", status: 400},
		{name: "another path", target: "/$eventhub/websocket", protocol: "AMQPWSB10", status: 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nc, err := tls.Dial("tcp", h.HTTPSAddr, &tls.Config{InsecureSkipVerify: true}) // without a server name, as Java
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(wiretest.Patience))
			fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: %s\r\n%s\r\n", tt.target, tt.protocol, tt.header)
			in := bufio.NewReader(nc)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tt.status || res.Header.Get("Sec-WebSocket-Protocol") != tt.echoed || res.Header.Get("Sec-WebSocket-Extensions") != "" {
				t.Fatalf("%s, headers %v, want %d with subprotocol %q and no extension", res.Status, res.Header, tt.status, tt.echoed)
			}
			if tt.status != 101 {
				return
			}
			// A final binary frame, masked with zeros; the answer is one that is not.
			io.WriteString(nc, "\x82\x88\x00\x00\x00\x00"+amqpHeader)
			frame := make([]byte, 2+len(amqpHeader))
			if _, err := io.ReadFull(in, frame); err != nil || frame[0] != 0x82 || string(frame[2:]) != amqpHeader {
				t.Errorf("the answer is %q (%v), want a frame that begins with %q", frame, err, amqpHeader)
			}
		})
	}
}
