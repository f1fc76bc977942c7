package mqttdevice

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/url"
	"strings"

	"github.com/iotdm/iotdm/internal/dial"
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

// A ProxyError is the failure to reach the hub through a proxy that the environment names.
type ProxyError = dial.ProxyError

// Proxy returns the proxy that the environment names for addr, a host:port: HTTPS_PROXY or else
// ALL_PROXY, unless NO_PROXY names the host or it is this machine. Nil means none. A client asks it
// unless Options.Addr is set.
func Proxy(addr string) (*url.URL, error) { return dial.Proxy(addr) }

// DialProxy connects to addr, a host:port, through a proxy that Proxy returned, as a client does: the
// connection is bare TCP. The proxy's own certificate, if it has one, is verified with roots; nil means
// the system's. Errors are of type *ProxyError.
func DialProxy(ctx context.Context, through *url.URL, addr string, roots *x509.CertPool) (net.Conn, error) {
	return dial.ThroughProxy(ctx, through, addr, roots)
}

// overWebSocket is how MQTT is named there.
var overWebSocket = dial.Protocol{Name: "MQTT", Subprotocol: "mqtt"}

// newRoute returns the way to the hub by transport t, TCP or WebSocket.
func newRoute(opt Options, t Transport) dial.Route {
	r := dial.Route{Addr: dialAddr(opt, t), Proxied: givenAddr(opt, t) == "", TLS: tlsConfig(opt)}
	if t == WebSocket {
		r.TLS.NextProtos = nil // HTTP/1.1, whatever else the configuration is for
		r.Protocol = overWebSocket
		r.WebSocket = &url.URL{Scheme: "wss", Host: strings.TrimSuffix(namedAddr(opt, t), ":443"), Path: "/$iothub/websocket"}
		if !opt.ConnectionString.X509 {
			// As the SDK for Java: Azure then doesn't ask for a certificate in a second handshake.
			r.WebSocket.RawQuery = "iothub-no-client-cert=true"
		}
	}
	return r
}

// A dialer makes the byte stream that MQTT runs on. It is used by one goroutine at a time.
type dialer struct {
	dial.Dialer
	host string // the hub's name
}

func newDialer(opt Options, log *slog.Logger) *dialer {
	d := &dialer{host: hostOnly(peerHost(opt)), Dialer: dial.Dialer{Log: log, HeadStart: dial.HeadStart}}
	if _, port, _ := net.SplitHostPort(peerHost(opt)); port == "443" && opt.Transport == Auto {
		opt.Transport = WebSocket // nothing else is there
	}
	if opt.Transport == Auto {
		d.Routes = []dial.Route{newRoute(opt, TCP), newRoute(opt, WebSocket)}
	} else {
		d.Routes = []dial.Route{newRoute(opt, opt.Transport)}
	}
	return d
}

// name is where d dials, in a sentence. With Auto the errors have the ports.
func (d *dialer) name() string {
	if len(d.Routes) == 1 {
		return d.Routes[0].Addr
	}
	return d.host
}

// transportOf is what route is, in the words of State.
func transportOf(route *dial.Route) Transport {
	if route.WebSocket != nil {
		return WebSocket
	}
	return TCP
}
