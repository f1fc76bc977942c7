package node

import (
	"crypto/x509"
	"net"
	"net/http"
	"strings"

	"github.com/coder/websocket"

	"github.com/iotdm/iotdm/hub/internal/rest"
)

// serveWebSocket takes a request for "/$iothub/websocket", and reports whether
// it was one. Frames are a byte stream for a door, whatever packets they cut.
// Any origin may connect, since it is the protocol within that carries the
// credential.
func (n *Node) serveWebSocket(w http.ResponseWriter, r *http.Request) bool {
	if !strings.EqualFold(strings.Trim(r.URL.Path, "/"), "$iothub/websocket") ||
		!strings.Contains(strings.ToLower(r.Header.Get("Upgrade")), "websocket") {
		return false
	}
	protocol := ""
	for _, value := range r.Header.Values("Sec-WebSocket-Protocol") {
		for offer := range strings.SplitSeq(value, ",") {
			offer = strings.TrimSpace(offer)
			switch {
			case strings.EqualFold(offer, "mqtt"):
				// In the client's spelling: the SDK for C offers "MQTT", and
				// some clients compare.
				protocol = offer
			case strings.EqualFold(offer, "AMQPWSB10"):
				http.Error(w, "this hub does not speak AMQP: use MQTT for devices, and REST for cloud-to-device messages", http.StatusNotImplemented)
				return true
			}
		}
	}
	if protocol == "" {
		http.Error(w, `the WebSocket subprotocol must be "mqtt"`, http.StatusBadRequest)
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
	n.mqtt.ServeConn(webSocketConn{websocket.NetConn(n.ctx, ws, websocket.MessageBinary), ws, rest.Conn(r)}, chain)
	return true
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
