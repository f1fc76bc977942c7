package mqttdevice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/coder/websocket"
)

// A Transport is what MQTT runs on, from this machine to the hub.
type Transport int

// The transports that IoT Hub has.
const (
	TCP       Transport = iota // MQTT over TLS, port 8883
	WebSocket                  // MQTT over WebSocket over TLS, port 443, where nothing else gets through
)

// port is the one IoT Hub listens on.
func (t Transport) port() string {
	if t == WebSocket {
		return "443"
	}
	return "8883"
}

// A dialer makes the byte stream that MQTT runs on.
type dialer struct {
	addr  string
	tls   *tls.Config
	proxy proxyFunc // nil: none
	ws    *url.URL  // nil: TLS without WebSocket
}

func newDialer(opt Options) *dialer {
	d := &dialer{addr: dialAddr(opt), tls: tlsConfig(opt)}
	if opt.Addr == "" {
		d.proxy = proxyFromEnvironment()
	}
	if opt.Transport == WebSocket {
		d.tls.NextProtos = nil // HTTP/1.1, whatever else the configuration is for
		d.ws = &url.URL{Scheme: "wss", Host: peerHost(opt), Path: "/$iothub/websocket"}
		if !opt.ConnectionString.X509 {
			// As the SDK for Java: Azure then doesn't ask for a certificate in a second handshake.
			d.ws.RawQuery = "iothub-no-client-cert=true"
		}
	}
	return d
}

// dial connects: TCP, perhaps through a proxy, TLS, and WebSocket if it is wanted.
func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	conn, err := d.dialTCP(ctx)
	if err != nil {
		return nil, err
	}
	if conn, err = startTLS(ctx, conn, d.tls); err != nil || d.ws == nil {
		return conn, err
	}
	return startWebSocket(ctx, conn, d.ws)
}

// startTLS shakes hands on conn, or closes it.
func startTLS(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// startWebSocket shakes hands on conn, or closes it.
func startWebSocket(ctx context.Context, conn net.Conn, to *url.URL) (net.Conn, error) {
	client := &http.Client{
		Transport: &http.Transport{
			DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
			DisableKeepAlives: true,

			MaxResponseHeaderBytes: maxTunnelAnswer,
		},
		// There is one connection, and it leads to the hub.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ws, response, err := websocket.Dial(ctx, to.String(), &websocket.DialOptions{
		HTTPClient:   client,
		Subprotocols: []string{"mqtt"},
	})
	switch {
	case err == nil && ws.Subprotocol() == "mqtt":
		return &webSocketConn{Conn: websocket.NetConn(context.Background(), ws, websocket.MessageBinary), ws: ws, below: conn}, nil
	case err == nil:
		err = errors.New("the hub does not speak MQTT over WebSocket")
		ws.CloseNow()
	case response != nil && response.StatusCode != http.StatusSwitchingProtocols:
		err = fmt.Errorf("the hub answered the WebSocket handshake with %s", response.Status)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	conn.Close()
	return nil, err
}

// A webSocketConn is a WebSocket as a byte stream. Messages may cut MQTT packets anywhere.
type webSocketConn struct {
	net.Conn
	ws    *websocket.Conn
	below net.Conn // what the WebSocket runs on
}

// Deadlines are those of the connection below: package websocket would cancel a context, and its
// errors would tell of that.

func (c *webSocketConn) SetDeadline(t time.Time) error      { return c.below.SetDeadline(t) }
func (c *webSocketConn) SetReadDeadline(t time.Time) error  { return c.below.SetReadDeadline(t) }
func (c *webSocketConn) SetWriteDeadline(t time.Time) error { return c.below.SetWriteDeadline(t) }

// Close does not wait for the hub's consent: DISCONNECT has said everything.
func (c *webSocketConn) Close() error { return c.ws.CloseNow() }
