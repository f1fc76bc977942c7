package hubamqp

import (
	"cmp"
	"crypto/tls"
	"net"
	"net/url"
	"strings"

	"github.com/iotdm/iotdm/internal/dial"
)

// A Transport is what AMQP runs on, from this machine to the hub.
type Transport int

// The transports that IoT Hub has, and Auto.
const (
	// Auto is TCP where that works, and WebSocket where port 5671 is blocked: refused, dropped, or intercepted.
	// WebSocket gets its chance when TCP has failed, or has not answered for five seconds.
	Auto      Transport = iota
	TCP                 // AMQP over TLS, port 5671
	WebSocket           // AMQP over WebSocket over TLS, port 443, where nothing else gets through
)

// String returns the name of t.
func (t Transport) String() string {
	switch t {
	case Auto:
		return "Auto"
	case TCP:
		return "TCP"
	case WebSocket:
		return "WebSocket"
	}
	return "unknown"
}

// The ports that hubs listen on.
const (
	amqpsPort    = "5671"
	emulatorPort = "5672" // without TLS
	httpsPort    = "443"
)

// overWebSocket is how AMQP is named there.
var overWebSocket = dial.Protocol{Name: "AMQP", Subprotocol: "AMQPWSB10"}

// Where hubs and event hubs speak AMQP over WebSocket.
const (
	hubPath      = "/$iothub/websocket"
	eventHubPath = "/$servicebus/websocket"
)

// dialer returns what makes streams to the hub, whose WebSocket is at path.
func (c *Client) dialer(path string) *dial.Dialer {
	host, port := splitPort(c.opt.ConnectionString.HostName)
	ws := net.JoinHostPort(host, cmp.Or(port, httpsPort))
	return c.dialerAt(net.JoinHostPort(host, amqpsPort), ws, path, c.opt.Addr, c.opt.WebSocketAddr)
}

// dialerAt returns what makes streams to the host:port named, or to the addresses that are given in its place.
func (c *Client) dialerAt(named, namedWS, path, given, givenWS string) *dial.Dialer {
	config := &tls.Config{}
	if c.opt.TLS != nil {
		config = c.opt.TLS.Clone()
	}
	if config.ServerName == "" {
		config.ServerName, _ = splitPort(named)
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	config.NextProtos = nil // AMQP has none, and the WebSocket is over HTTP/1.1
	tcp := dial.Route{Addr: cmp.Or(given, named), Proxied: given == "", TLS: config}
	ws := dial.Route{Addr: cmp.Or(givenWS, namedWS), Proxied: givenWS == "", TLS: config, Protocol: overWebSocket,
		// The query is that of the SDK for Java: Azure then doesn't ask for a certificate in a second handshake.
		WebSocket: &url.URL{Scheme: "wss", Host: strings.TrimSuffix(namedWS, ":"+httpsPort), Path: path, RawQuery: "iothub-no-client-cert=true"}}
	d := &dial.Dialer{Log: c.log, HeadStart: dial.HeadStart}
	switch c.opt.Transport {
	case TCP:
		d.Routes = []dial.Route{tcp}
	case WebSocket:
		d.Routes = []dial.Route{ws}
	default:
		d.Routes = []dial.Route{tcp, ws}
	}
	return d
}

// splitPort takes the port from a host name; it is "" where there is none.
func splitPort(host string) (name, port string) {
	if name, port, err := net.SplitHostPort(host); err == nil {
		return name, port
	}
	return strings.Trim(host, "[]"), ""
}

// escape percent-encodes all of an id that may mean something in an address.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
