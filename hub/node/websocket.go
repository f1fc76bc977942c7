package node

import (
	"crypto/x509"
	"net"
	"net/http"
	"strings"

	"github.com/coder/websocket"

	"github.com/iotdm/iotdm/hub/internal/rest"
)

// serveWebSocket takes a request for "/$iothub/websocket", for
// "/$servicebus/websocket" as clients of Event Hubs spell it, or for "/mqtt", where
// the provisioning SDK for Java goes, and reports whether it was one. Frames are a
// byte stream for a door, whatever packets they cut.
func (n *Node) serveWebSocket(w http.ResponseWriter, r *http.Request) bool {
	path := strings.ToLower(strings.Trim(r.URL.Path, "/"))
	if path != "$iothub/websocket" && path != "$servicebus/websocket" && path != "mqtt" ||
		!strings.Contains(strings.ToLower(r.Header.Get("Upgrade")), "websocket") {
		return false
	}
	protocol, door := n.subprotocol(r)
	if door == nil {
		http.Error(w, `the WebSocket subprotocol must be "mqtt" or "AMQPWSB10"`, http.StatusBadRequest)
		return true
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{protocol},
		InsecureSkipVerify: true,
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return true // Accept has answered
	}
	var chain []*x509.Certificate
	if r.TLS != nil {
		chain = r.TLS.PeerCertificates
	}
	door(webSocketConn{websocket.NetConn(n.ctx, ws, websocket.MessageBinary), ws, rest.Conn(r)}, r.Host, chain)
	return true
}

// subprotocol returns the first subprotocol of those that the client offers for
// which there is a door, and the door. It is in the client's spelling: the SDK
// for C offers "MQTT", and some clients compare.
func (n *Node) subprotocol(r *http.Request) (string, func(net.Conn, string, []*x509.Certificate)) {
	for _, value := range r.Header.Values("Sec-WebSocket-Protocol") {
		for offer := range strings.SplitSeq(value, ",") {
			switch offer = strings.TrimSpace(offer); strings.ToLower(offer) {
			case "mqtt":
				return offer, n.mqtt.ServeConn
			case "amqpwsb10", "amqp": // the latter in an example for Go
				return offer, n.amqp.ServeConn
			}
		}
	}
	return "", nil
}

// A webSocketConn is a WebSocket as a byte stream.
type webSocketConn struct {
	net.Conn
	ws   *websocket.Conn
	over net.Conn
}

// NetConn returns the connection that carries the WebSocket.
func (c webSocketConn) NetConn() net.Conn { return c.over }

// Close drops the connection as the hub drops a TCP connection, without
// waiting for the peer's consent.
func (c webSocketConn) Close() error { return c.ws.CloseNow() }
