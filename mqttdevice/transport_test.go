package mqttdevice

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/internal/dial"
	"github.com/iotdm/iotdm/sas"
)

// oneConn is a listener for one connection.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	conn := l.conn
	if l.conn = nil; conn == nil {
		return nil, io.EOF
	}
	return conn, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// dialHTTP connects over WebSocket to a hub's end that h serves.
func dialHTTP(ctx context.Context, h http.HandlerFunc) (net.Conn, error) {
	near, far := net.Pipe()
	go http.Serve(&oneConn{far}, h)
	return dial.StartWebSocket(ctx, pipe{near}, &url.URL{Scheme: "wss", Host: testHub, Path: "/$iothub/websocket"}, overWebSocket)
}

// dialWebSocket is for Client.dial, like dial.
func (p *peer) dialWebSocket(ctx context.Context) (net.Conn, error) {
	return dialHTTP(ctx, func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"mqtt"}})
		if err != nil {
			p.t.Error(err)
			return
		}
		p.begin(websocket.NetConn(context.Background(), ws, websocket.MessageBinary))
	})
}

// connectedWebSocket is connected, over WebSocket.
func connectedWebSocket(t *testing.T, p *peer) (*Client, *peerConn, *states) {
	t.Helper()
	return connected(t, p, func(c *Client) { c.dial = p.dialWebSocket })
}

func TestWebSocketEndsForTheSameReasons(t *testing.T) {
	t.Run("the hub closes it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			c, far, events := connectedWebSocket(t, p)
			defer c.Close()
			far.Close()
			if got := events.await(Disconnected); !errors.Is(got.Reason, ErrHubClosed) {
				t.Errorf("connection ended with %v, want %v", got.Reason, ErrHubClosed)
			}
			p.accept()
			events.await(Connected)
		})
	})
	t.Run("the hub is silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			c, far, events := connectedWebSocket(t, p)
			defer c.Close()
			time.Sleep(30 * time.Minute) // pings are answered
			far.mu.Lock()
			far.mute = true
			far.mu.Unlock()
			began := time.Now()
			if got := events.await(Disconnected); !errors.Is(got.Reason, ErrNoPong) {
				t.Errorf("connection ended with %v, want %v", got.Reason, ErrNoPong)
			}
			if waited := time.Since(began); waited > defaultKeepAlive+2*pingTimeout {
				t.Errorf("noticed after %v", waited)
			}
		})
	})
	t.Run("the client closes it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			c, far, _ := connectedWebSocket(t, p)
			began := time.Now()
			c.Close()
			next[*packets.DisconnectPacket](far)
			if waited := time.Since(began); waited != 0 {
				t.Errorf("Close returned after %v, want at once", waited)
			}
		})
	})
}

func TestWebSocketToAHubThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := make(chan bool)
		conn, err := dialHTTP(t.Context(), func(w http.ResponseWriter, r *http.Request) {
			ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"mqtt"}})
			if err != nil {
				t.Error(err)
				return
			}
			defer ws.CloseNow()
			<-read
		})
		if err != nil {
			t.Fatal(err)
		}
		defer close(read)
		w := &wire{Conn: conn, lose: func(error) {}}
		defer w.Close()
		began := time.Now()
		var timeout net.Error
		if _, err := w.Write(make([]byte, 1<<20)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("Write returned %v, want a time-out", err)
		}
		if waited := time.Since(began); waited != writeTimeout {
			t.Errorf("Write returned after %v, want %v", waited, writeTimeout)
		}
	})
}

func TestWebSocketThatIsRefused(t *testing.T) {
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"no such path", http.NotFound, "the hub answered the WebSocket handshake with 404 Not Found"},
		{"another host", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, "handshake with 302 Found"},
		{"no MQTT", func(w http.ResponseWriter, r *http.Request) {
			ws, err := websocket.Accept(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			ws.CloseNow()
		}, "the hub does not speak MQTT over WebSocket"},
		{"no WebSocket", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }, "handshake with 200 OK"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if _, err := dialHTTP(t.Context(), tt.answer); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q in it", err, tt.want)
				}
			})
		})
	}
	t.Run("a hub that does not answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), connectTimeout, ErrNoAnswer)
			defer cancel()
			_, err := dialHTTP(ctx, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			if !errors.Is(err, ErrNoAnswer) {
				t.Errorf("error %v, want %v", err, ErrNoAnswer)
			}
		})
	})
}

func TestWhereTransportsLead(t *testing.T) {
	type want struct{ Addr, ServerName, URL string }
	tests := []struct {
		name string
		opt  Options
		want want
	}{
		{"TCP", Options{ConnectionString: sas.ConnectionString{HostName: "hub.test"}},
			want{"hub.test:8883", "hub.test", ""}},
		{"WebSocket", Options{ConnectionString: sas.ConnectionString{HostName: "hub.test"}, Transport: WebSocket},
			want{"hub.test:443", "hub.test", "wss://hub.test/$iothub/websocket?iothub-no-client-cert=true"}},
		{"WebSocket with a certificate", Options{ConnectionString: sas.ConnectionString{HostName: "hub.test", X509: true}, Transport: WebSocket},
			want{"hub.test:443", "hub.test", "wss://hub.test/$iothub/websocket"}},
		{"a port in the name", Options{ConnectionString: sas.ConnectionString{HostName: "hub.test:8443"}, Transport: WebSocket},
			want{"hub.test:8443", "hub.test", "wss://hub.test:8443/$iothub/websocket?iothub-no-client-cert=true"}},
		{"a gateway", Options{ConnectionString: sas.ConnectionString{HostName: "hub.test", GatewayHostName: "gw.test"}, Transport: WebSocket},
			want{"gw.test:443", "gw.test", "wss://gw.test/$iothub/websocket?iothub-no-client-cert=true"}},
		{"an address", Options{ConnectionString: sas.ConnectionString{HostName: "hub.test"}, Transport: WebSocket, Addr: "[::1]:8443"},
			want{"[::1]:8443", "hub.test", "wss://hub.test/$iothub/websocket?iothub-no-client-cert=true"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRoute(tt.opt, tt.opt.Transport)
			got := want{Addr: r.Addr, ServerName: r.TLS.ServerName}
			if r.WebSocket != nil {
				got.URL = r.WebSocket.String()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	autos := []struct {
		name string
		opt  Options
		want []string // what is dialled, in this order
	}{
		{"Auto", options("hub.test", ""), []string{"hub.test:8883", "hub.test:443"}},
		{"a port in the name is that of TCP", options("hub.test:18883", ""), []string{"hub.test:18883", "hub.test:443"}},
		{"unless it is that of WebSocket", options("hub.test:443", ""), []string{"hub.test:443"}},
		{"addresses", Options{ConnectionString: sas.ConnectionString{HostName: "hub.test"}, Addr: "[::1]:1", WebSocketAddr: "[::1]:2"}, []string{"[::1]:1", "[::1]:2"}},
	}
	for _, tt := range autos {
		t.Run(tt.name, func(t *testing.T) {
			tt.opt.Transport = Auto
			var got []string
			for _, r := range newDialer(tt.opt, nil).Routes {
				got = append(got, r.Addr)
				if r.WebSocket != nil && r.WebSocket.Host != "hub.test" {
					t.Errorf("host %q of the WebSocket, want hub.test", r.WebSocket.Host)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
	_, err := New(Options{ConnectionString: sas.ConnectionString{HostName: "h", DeviceID: "d", X509: true}, Transport: 7})
	if err == nil {
		t.Error("New takes a transport that does not exist")
	}
}

func TestClientsResumeSessionsOfASharedCache(t *testing.T) {
	h := hubtest.New(t)
	config := h.ClientTLS()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	client := func(id string) *Client {
		c, _ := device(t, nil, Options{ConnectionString: h.Device(id), Addr: h.MQTTSAddr, TLS: config})
		t.Cleanup(func() { c.Close() })
		return c
	}
	if err := client("dev-1").Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	stream, err := client("dev-2").dialer.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.(*tls.Conn).ConnectionState().DidResume {
		t.Error("the second client shook hands in full")
	}
}
