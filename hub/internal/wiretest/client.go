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

// patience is how long a test waits for what has to happen.
const Patience = 20 * time.Second

// A client is a device that speaks MQTT packet by packet.
type Client struct {
	T testing.TB
	net.Conn
	LastID uint16
}

// dialTLS connects to the hub's port 8883.
func DialTLS(t testing.TB, h *hubtest.Hub) *Client {
	t.Helper()
	config := h.ClientTLS()
	config.ServerName = "localhost"
	return DialTLSConfig(t, h, config)
}

func DialTLSConfig(t testing.TB, h *hubtest.Hub, config *tls.Config) *Client {
	t.Helper()
	nc, err := tls.Dial("tcp", h.MQTTSAddr, config)
	if err != nil {
		t.Fatal(err)
	}
	return NewClient(t, nc)
}

func NewClient(t testing.TB, nc net.Conn) *Client {
	t.Cleanup(func() { nc.Close() })
	return &Client{T: t, Conn: nc}
}

// dialWebSocket connects to the hub's port 443. Every write is a frame.
func DialWebSocket(t testing.TB, h *hubtest.Hub) *Client {
	t.Helper()
	return DialWebSocketTLS(t, h)
}

func DialWebSocketTLS(t testing.TB, h *hubtest.Hub, certificates ...tls.Certificate) *Client {
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

// connectPacket is the CONNECT of an SDK with a fresh token.
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

// connect connects as the identity of cs and wants to be accepted.
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

func CleanSession(p *packets.ConnectPacket) { p.CleanSession = true }

func (c *Client) Send(list ...packets.ControlPacket) {
	c.T.Helper()
	for _, p := range list {
		if err := p.Write(c); err != nil {
			c.T.Fatalf("send %v: %v", p, err)
		}
	}
}

func (c *Client) SendBytes(b ...byte) {
	c.T.Helper()
	if _, err := c.Write(b); err != nil {
		c.T.Fatal(err)
	}
}

// receive reads the next packet, which has to be a P.
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

func SubscribePacket(id uint16, qos byte, filters ...string) *packets.SubscribePacket {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID = id
	for _, f := range filters {
		p.Topics = append(p.Topics, f)
		p.Qoss = append(p.Qoss, qos)
	}
	return p
}

func (c *Client) Subscribe(qos byte, filters ...string) (granted []byte) {
	c.T.Helper()
	c.LastID++
	c.Send(SubscribePacket(c.LastID, qos, filters...))
	ack := Receive[*packets.SubackPacket](c)
	if ack.MessageID != c.LastID {
		c.T.Fatalf("SUBACK for %d, want %d", ack.MessageID, c.LastID)
	}
	return ack.ReturnCodes
}

func PublishPacket(id uint16, qos byte, topic, payload string) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = qos, id, topic, []byte(payload)
	return p
}

// publish sends at QoS 1 and waits for the acknowledgement.
func (c *Client) Publish(topic, payload string) {
	c.T.Helper()
	c.LastID++
	c.Send(PublishPacket(c.LastID, 1, topic, payload))
	if ack := Receive[*packets.PubackPacket](c); ack.MessageID != c.LastID {
		c.T.Fatalf("PUBACK for %d, want %d", ack.MessageID, c.LastID)
	}
}

// wantPublish reads a PUBLISH with this topic and payload.
func (c *Client) WantPublish(topic, payload string) {
	c.T.Helper()
	p := Receive[*packets.PublishPacket](c)
	if diff := cmp.Diff([]string{topic, payload}, []string{p.TopicName, string(p.Payload)}); diff != "" {
		c.T.Fatalf("PUBLISH (-want +got):\n%s", diff)
	}
}

// wantClosed waits for the hub to close the connection without a packet.
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

// disconnect ends the connection in the orderly way.
func (c *Client) Disconnect() {
	c.T.Helper()
	c.Send(packets.NewControlPacket(packets.Disconnect))
	io.Copy(io.Discard, c)
	c.Close()
}

func Register(t testing.TB, h *hubtest.Hub, id hub.ID, spec hub.IdentitySpec) {
	t.Helper()
	if _, err := h.PutIdentity(id, spec, hub.Match{}); err != nil {
		t.Fatal(err)
	}
}

// dialTLSAt connects to a hub whose clock stands at now.
func DialTLSAt(t testing.TB, h *hubtest.Hub, now time.Time) *Client {
	t.Helper()
	config := h.ClientTLS()
	config.ServerName = "localhost"
	config.Time = func() time.Time { return now }
	return DialTLSConfig(t, h, config)
}

// place leaves out where an event stands, which depends on what is around it.
var Place = cmpopts.IgnoreFields(hub.Event{}, "Partition", "Sequence", "Offset")

// wantMessage reads a cloud-to-device message at QoS 1 and does not
// acknowledge it.
func (c *Client) WantMessage(body string) *packets.PublishPacket {
	c.T.Helper()
	p := Receive[*packets.PublishPacket](c)
	if !strings.Contains(p.TopicName, "/messages/devicebound/") || string(p.Payload) != body || p.Qos != 1 {
		c.T.Fatalf("got QoS %d %s %q, want a message at QoS 1 %q", p.Qos, p.TopicName, p.Payload, body)
	}
	return p
}

func (c *Client) Acknowledge(p *packets.PublishPacket) {
	c.T.Helper()
	ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	ack.MessageID = p.MessageID
	c.Send(ack)
}

// settled returns when the hub has handled what c has sent.
func (c *Client) Settled() {
	c.T.Helper()
	c.Send(packets.NewControlPacket(packets.Pingreq))
	Receive[*packets.PingrespPacket](c)
}

// settledAmid is settled with messages still coming in.
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

// connack connects as id without a password and returns the hub's answer.
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

// eachTransport runs a test over TLS and over WebSocket.
func EachTransport(t *testing.T, h *hubtest.Hub, run func(t *testing.T, dial func() *Client)) {
	t.Run("TLS", func(t *testing.T) { run(t, func() *Client { return DialTLS(t, h) }) })
	t.Run("WebSocket", func(t *testing.T) { run(t, func() *Client { return DialWebSocket(t, h) }) })
}

// ridOf returns the request id of a direct method's topic.
func RidOf(p *packets.PublishPacket) string {
	_, rid, _ := strings.Cut(p.TopicName, "?$rid=")
	return rid
}
