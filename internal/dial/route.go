// Package dial makes the byte stream to a hub: TCP, through the proxy that the environment names, TLS, and
// WebSocket where nothing else gets through. It knows none of the protocols that run on it.
package dial

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/coder/websocket"
)

// A Route is one way to a hub.
type Route struct {
	Addr      string      // to dial
	Proxied   bool        // through the proxy that the environment names, if it names one for Addr
	TLS       *tls.Config // nil: none, to an emulator on this machine
	WebSocket *url.URL    // nil: TLS without WebSocket
	Protocol  Protocol    // over WebSocket
}

// A Protocol is one that a hub speaks over WebSocket.
type Protocol struct {
	Name        string // for people
	Subprotocol string // as the handshake names it
}

// Dial connects: TCP, perhaps through a proxy, TLS, and WebSocket if it is wanted.
func (r *Route) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := r.dialTCP(ctx)
	if err != nil || r.TLS == nil {
		return conn, err
	}
	if conn, err = startTLS(ctx, conn, r.TLS); err != nil || r.WebSocket == nil {
		return conn, err
	}
	return StartWebSocket(ctx, conn, r.WebSocket, r.Protocol)
}

// startTLS shakes hands on conn, or closes it.
func startTLS(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return secure, nil
}

// StartWebSocket shakes hands on conn, on which TLS runs, or closes it.
func StartWebSocket(ctx context.Context, conn net.Conn, to *url.URL, protocol Protocol) (net.Conn, error) {
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
		Subprotocols: []string{protocol.Subprotocol},
	})
	switch {
	case err == nil && ws.Subprotocol() == protocol.Subprotocol:
		return &webSocketConn{Conn: websocket.NetConn(context.Background(), ws, websocket.MessageBinary), ws: ws, below: conn}, nil
	case err == nil:
		err = fmt.Errorf("the hub does not speak %s over WebSocket", protocol.Name)
		ws.CloseNow()
	case response != nil && response.StatusCode != http.StatusSwitchingProtocols:
		err = fmt.Errorf("the hub answered the WebSocket handshake with %s", response.Status)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	conn.Close()
	return nil, err
}

// IsWebSocket reports whether conn is one that this package made, over WebSocket.
func IsWebSocket(conn net.Conn) bool {
	_, ok := conn.(*webSocketConn)
	return ok
}

// A webSocketConn is a WebSocket as a byte stream. Messages may cut packets anywhere.
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

// Close does not wait for the hub's consent: the protocol above has said everything.
func (c *webSocketConn) Close() error { return c.ws.CloseNow() }
