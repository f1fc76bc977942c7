package mqttdevice

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub/hubtest"
)

// shut is where nobody listens. A port that was free a moment ago may be some other test's by now.
const shut = "127.0.0.1:1"

// auto returns a client of h that finds out how, and dials tcp for TCP. A busy machine may take a while
// to connect there, or to be refused: that is no reason to try WebSocket too.
func auto(t *testing.T, h *hubtest.Hub, tcp string) (*Client, *states) {
	t.Helper()
	c, events := device(t, nil, Options{
		ConnectionString: h.Device("dev-1"),
		Transport:        Auto,
		Addr:             tcp,
		WebSocketAddr:    h.HTTPSAddr,
		TLS:              h.ClientTLS(),
	})
	t.Cleanup(func() { c.Close() })
	c.dialer.HeadStart = time.Hour
	return c, events
}

func TestAutoTakesTCPWhereItWorks(t *testing.T) {
	h := hubtest.New(t)
	c, events := auto(t, h, h.MQTTSAddr)
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := events.await(Connected); got.Transport != TCP || got.Addr != h.MQTTSAddr || got.Reason != nil {
		t.Errorf("event %+v, want TCP to %s", got, h.MQTTSAddr)
	}
}

func TestAutoTakesWebSocketWhereTCPIsBlocked(t *testing.T) {
	dead := listenTCP(t) // the kernel accepts, and nobody answers
	defer dead.Close()
	broken := listenTCP(t) // something on the way hangs up
	defer broken.Close()
	go func() {
		for {
			conn, err := broken.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	tests := []struct {
		name      string
		addr      string
		headStart time.Duration // zero: enough
		want      string
	}{
		{"the port is shut", shut, 0, "connection refused"},
		{"the port is dead", dead.Addr().String(), time.Millisecond, "has not answered for 1ms"},
		{"the connection is broken", broken.Addr().String(), 0, ""},
	}
	h := hubtest.New(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, events := auto(t, h, tt.addr)
			c.dialer.HeadStart = cmp.Or(tt.headStart, c.dialer.HeadStart)
			if err := c.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := events.await(Connected)
			if got.Transport != WebSocket || got.Addr != h.HTTPSAddr || got.Reason == nil || !strings.Contains(got.Reason.Error(), tt.want) {
				t.Errorf("event %+v, want WebSocket because %q", got, tt.want)
			}
			if _, err := c.Twin(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Through a proxy port 8883 is often refused by the proxy.
func TestAutoThroughAProxy(t *testing.T) {
	h := hubtest.New(t)
	p := &testProxy{t: t, hosts: map[string]string{"localhost.test:443": h.HTTPSAddr}}
	t.Cleanup(p.wg.Wait)
	setEnv(t, "HTTPS_PROXY=http://u:p%40ss@"+p.listen(listenTCP(t), p.serveHTTP))
	conn := h.Device("dev-1")
	config := h.ClientTLS()
	config.ServerName = conn.HostName
	conn.GatewayHostName = "localhost.test"
	c, events := device(t, nil, Options{ConnectionString: conn, Transport: Auto, TLS: config})
	defer c.Close()
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	var proxy *ProxyError
	if got := events.await(Connected); got.Transport != WebSocket || !errors.As(got.Reason, &proxy) {
		t.Errorf("event %+v, want WebSocket because of the proxy", got)
	}
}

func TestAutoWhenNothingWorks(t *testing.T) {
	const shutToo = "127.0.0.1:2"
	c, events := auto(t, hubtest.New(t), shut)
	c.dialer.Routes[1].Addr = shutToo
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go c.Connect(ctx)
	got := events.await(Disconnected).Reason.Error()
	for _, addr := range []string{shut, shutToo} {
		if !strings.Contains(got, "dial tcp "+addr) {
			t.Errorf("reason %q, want it to name %s", got, addr)
		}
	}
}

func TestAutoDoesNotTryWebSocketInVain(t *testing.T) {
	h := hubtest.New(t)
	c, _ := auto(t, h, h.MQTTSAddr)
	c.dialer.Routes[0].TLS.RootCAs = nil // nobody whom this machine trusts
	err := c.Connect(t.Context())
	if err == nil || strings.Contains(err.Error(), "WebSocket:") || !permanent(err) {
		t.Errorf("Connect returned %v, want an error about the certificate and no word on WebSocket", err)
	}
}

func TestAutoRemembers(t *testing.T) {
	h := hubtest.New(t)
	c, _ := auto(t, h, shut)
	dial := func() Transport {
		t.Helper()
		stream, err := c.dialer.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		route, _ := c.dialer.RouteOf(stream)
		return transportOf(route)
	}
	if got := dial(); got != WebSocket {
		t.Errorf("TCP is shut: dialled %v, want WebSocket", got)
	}
	c.dialer.Routes[0].Addr = h.MQTTSAddr
	if got := dial(); got != WebSocket {
		t.Errorf("a little later: dialled %v, want WebSocket again", got)
	}
	c.dialer.Until = time.Now()
	if got := dial(); got != TCP || c.dialer.NotTCP != nil {
		t.Errorf("an hour later: dialled %v, and keeps away from TCP because of %v; want TCP for good", got, c.dialer.NotTCP)
	}
}

// Something on the way lets TLS through, and no MQTT.
func TestAutoTakesWebSocketWhereMQTTGetsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, events := device(t, p, Options{Transport: Auto})
		defer c.Close()
		replace := p.dialling(c)
		go c.Connect(t.Context())
		next[*packets.ConnectPacket](<-p.conns)
		if got := events.await(Disconnected); !errors.Is(got.Reason, ErrNoAnswer) {
			t.Errorf("event %+v, want %v", got, ErrNoAnswer)
		}
		replace(p.dialWebSocket)
		p.accept()
		if got := events.await(Connected); got.Transport != WebSocket || got.Reason != ErrNoAnswer {
			t.Errorf("event %+v, want WebSocket because of %v", got, ErrNoAnswer)
		}
	})
}
