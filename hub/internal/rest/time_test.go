package rest_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// A pipeListener accepts the other ends of net.Pipes, so that a hub can run in
// a synctest bubble, whose clock jumps when everything waits.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	clients []net.Conn
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// dial returns the client's end of a new connection.
func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.clients = append(l.clients, client)
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hangUp closes the clients' ends.
func (l *pipeListener) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.clients {
		c.Close()
	}
}

// A bubbleHub is a hub in a bubble. It has the device dev1.
type bubbleHub struct {
	*node.Node
	t           testing.TB
	https, mqtt *pipeListener
}

// inBubble runs f with a hub in a bubble: time passes only while all wait.
func inBubble(t *testing.T, f func(t *testing.T, h *bubbleHub)) {
	synctest.Test(t, func(t *testing.T) {
		s, err := node.New(node.Options{})
		if err != nil {
			t.Fatal(err)
		}
		h := &bubbleHub{Node: s, t: t, https: newPipeListener(), mqtt: newPipeListener()}
		if _, err := s.PutIdentity(hub.ID{Device: "dev1"}, hub.IdentitySpec{}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 2)
		go func() { served <- s.ServeHTTPS(h.https) }()
		go func() { served <- s.ServeMQTT(h.mqtt) }()
		defer func() { // even if f ends the test: nothing may stay in the bubble
			h.https.hangUp()
			h.mqtt.hangUp()
			synctest.Wait()
			s.Close()
			<-served
			<-served
		}()
		f(t, h)
	})
}

// dial opens a TLS connection. The handshake is left to the first use.
func (h *bubbleHub) dial() *tls.Conn {
	h.t.Helper()
	nc, err := h.https.dial(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	// Of TLS 1.3 both sides write at once, which a pipe does not take.
	return tls.Client(nc, &tls.Config{RootCAs: h.RootCAs(), ServerName: "localhost", MaxVersion: tls.VersionTLS12})
}

// head is the head of a direct method call with a body of n bytes.
func (h *bubbleHub) head(n int) string {
	h.t.Helper()
	i := slices.IndexFunc(h.Policies(), func(p hub.Policy) bool { return p.Name == "iothubowner" })
	token := wiretest.Sign(h.t, "localhost", "iothubowner", h.Policies()[i].PrimaryKey, time.Now().Add(time.Hour))
	return fmt.Sprintf("POST /twins/dev1/methods?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n", token, n)
}

// ask sends text and returns the answer, and the time it took.
func (h *bubbleHub) ask(c net.Conn, text string) (wiretest.Answer, time.Duration) {
	h.t.Helper()
	start := time.Now()
	if _, err := io.WriteString(c, text); err != nil {
		h.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return wiretest.Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}, time.Since(start)
}

// wantClosedAfter checks that the hub closes the connection after d.
func wantClosedAfter(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	start := time.Now()
	n, err := io.Copy(io.Discard, c)
	if took := time.Since(start); took != d || n != 0 {
		t.Errorf("the hub sent %d bytes and closed after %v (%v), want %v", n, took, err, d)
	}
}

func TestAPeerThatStopsCostsABoundedTime(t *testing.T) {
	for name, tt := range map[string]struct {
		send func(h *bubbleHub, c *tls.Conn)
		want time.Duration
	}{
		"before its handshake": {func(_ *bubbleHub, c *tls.Conn) {}, 10 * time.Second},
		"in its headers": {func(h *bubbleHub, c *tls.Conn) {
			if _, err := io.WriteString(c, h.head(1)[:100]); err != nil {
				h.t.Fatal(err)
			}
		}, 10 * time.Second},
		"between requests": {func(h *bubbleHub, c *tls.Conn) {
			h.ask(c, h.head(0))
		}, 2 * time.Minute},
		"after a request that it may not make": {func(h *bubbleHub, c *tls.Conn) {
			h.ask(c, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
		}, 10 * time.Second},
		"after one that says it may ask from a browser": {func(h *bubbleHub, c *tls.Conn) {
			h.ask(c, "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://example.com\r\n\r\n")
		}, 10 * time.Second},
		"in front of CONNECT": {func(h *bubbleHub, c *tls.Conn) {
			h.ask(c, "GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")
		}, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *bubbleHub) {
				c := h.dial()
				tt.send(h, c)
				if c.ConnectionState().HandshakeComplete {
					wantClosedAfter(t, c, tt.want)
				} else {
					wantClosedAfter(t, c.NetConn(), tt.want)
				}
			})
		})
	}
}

// A peer that nobody knows has ten seconds in all, not for each byte.
func TestAPeerThatDripsCostsABoundedTime(t *testing.T) {
	for name, text := range map[string]string{
		"its headers":                             "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: ",
		"a body that nobody wants":                "POST /twins/dev1/methods?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n",
		"a body in chunks that nobody wants":      "POST /twins/dev1/methods?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n",
		"requests of which it may make not a one": "",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *bubbleHub) {
				c := h.dial()
				start := time.Now()
				go io.Copy(io.Discard, c)
				piece := "x"
				if text == "" {
					piece = "GET /devices HTTP/1.1\r\nHost: localhost\r\n\r\n"
				}
				_, err := io.WriteString(c, text)
				for err == nil && time.Since(start) < time.Minute {
					time.Sleep(time.Second) // in the bubble
					_, err = io.WriteString(c, piece)
				}
				if took := time.Since(start); took < 10*time.Second || took > 12*time.Second {
					t.Errorf("the hub closed after %v (%v), want 10 s", took, err)
				}
			})
		})
	}
}

func TestABodyThatStopsIsGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, h *bubbleHub) {
		c := h.dial()
		a, took := h.ask(c, h.head(20)+"{")
		if a.Status != 400 || took != 30*time.Second || !strings.Contains(a.Body, "the body did not arrive in full") {
			t.Errorf("%d %s after %v, want 400 after 30 s", a.Status, a.Body, took)
		}
		wantClosedAfter(t, c, 0)
	})
	inBubble(t, func(t *testing.T, h *bubbleHub) {
		// net/http waits for a body before it sends an answer, even of someone
		// who is not let in.
		c := h.dial()
		a, took := h.ask(c, strings.Replace(h.head(20), "sig=", "sig=A", 1)+"{")
		if a.Status != 401 || took != 10*time.Second {
			t.Errorf("%d %s after %v, want 401 after 10 s", a.Status, a.Body, took)
		}
		wantClosedAfter(t, c, 0)
	})
}

func TestMethodTimeouts(t *testing.T) {
	call := func(h *bubbleHub, body string) (wiretest.Answer, time.Duration) {
		return h.ask(h.dial(), h.head(len(body))+body)
	}
	device := func(h *bubbleHub) *wiretest.Client {
		nc, err := h.mqtt.dial(h.t.Context())
		if err != nil {
			h.t.Error(err)
			return nil
		}
		i, err := h.Identity(hub.ID{Device: "dev1"})
		if err != nil {
			h.t.Error(err)
			return nil
		}
		d := wiretest.NewClient(h.t, nc)
		d.Connect(sas.ConnectionString{HostName: "localhost", DeviceID: "dev1", SharedAccessKey: i.Auth.SymmetricKey.Primary}, func(p *packets.ConnectPacket) { p.Keepalive = 0 })
		d.Subscribe(0, "$iothub/methods/POST/#")
		go io.Copy(io.Discard, d)
		return d
	}
	want := func(t *testing.T, a wiretest.Answer, took time.Duration, status int, info string, after time.Duration) {
		t.Helper()
		if a.Status != status || took != after || !strings.Contains(a.Text(t, "Message"), info) {
			t.Errorf("%d %s after %v, want %d with %s after %v", a.Status, a.Body, took, status, info, after)
		}
	}
	t.Run("a device that never answers", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *bubbleHub) {
			device(h)
			a, took := call(h, `{"methodName":"m","responseTimeoutInSeconds":5}`)
			want(t, a, took, 504, `"errorCode":504101`, 5*time.Second)
			a, took = call(h, `{"methodName":"m"}`)
			want(t, a, took, 504, `"message":"Timed out waiting for the response from device.","info":{}`, 30*time.Second)
		})
	})
	t.Run("a device that never connects", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *bubbleHub) {
			a, took := call(h, `{"methodName":"m","connectTimeoutInSeconds":20}`)
			want(t, a, took, 404, `"info":{"timeout":"00:00:20"}`, 20*time.Second)
		})
	})
	t.Run("a device that connects late and never answers", func(t *testing.T) {
		inBubble(t, func(t *testing.T, h *bubbleHub) {
			time.AfterFunc(299*time.Second, func() { device(h) })
			a, took := call(h, `{"methodName":"m","connectTimeoutInSeconds":300,"responseTimeoutInSeconds":300}`)
			want(t, a, took, 504, `"errorCode":504101`, 599*time.Second)
		})
	})
}

// A stop waits a moment for the first request of a connection, and no longer.
func TestAStopWithAConnectionThatNeverAsks(t *testing.T) {
	inBubble(t, func(t *testing.T, h *bubbleHub) {
		nc := h.dial()
		if err := nc.Handshake(); err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, nc) // a pipe holds no word of the end
		began := time.Now()
		if err := h.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < time.Second || took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
