package dial

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"
)

// A ProxyError is the failure to reach the hub through a proxy that the environment names.
type ProxyError struct {
	Proxy string // host:port
	Err   error
}

// Error names the proxy and the reason.
func (e *ProxyError) Error() string { return "proxy " + e.Proxy + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *ProxyError) Unwrap() error { return e.Err }

// Proxy returns the proxy that the environment names for addr, a host:port; nil for none. It follows
// net/http: HTTPS_PROXY, unless NO_PROXY names the host or it is this machine. Like curl it falls back to
// ALL_PROXY.
func Proxy(addr string) (*url.URL, error) {
	config := httpproxy.FromEnvironment()
	config.HTTPSProxy = cmp.Or(config.HTTPSProxy, os.Getenv("ALL_PROXY"), os.Getenv("all_proxy"))
	return config.ProxyFunc()(&url.URL{Scheme: "https", Host: addr})
}

// ThroughProxy connects to addr, a host:port, through a proxy that Proxy returned: the connection is bare
// TCP. The proxy's own certificate, if it has one, is verified with roots; nil means the system's. Errors are
// of type *ProxyError.
func ThroughProxy(ctx context.Context, through *url.URL, addr string, roots *x509.CertPool) (net.Conn, error) {
	conn, err := dialThrough(ctx, through, addr, roots)
	if err != nil {
		return nil, &ProxyError{Proxy: proxyAddr(through), Err: err}
	}
	return conn, nil
}

// dialTCP connects to r.Addr, through a proxy if there is one for it.
func (r *Route) dialTCP(ctx context.Context) (net.Conn, error) {
	var through *url.URL
	if r.Proxied {
		var err error
		if through, err = Proxy(r.Addr); err != nil {
			return nil, err
		}
	}
	if through == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", r.Addr)
	}
	return ThroughProxy(ctx, through, r.Addr, r.TLS.RootCAs)
}

// proxyAddr is what to dial to reach a proxy.
func proxyAddr(through *url.URL) string {
	port := through.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[through.Scheme]
	}
	return net.JoinHostPort(through.Hostname(), cmp.Or(port, "1080"))
}

func dialThrough(ctx context.Context, through *url.URL, addr string, roots *x509.CertPool) (net.Conn, error) {
	switch through.Scheme {
	case "socks5", "socks5h":
		return dialSOCKS(ctx, through, addr)
	case "http", "https":
	default:
		return nil, fmt.Errorf("unknown scheme %q; it is http, https or socks5", through.Scheme)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", proxyAddr(through))
	if err == nil && through.Scheme == "https" {
		conn, err = startTLS(ctx, conn, &tls.Config{
			ServerName: through.Hostname(),
			RootCAs:    roots,
			MinVersion: tls.VersionTLS12,
		})
	}
	if err != nil {
		return nil, err
	}
	if err := tunnel(ctx, conn, through.User, addr); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// maxTunnelAnswer bounds what a proxy, or the hub, may say before the stream stands.
const maxTunnelAnswer = 64 << 10

// tunnel asks the HTTP proxy at the other end of conn for a connection to addr (RFC 9110, section
// 9.3.6).
func tunnel(ctx context.Context, conn net.Conn, user *url.Userinfo, addr string) error {
	interrupt := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err := connectRequest(conn, user, addr)
	if !interrupt() {
		return context.Cause(ctx)
	}
	return err
}

func connectRequest(conn net.Conn, user *url.Userinfo, addr string) error {
	request := &http.Request{
		Method: http.MethodConnect,
		URL:    &url.URL{Opaque: addr},
		Host:   addr,
		Header: make(http.Header),
	}
	if user != nil {
		password, _ := user.Password()
		credential := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		request.Header.Set("Proxy-Authorization", "Basic "+credential)
	}
	if err := request.Write(conn); err != nil {
		return err
	}
	answer := bufio.NewReader(io.LimitReader(conn, maxTunnelAnswer))
	response, err := http.ReadResponse(answer, request)
	if err != nil {
		return fmt.Errorf("answer to CONNECT: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered CONNECT %s with %s", addr, response.Status)
	}
	if answer.Buffered() > 0 {
		return errors.New("it spoke before this machine did")
	}
	return nil
}

// dialSOCKS leaves it to the proxy to look up the host's name.
func dialSOCKS(ctx context.Context, through *url.URL, addr string) (net.Conn, error) {
	var auth *proxy.Auth
	if through.User != nil {
		password, _ := through.User.Password()
		auth = &proxy.Auth{User: through.User.Username(), Password: password}
	}
	d, err := proxy.SOCKS5("tcp", proxyAddr(through), auth, nil)
	if err != nil {
		return nil, err
	}
	return d.(proxy.ContextDialer).DialContext(ctx, "tcp", addr)
}
