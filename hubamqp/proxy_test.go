package hubamqp_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hubamqp"
)

// connectProxy serves CONNECT until the test ends: to the addresses that the names stand for, and to no other. It
// returns its address.
func connectProxy(t *testing.T, hosts map[string]string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	serve := func(near net.Conn) {
		defer near.Close()
		r, err := http.ReadRequest(bufio.NewReader(near))
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", hosts[r.Host])
		if err != nil || hosts[r.Host] == "" {
			io.WriteString(near, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
			return
		}
		defer far.Close()
		io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		wg.Go(func() { io.Copy(far, near); far.Close() })
		io.Copy(near, far)
	}
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// setProxy sets the variables about proxies, and no other than these.
func setProxy(t *testing.T, proxy string) {
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"} {
		t.Setenv(name, "")
		t.Setenv(strings.ToLower(name), "")
	}
	t.Setenv("HTTPS_PROXY", proxy)
}

func TestThroughAProxy(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{HostNames: []string{"hub.test"}}))
	d, _ := device(t, h, "dev-1")
	send(t, d, "1")
	opt := hubamqp.Options{ConnectionString: h.Policy("service"), TLS: h.ClientTLS()}
	opt.ConnectionString.HostName = "hub.test"
	for name, tt := range map[string]struct {
		hosts map[string]string
		want  hubamqp.Transport
	}{
		"one that lets 5671 through": {map[string]string{"hub.test:5671": h.AMQPSAddr}, hubamqp.TCP},
		"one that does not":          {map[string]string{"hub.test:443": h.HTTPSAddr}, hubamqp.WebSocket},
	} {
		t.Run(name, func(t *testing.T) {
			setProxy(t, "http://"+connectProxy(t, tt.hosts))
			c := start(t, opt)
			how, err := c.Check(within(t))
			if err != nil || how.Transport != tt.want {
				t.Fatalf("Check returned %+v, %v; want %v", how, err, tt.want)
			}
			if err := c.Send(within(t), hubamqp.Target{DeviceID: "dev-1"}, hubamqp.Message{}); err != nil {
				t.Error(err)
			}
			if got := all(t, c, hubamqp.EventQuery{}); len(got) != 1 {
				t.Errorf("events %v, want one", bodies(got))
			}
			c.Close()
		})
	}
	t.Run("one that does not run", func(t *testing.T) {
		setProxy(t, "http://u:secret@127.0.0.1:1")
		_, err := start(t, opt).Check(within(t))
		if proxy, ok := errors.AsType[*hubamqp.ProxyError](err); !ok || proxy.Proxy != "127.0.0.1:1" || strings.Contains(err.Error(), "secret") {
			t.Errorf("Check returned %v", err)
		}
	})
}
