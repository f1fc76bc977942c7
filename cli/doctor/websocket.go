package doctor

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// upgrade makes the handshake of MQTT over WebSocket and goes no further: it
// carries no credential.
func (x *examination) upgrade(ctx context.Context) error {
	ctx, cancel := x.step(ctx)
	defer cancel()
	conn, err := x.shake(ctx, &x.https, x.unverified(&x.https))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := &http.Client{
		Transport: &http.Transport{
			DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
			DisableKeepAlives: true,

			MaxResponseHeaderBytes: maxAnswer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ws, response, err := websocket.Dial(ctx, "wss://"+x.https.urlHost()+"/$iothub/websocket?iothub-no-client-cert=true",
		&websocket.DialOptions{HTTPClient: client, Subprotocols: []string{"mqtt"}})
	if err != nil {
		if response != nil && response.StatusCode != http.StatusSwitchingProtocols {
			return fmt.Errorf("the answer is %q", response.Status)
		}
		return err
	}
	defer ws.CloseNow()
	if ws.Subprotocol() != "mqtt" {
		return fmt.Errorf("the hub speaks no MQTT there")
	}
	return nil
}

func (x *examination) checkWebSocket() Check {
	switch err := x.https.webSocketErr; {
	case x.https.tcpErr != nil || x.https.tlsErr != nil:
		return skipped(CheckWebSocket, "the port for it is not reached")
	case err == nil:
		return ok(CheckWebSocket, "the hub takes MQTT over WebSocket")
	default:
		c := failed(CheckWebSocket, "no WebSocket on "+x.https.addr+": "+plainError(err),
			"have the proxy or firewall between let WebSocket through; without, devices need port 8883")
		c.TimedOut = isTimeout(err)
		if !x.WebSocket {
			c.Verdict, c.TimedOut = Warning, false
		}
		return c
	}
}
