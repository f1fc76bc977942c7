package hub

import (
	"crypto/x509"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// isWebSocket reports whether a request to the hub's port 443 is not for REST.
func isWebSocket(r *http.Request, segments []string) bool {
	return len(segments) == 2 && strings.EqualFold(segments[0], "$iothub") && strings.EqualFold(segments[1], "websocket") &&
		containsFold(r.Header.Get("Upgrade"), "websocket")
}

// serveWebSocket takes a request for "/$iothub/websocket": MQTT over WebSocket.
// Frames are a byte stream, whatever packets they cut. Any origin may connect,
// since it is CONNECT that carries the credential.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
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
				return
			}
		}
	}
	if protocol == "" {
		http.Error(w, `the WebSocket subprotocol must be "mqtt"`, http.StatusBadRequest)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{protocol},
		InsecureSkipVerify: true,
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return // Accept has answered
	}
	var chain []*x509.Certificate
	if r.TLS != nil {
		chain = r.TLS.PeerCertificates
	}
	deadline := time.Now().Add(connectTimeout)
	nc := webSocketConn{websocket.NetConn(s.ctx, ws, websocket.MessageBinary), ws}
	if !s.goroutine(func() { s.begin(nc, chain, deadline) }) {
		nc.Close()
	}
}

// A webSocketConn is a WebSocket as a byte stream.
type webSocketConn struct {
	net.Conn
	ws *websocket.Conn
}

// Close drops the connection as the hub drops a TCP connection, without
// waiting for the peer's consent.
func (c webSocketConn) Close() error { return c.ws.CloseNow() }
