package wiretest

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/coder/websocket"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/sas"
)

// An AMQPClient is a client that speaks AMQP. Its methods end the test when
// something goes wrong.
type AMQPClient struct {
	*amqp.Session
	Conn *amqp.Conn
	t    testing.TB
}

// DialAMQPTCP makes a TLS connection to the hub's port 5671, for a test that
// writes bytes of its own.
func DialAMQPTCP(t testing.TB, h *hubtest.Hub, certificates ...tls.Certificate) net.Conn {
	t.Helper()
	config := h.ClientTLS()
	config.ServerName, config.Certificates, config.Time = h.HostName, certificates, h.Now
	nc, err := tls.Dial("tcp", h.AMQPSAddr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

// DialAMQPWebSocket is DialAMQPTCP over WebSocket. Every write is a frame.
func DialAMQPWebSocket(t testing.TB, h *hubtest.Hub, certificates ...tls.Certificate) net.Conn {
	t.Helper()
	config := h.ClientTLS()
	config.Certificates, config.Time = certificates, h.Now
	ws, _, err := websocket.Dial(t.Context(), "wss://"+h.HTTPSAddr+"/$servicebus/websocket", &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: config}},
		Subprotocols: []string{"AMQPWSB10"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
}

// OpenAMQP opens an AMQP connection, with a session, on nc.
func OpenAMQP(t testing.TB, h *hubtest.Hub, nc net.Conn) *AMQPClient {
	t.Helper()
	ctx := WithPatience(t)
	conn, err := amqp.NewConn(ctx, nc, &amqp.ConnOptions{HostName: h.HostName, SASLType: amqp.SASLTypeAnonymous()})
	if err != nil {
		t.Fatalf("open an AMQP connection: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	session, err := conn.NewSession(ctx, nil)
	if err != nil {
		t.Fatalf("begin an AMQP session: %v", err)
	}
	return &AMQPClient{session, conn, t}
}

// WithPatience returns a context of the test that ends after Patience.
func WithPatience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// DialAMQP connects to the hub's port 5671 and claims what a connection string
// says: an identity, or a policy.
func DialAMQP(t testing.TB, h *hubtest.Hub, cs sas.ConnectionString) *AMQPClient {
	t.Helper()
	c := OpenAMQP(t, h, DialAMQPTCP(t, h))
	cs.HostName = h.HostName // without a port
	c.Claim(cs.Audience(), Sign(t, cs.Audience(), cs.SharedAccessKeyName, cs.SharedAccessKey, h.Now().Add(time.Hour)))
	return c
}

// Claim puts a token and wants it to be accepted.
func (c *AMQPClient) Claim(audience, token string) {
	c.t.Helper()
	if status := c.PutToken(audience, token); status != 200 {
		c.t.Fatalf("put-token for %s is answered with %d, want 200", audience, status)
	}
}

// PutToken puts a token and returns the status of the answer.
func (c *AMQPClient) PutToken(audience, token string) int32 {
	c.t.Helper()
	ctx := WithPatience(c.t)
	in, err := c.NewReceiver(ctx, "$cbs", &amqp.ReceiverOptions{TargetAddress: "cbs"})
	if err != nil {
		c.t.Fatalf("attach to $cbs: %v", err)
	}
	out, err := c.NewSender(ctx, "$cbs", nil)
	if err != nil {
		c.t.Fatalf("attach to $cbs: %v", err)
	}
	id, cbs := any("1"), "cbs"
	err = out.Send(ctx, &amqp.Message{
		Properties:            &amqp.MessageProperties{MessageID: id, ReplyTo: &cbs},
		ApplicationProperties: map[string]any{"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": audience},
		Value:                 token,
	}, nil)
	if err != nil {
		c.t.Fatalf("put-token for %s: %v", audience, err)
	}
	reply, err := in.Receive(ctx, nil)
	if err != nil {
		c.t.Fatalf("put-token for %s: %v", audience, err)
	}
	if err := in.AcceptMessage(ctx, reply); err != nil {
		c.t.Fatalf("settle the answer to put-token: %v", err)
	}
	if got := reply.Properties.CorrelationID; got != id {
		c.t.Fatalf("the answer to put-token has the correlation id %v, want %v", got, id)
	}
	status, _ := reply.ApplicationProperties["status-code"].(int32)
	for _, end := range []func(context.Context) error{out.Close, in.Close} {
		if err := end(ctx); err != nil {
			c.t.Fatalf("detach from $cbs: %v", err)
		}
	}
	return status
}

// Sender attaches a link that sends to an address.
func (c *AMQPClient) Sender(address string) *amqp.Sender {
	c.t.Helper()
	s, err := c.NewSender(WithPatience(c.t), address, nil)
	if err != nil {
		c.t.Fatalf("attach to %s: %v", address, err)
	}
	return s
}

// Receiver attaches a link that receives from an address, with credit for 100
// messages.
func (c *AMQPClient) Receiver(address string) *amqp.Receiver {
	c.t.Helper()
	r, err := c.NewReceiver(WithPatience(c.t), address, &amqp.ReceiverOptions{Credit: 100})
	if err != nil {
		c.t.Fatalf("attach to %s: %v", address, err)
	}
	return r
}

// AMQPMessage is a message to an address, which may be empty.
func AMQPMessage(to, body string) *amqp.Message {
	m := amqp.NewMessage([]byte(body))
	if to != "" {
		m.Properties = &amqp.MessageProperties{To: &to}
	}
	return m
}
