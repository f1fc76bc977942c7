// Package wiretest is what the hub's own tests share: clients that speak its
// protocols packet by packet and request by request, so that a test can say what
// no SDK would, and short words for what tests do to a hub and want to see.
//
// Programs that test against a hub use package hubtest.
package wiretest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/sas"
)

// Patience is how long a test waits for what has to happen.
const Patience = 20 * time.Second

// A Client is a device that speaks MQTT packet by packet. Its methods end the
// test when something goes wrong, and are for one goroutine.
type Client struct {
	T testing.TB // the test to end
	net.Conn
	lastID uint16 // packet identifier
}

// DialTLS connects to the hub's port 8883.
func DialTLS(t testing.TB, h *hubtest.Hub) *Client {
	t.Helper()
	config := h.ClientTLS()
	config.ServerName = "localhost"
	return DialTLSConfig(t, h, config)
}

// DialTLSConfig is DialTLS with a TLS configuration of the test's own.
func DialTLSConfig(t testing.TB, h *hubtest.Hub, config *tls.Config) *Client {
	t.Helper()
	nc, err := tls.Dial("tcp", h.MQTTSAddr, config)
	if err != nil {
		t.Fatal(err)
	}
	return NewClient(t, nc)
}

// NewClient returns a client on a connection, which it closes with the test.
func NewClient(t testing.TB, nc net.Conn) *Client {
	t.Cleanup(func() { nc.Close() })
	return &Client{T: t, Conn: nc}
}

// DialWebSocket connects to the hub's port 443, with client certificates if
// there are any. Every write is a frame.
func DialWebSocket(t testing.TB, h *hubtest.Hub, certificates ...tls.Certificate) *Client {
	t.Helper()
	config := h.ClientTLS()
	config.Certificates = certificates
	ws, _, err := websocket.Dial(t.Context(), "wss://"+h.HTTPSAddr+"/$iothub/websocket?iothub-no-client-cert=true", &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: config}},
		Subprotocols: []string{"mqtt"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	return &Client{T: t, Conn: websocket.NetConn(context.Background(), ws, websocket.MessageBinary)}
}

// ConnectPacket is the CONNECT of an SDK with a fresh token.
func ConnectPacket(t testing.TB, cs sas.ConnectionString) *packets.ConnectPacket {
	t.Helper()
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.Keepalive = "MQTT", 4, 60
	p.ClientIdentifier = cs.DeviceID
	if cs.ModuleID != "" {
		p.ClientIdentifier += "/" + cs.ModuleID
	}
	p.Username = cs.HostName + "/" + p.ClientIdentifier + "/?api-version=2021-04-12&DeviceClientType=test%2F1"
	token, err := sas.Sign(cs.Audience(), "", cs.SharedAccessKey, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	p.Password = []byte(token)
	p.UsernameFlag, p.PasswordFlag = true, true
	return p
}

// Connect connects as the identity of cs and wants to be accepted. change
// changes the packet.
func (c *Client) Connect(cs sas.ConnectionString, change ...func(*packets.ConnectPacket)) (sessionPresent bool) {
	c.T.Helper()
	p := ConnectPacket(c.T, cs)
	for _, f := range change {
		f(p)
	}
	c.Send(p)
	ack := Receive[*packets.ConnackPacket](c)
	if ack.ReturnCode != 0 {
		c.T.Fatalf("CONNACK %d, want 0", ack.ReturnCode)
	}
	return ack.SessionPresent
}

// CleanSession has Connect ask for a session that ends with the connection.
func CleanSession(p *packets.ConnectPacket) { p.CleanSession = true }

// Send writes packets.
func (c *Client) Send(list ...packets.ControlPacket) {
	c.T.Helper()
	for _, p := range list {
		if err := p.Write(c); err != nil {
			c.T.Fatalf("send %v: %v", p, err)
		}
	}
}

// SendBytes writes what may be no packet.
func (c *Client) SendBytes(b ...byte) {
	c.T.Helper()
	if _, err := c.Write(b); err != nil {
		c.T.Fatal(err)
	}
}

// Receive reads the next packet, which has to be a P.
func Receive[P packets.ControlPacket](c *Client) P {
	c.T.Helper()
	c.SetReadDeadline(time.Now().Add(Patience))
	p, err := packets.ReadPacket(c)
	if err != nil {
		var want P
		c.T.Fatalf("waiting for %T: %v", want, err)
	}
	got, ok := p.(P)
	if !ok {
		var want P
		c.T.Fatalf("got %v, want a %T", p, want)
	}
	return got
}

// SubscribePacket is a SUBSCRIBE to all the filters at one QoS.
func SubscribePacket(id uint16, qos byte, filters ...string) *packets.SubscribePacket {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID = id
	for _, f := range filters {
		p.Topics = append(p.Topics, f)
		p.Qoss = append(p.Qoss, qos)
	}
	return p
}

// Subscribe subscribes and returns the QoS that the hub grants for each filter,
// or 0x80.
func (c *Client) Subscribe(qos byte, filters ...string) (granted []byte) {
	c.T.Helper()
	c.lastID++
	c.Send(SubscribePacket(c.lastID, qos, filters...))
	ack := Receive[*packets.SubackPacket](c)
	if ack.MessageID != c.lastID {
		c.T.Fatalf("SUBACK for %d, want %d", ack.MessageID, c.lastID)
	}
	return ack.ReturnCodes
}

// PublishPacket is a PUBLISH. At QoS 0 the id is not sent.
func PublishPacket(id uint16, qos byte, topic, payload string) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = qos, id, topic, []byte(payload)
	return p
}

// Publish sends at QoS 1 and waits for the acknowledgement.
func (c *Client) Publish(topic, payload string) {
	c.T.Helper()
	c.lastID++
	c.Send(PublishPacket(c.lastID, 1, topic, payload))
	if ack := Receive[*packets.PubackPacket](c); ack.MessageID != c.lastID {
		c.T.Fatalf("PUBACK for %d, want %d", ack.MessageID, c.lastID)
	}
}

// WantPublish reads a PUBLISH with this topic and payload.
func (c *Client) WantPublish(topic, payload string) {
	c.T.Helper()
	p := Receive[*packets.PublishPacket](c)
	if diff := cmp.Diff([]string{topic, payload}, []string{p.TopicName, string(p.Payload)}); diff != "" {
		c.T.Fatalf("PUBLISH (-want +got):\n%s", diff)
	}
}

// WantClosed waits for the hub to close the connection without a packet.
func (c *Client) WantClosed() {
	c.T.Helper()
	c.SetReadDeadline(time.Now().Add(Patience))
	p, err := packets.ReadPacket(c)
	if err == nil {
		c.T.Fatalf("got %v, want the connection closed", p)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.T.Fatal("the connection is still open")
	}
}

// Disconnect ends the connection in the orderly way.
func (c *Client) Disconnect() {
	c.T.Helper()
	c.Send(packets.NewControlPacket(packets.Disconnect))
	io.Copy(io.Discard, c)
	c.Close()
}

// DialTLSAt connects to a hub whose clock stands at now.
func DialTLSAt(t testing.TB, h *hubtest.Hub, now time.Time) *Client {
	t.Helper()
	config := h.ClientTLS()
	config.ServerName = "localhost"
	config.Time = func() time.Time { return now }
	return DialTLSConfig(t, h, config)
}

// IgnorePlace leaves out, of a comparison, where an event stands, which depends on what is around it. On a hub of
// several nodes that goes for its time, too: NATS says when it came.
var IgnorePlace = cmp.Options{
	cmpopts.IgnoreFields(hub.Event{}, "Partition", "Sequence", "Offset"),
	cmp.FilterPath(func(p cmp.Path) bool { return hubtest.Several() && p.Last().String() == ".Enqueued" }, cmp.Ignore()),
}

// WantMessage reads a cloud-to-device message at QoS 1 and does not
// acknowledge it.
func (c *Client) WantMessage(body string) *packets.PublishPacket {
	c.T.Helper()
	p := Receive[*packets.PublishPacket](c)
	if !strings.Contains(p.TopicName, "/messages/devicebound/") || string(p.Payload) != body || p.Qos != 1 {
		c.T.Fatalf("got QoS %d %s %q, want a message at QoS 1 %q", p.Qos, p.TopicName, p.Payload, body)
	}
	return p
}

// Acknowledge sends the PUBACK of a message.
func (c *Client) Acknowledge(p *packets.PublishPacket) {
	c.T.Helper()
	ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	ack.MessageID = p.MessageID
	c.Send(ack)
}

// Settled returns when the hub has handled what c has sent.
func (c *Client) Settled() {
	c.T.Helper()
	c.Send(packets.NewControlPacket(packets.Pingreq))
	Receive[*packets.PingrespPacket](c)
}

// SettledAmid is Settled with messages still coming in.
func (c *Client) SettledAmid() {
	c.T.Helper()
	c.Send(packets.NewControlPacket(packets.Pingreq))
	for {
		c.SetReadDeadline(time.Now().Add(Patience))
		p, err := packets.ReadPacket(c)
		if err != nil {
			c.T.Error(err)
			return
		}
		if _, ok := p.(*packets.PingrespPacket); ok {
			return
		}
	}
}

// Connack connects as id without a password and returns the hub's answer.
func (c *Client) Connack(id hub.ID, change ...func(*packets.ConnectPacket)) byte {
	c.T.Helper()
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.Keepalive = "MQTT", 4, 60
	p.ClientIdentifier, p.Username, p.UsernameFlag = id.String(), "localhost/"+id.String()+"/?api-version=2021-04-12", true
	for _, f := range change {
		f(p)
	}
	c.Send(p)
	return Receive[*packets.ConnackPacket](c).ReturnCode
}

// EachTransport runs a test over TLS and over WebSocket.
func EachTransport(t *testing.T, h *hubtest.Hub, run func(t *testing.T, dial func() *Client)) {
	t.Run("TLS", func(t *testing.T) { run(t, func() *Client { return DialTLS(t, h) }) })
	t.Run("WebSocket", func(t *testing.T) { run(t, func() *Client { return DialWebSocket(t, h) }) })
}

// RequestID returns the request id of a direct method's topic.
func RequestID(p *packets.PublishPacket) string {
	_, rid, _ := strings.Cut(p.TopicName, "?$rid=")
	return rid
}
