package hub_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/sas"
)

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// A client is a device that speaks MQTT packet by packet.
type client struct {
	t testing.TB
	net.Conn
	lastID uint16
}

// dialTLS connects to the hub's port 8883.
func dialTLS(t testing.TB, h *hubtest.Hub) *client {
	t.Helper()
	config := h.ClientTLS()
	config.ServerName = "localhost"
	return dialTLSConfig(t, h, config)
}

func dialTLSConfig(t testing.TB, h *hubtest.Hub, config *tls.Config) *client {
	t.Helper()
	nc, err := tls.Dial("tcp", h.MQTTSAddr, config)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, nc)
}

func newClient(t testing.TB, nc net.Conn) *client {
	t.Cleanup(func() { nc.Close() })
	return &client{t: t, Conn: nc}
}

// dialWebSocket connects to the hub's port 443. Every write is a frame.
func dialWebSocket(t testing.TB, h *hubtest.Hub) *client {
	t.Helper()
	return dialWebSocketTLS(t, h)
}

func dialWebSocketTLS(t testing.TB, h *hubtest.Hub, certificates ...tls.Certificate) *client {
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
	return &client{t: t, Conn: websocket.NetConn(context.Background(), ws, websocket.MessageBinary)}
}

// connectPacket is the CONNECT of an SDK with a fresh token.
func connectPacket(t testing.TB, cs sas.ConnectionString) *packets.ConnectPacket {
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
func (c *client) connect(cs sas.ConnectionString, change ...func(*packets.ConnectPacket)) (sessionPresent bool) {
	c.t.Helper()
	p := connectPacket(c.t, cs)
	for _, f := range change {
		f(p)
	}
	c.send(p)
	ack := receive[*packets.ConnackPacket](c)
	if ack.ReturnCode != 0 {
		c.t.Fatalf("CONNACK %d, want 0", ack.ReturnCode)
	}
	return ack.SessionPresent
}

func cleanSession(p *packets.ConnectPacket) { p.CleanSession = true }

func (c *client) send(list ...packets.ControlPacket) {
	c.t.Helper()
	for _, p := range list {
		if err := p.Write(c); err != nil {
			c.t.Fatalf("send %v: %v", p, err)
		}
	}
}

func (c *client) sendBytes(b ...byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// receive reads the next packet, which has to be a P.
func receive[P packets.ControlPacket](c *client) P {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	p, err := packets.ReadPacket(c)
	if err != nil {
		var want P
		c.t.Fatalf("waiting for %T: %v", want, err)
	}
	got, ok := p.(P)
	if !ok {
		var want P
		c.t.Fatalf("got %v, want a %T", p, want)
	}
	return got
}

func subscribePacket(id uint16, qos byte, filters ...string) *packets.SubscribePacket {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID = id
	for _, f := range filters {
		p.Topics = append(p.Topics, f)
		p.Qoss = append(p.Qoss, qos)
	}
	return p
}

func (c *client) subscribe(qos byte, filters ...string) (granted []byte) {
	c.t.Helper()
	c.lastID++
	c.send(subscribePacket(c.lastID, qos, filters...))
	ack := receive[*packets.SubackPacket](c)
	if ack.MessageID != c.lastID {
		c.t.Fatalf("SUBACK for %d, want %d", ack.MessageID, c.lastID)
	}
	return ack.ReturnCodes
}

func publishPacket(id uint16, qos byte, topic, payload string) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = qos, id, topic, []byte(payload)
	return p
}

// publish sends at QoS 1 and waits for the acknowledgement.
func (c *client) publish(topic, payload string) {
	c.t.Helper()
	c.lastID++
	c.send(publishPacket(c.lastID, 1, topic, payload))
	if ack := receive[*packets.PubackPacket](c); ack.MessageID != c.lastID {
		c.t.Fatalf("PUBACK for %d, want %d", ack.MessageID, c.lastID)
	}
}

// wantPublish reads a PUBLISH with this topic and payload.
func (c *client) wantPublish(topic, payload string) {
	c.t.Helper()
	p := receive[*packets.PublishPacket](c)
	if diff := cmp.Diff([]string{topic, payload}, []string{p.TopicName, string(p.Payload)}); diff != "" {
		c.t.Fatalf("PUBLISH (-want +got):\n%s", diff)
	}
}

// wantClosed waits for the hub to close the connection without a packet.
func (c *client) wantClosed() {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	p, err := packets.ReadPacket(c)
	if err == nil {
		c.t.Fatalf("got %v, want the connection closed", p)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the connection is still open")
	}
}

// disconnect ends the connection in the orderly way.
func (c *client) disconnect() {
	c.t.Helper()
	c.send(packets.NewControlPacket(packets.Disconnect))
	io.Copy(io.Discard, c)
	c.Close()
}

func register(t testing.TB, h *hubtest.Hub, id hub.ID, spec hub.IdentitySpec) {
	t.Helper()
	if _, err := h.PutIdentity(id, spec, hub.Match{}); err != nil {
		t.Fatal(err)
	}
}
