package mqttdevice

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// setEnv sets the variables about proxies, and no other than these.
func setEnv(t *testing.T, env string) {
	t.Helper()
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"} {
		t.Setenv(name, "")
		t.Setenv(strings.ToLower(name), "")
	}
	for pair := range strings.FieldsSeq(env) {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
}

// A testProxy is a proxy whose map of names is a fixed one.
type testProxy struct {
	t     *testing.T
	hosts map[string]string // host:port asked for to address
	wg    sync.WaitGroup
	mu    sync.Mutex
	asked []string
}

// listen serves every connection until the test ends, and returns the address.
func (p *testProxy) listen(l net.Listener, serve func(net.Conn) error) string {
	p.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() {
				defer conn.Close()
				if err := serve(conn); err != nil {
					p.t.Logf("proxy: %v", err)
				}
			})
		}
	})
	p.t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// splice connects conn with the host, until one of them ends.
func (p *testProxy) splice(conn net.Conn, host string) error {
	far, err := net.Dial("tcp", p.hosts[host])
	if err != nil {
		return err
	}
	defer far.Close()
	p.mu.Lock()
	p.asked = append(p.asked, host)
	p.mu.Unlock()
	p.wg.Go(func() {
		io.Copy(far, conn)
		far.Close()
	})
	io.Copy(conn, far)
	return nil
}

// serveHTTP answers CONNECT of a user named u whose password is "p@ss".
func (p *testProxy) serveHTTP(conn net.Conn) error {
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return err
	}
	// RFC 7617: "u:p@ss"
	if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") != "Basic dTpwQHNz" {
		_, err := io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return err
	}
	if p.hosts[r.Host] == "" {
		_, err := io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return err
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return err
	}
	return p.splice(conn, r.Host)
}

// serveSOCKS is as much of RFC 1928 as CONNECT to a name needs, without authentication.
func (p *testProxy) serveSOCKS(conn net.Conn) error {
	head := make([]byte, 2)
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, conn, int64(head[1])); err != nil {
		return err
	}
	conn.Write([]byte{5, 0})
	request := make([]byte, 5)
	if _, err := io.ReadFull(conn, request); err != nil {
		return err
	}
	name := make([]byte, int(request[4])+2)
	if _, err := io.ReadFull(conn, name); err != nil {
		return err
	}
	conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	n := len(name) - 2
	return p.splice(conn, fmt.Sprintf("%s:%d", name[:n], int(name[n])<<8|int(name[n+1])))
}

func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestProxies(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{HostNames: []string{testHub}}))
	conn := h.Device("dev-1")
	conn.HostName = testHub
	p := &testProxy{t: t, hosts: map[string]string{testHub + ":8883": h.MQTTSAddr, testHub + ":443": h.HTTPSAddr}}
	t.Cleanup(p.wg.Wait)
	plain := p.listen(listenTCP(t), p.serveHTTP)
	secure := p.listen(tls.NewListener(listenTCP(t), h.TLSConfig()), p.serveHTTP)
	socks := p.listen(listenTCP(t), p.serveSOCKS)
	closed := listenTCP(t)
	closed.Close()
	tests := []struct {
		name      string
		transport Transport
		proxy     string
		asked     string
		refused   string // what the error says
	}{
		{name: "TCP", proxy: "http://u:p%40ss@" + plain, asked: testHub + ":8883"},
		{name: "WebSocket", transport: WebSocket, proxy: "http://u:p%40ss@" + plain, asked: testHub + ":443"},
		{name: "a proxy with TLS", proxy: "https://u:p%40ss@" + secure, asked: testHub + ":8883"},
		{name: "SOCKS", proxy: "socks5://" + socks, asked: testHub + ":8883"},
		{name: "a wrong password", proxy: "http://u:secret@" + plain,
			refused: "proxy " + plain + ": it answered CONNECT hub.test:8883 with 407 Proxy Authentication Required"},
		{name: "no proxy", proxy: "http://" + closed.Addr().String(), refused: "proxy " + closed.Addr().String() + ": dial tcp"},
		{name: "a proxy of another kind", proxy: "ftp://" + plain, refused: `unknown scheme "ftp"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			setEnv(t, "HTTPS_PROXY="+tt.proxy)
			p.asked = nil
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var reason error
			c, err := New(Options{ConnectionString: conn, Transport: tt.transport, TLS: h.ClientTLS(), OnState: func(s State) {
				if s.Status == Disconnected && reason == nil {
					reason = s.Reason
					cancel()
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			err = c.Connect(ctx)
			if err == nil {
				_, err = c.Twin(ctx)
			}
			c.Close()
			if tt.refused == "" {
				p.mu.Lock()
				defer p.mu.Unlock()
				if err != nil || len(p.asked) != 1 || p.asked[0] != tt.asked {
					t.Errorf("error %v, the proxy was asked for %v, want %s", err, p.asked, tt.asked)
				}
				return
			}
			var proxy *ProxyError
			if !errors.As(reason, &proxy) || !strings.Contains(reason.Error(), tt.refused) || strings.Contains(reason.Error(), "secret") {
				t.Errorf("Connect failed with %v, want %q", reason, tt.refused)
			}
		})
	}
}

func TestRegisteringThroughProxies(t *testing.T) {
	h := hubtest.New(t, hubtest.WithOptions(node.Options{HostNames: []string{testHub}}))
	e := provisioning.Enrollment{RegistrationID: "dev-1", Attestation: provisioning.Attestation{Type: provisioning.BySymmetricKey}}
	e, err := h.Provisioning.PutEnrollment(e, hub.Match{})
	if err != nil {
		t.Fatal(err)
	}
	p := &testProxy{t: t, hosts: map[string]string{testHub + ":8883": h.MQTTSAddr, testHub + ":443": h.HTTPSAddr}}
	t.Cleanup(p.wg.Wait)
	setEnv(t, "HTTPS_PROXY=http://u:p%40ss@"+p.listen(listenTCP(t), p.serveHTTP))
	for _, transport := range []Transport{TCP, WebSocket, Auto} {
		a, err := Register(t.Context(), RegistrationOptions{
			Host: testHub, IDScope: h.IDScope(), RegistrationID: "dev-1", Key: e.Attestation.SymmetricKey.Primary, Transport: transport, TLS: h.ClientTLS(),
		})
		if err != nil || a.Hub != testHub || a.DeviceID != "dev-1" {
			t.Errorf("%v: %+v, error %v", transport, a, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if diff := cmp.Diff([]string{testHub + ":8883", testHub + ":443", testHub + ":8883"}, p.asked); diff != "" {
		t.Errorf("the proxy was asked for (-want +got):\n%s", diff)
	}
}
