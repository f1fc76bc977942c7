package mqttdevice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// A Transport is what MQTT runs on, from this machine to the hub.
type Transport int

// The transports that IoT Hub has, and Auto.
const (
	TCP       Transport = iota // MQTT over TLS, port 8883
	WebSocket                  // MQTT over WebSocket over TLS, port 443, where nothing else gets through
	// Auto is TCP where that works, and WebSocket where port 8883 is blocked: refused, dropped, or
	// intercepted. WebSocket gets its chance when TCP has failed, or has not answered for five seconds.
	// The client then stays with it, and looks at TCP again after an hour, when it connects next.
	Auto
)

// String returns the name of t.
func (t Transport) String() string {
	switch t {
	case TCP:
		return "TCP"
	case WebSocket:
		return "WebSocket"
	case Auto:
		return "Auto"
	}
	return "unknown"
}

// port is the one IoT Hub listens on.
func (t Transport) port() string {
	if t == WebSocket {
		return "443"
	}
	return "8883"
}

// A route is one way to the hub.
type route struct {
	transport Transport // TCP or WebSocket
	addr      string    // to dial
	proxy     proxyFunc // nil: none
	tls       *tls.Config
	ws        *url.URL // nil: TLS without WebSocket
	instead   error    // why it is taken instead of a better one; nil if there is none
}

func newRoute(opt Options, t Transport) route {
	r := route{transport: t, addr: dialAddr(opt, t), tls: tlsConfig(opt)}
	if givenAddr(opt, t) == "" {
		r.proxy = proxyFromEnvironment()
	}
	if t == WebSocket {
		r.tls.NextProtos = nil // HTTP/1.1, whatever else the configuration is for
		r.ws = &url.URL{Scheme: "wss", Host: strings.TrimSuffix(namedAddr(opt, t), ":443"), Path: "/$iothub/websocket"}
		if !opt.ConnectionString.X509 {
			// As the SDK for Java: Azure then doesn't ask for a certificate in a second handshake.
			r.ws.RawQuery = "iothub-no-client-cert=true"
		}
	}
	return r
}

// A dialer makes the byte stream that MQTT runs on. It is used by one goroutine at a time.
type dialer struct {
	host      string  // the hub's name
	routes    []route // one; or TCP and WebSocket, with Auto
	log       *slog.Logger
	headStart time.Duration // of TCP, with Auto

	notTCP error     // with Auto: why not TCP; nil while it is good
	until  time.Time // when that is looked at again
}

func newDialer(opt Options, log *slog.Logger) *dialer {
	d := &dialer{host: hostOnly(peerHost(opt)), log: log, headStart: headStart}
	if _, port, _ := net.SplitHostPort(peerHost(opt)); port == "443" && opt.Transport == Auto {
		opt.Transport = WebSocket // nothing else is there
	}
	if opt.Transport == Auto {
		d.routes = []route{newRoute(opt, TCP), newRoute(opt, WebSocket)}
	} else {
		d.routes = []route{newRoute(opt, opt.Transport)}
	}
	return d
}

// name is where d dials, in a sentence. With Auto the errors have the ports.
func (d *dialer) name() string {
	if len(d.routes) == 1 {
		return d.routes[0].addr
	}
	return d.host
}

// dial connects by the best route that works.
func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	if len(d.routes) == 1 {
		return d.routes[0].dial(ctx)
	}
	return d.dialEither(ctx)
}

// routeOf tells by which route a stream was dialled.
func (d *dialer) routeOf(stream net.Conn) route {
	r := d.routes[0]
	if _, ok := stream.(*webSocketConn); ok && len(d.routes) > 1 {
		r = d.routes[1]
		r.instead = d.notTCP
	}
	return r
}

// dial connects: TCP, perhaps through a proxy, TLS, and WebSocket if it is wanted.
func (r *route) dial(ctx context.Context) (net.Conn, error) {
	conn, err := r.dialTCP(ctx)
	if err != nil {
		return nil, err
	}
	if conn, err = startTLS(ctx, conn, r.tls); err != nil || r.ws == nil {
		return conn, err
	}
	return startWebSocket(ctx, conn, r.ws)
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
