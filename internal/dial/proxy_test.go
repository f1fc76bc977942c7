package dial

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestProxyFromEnvironment(t *testing.T) {
	tests := []struct {
		name string
		env  string // NAME=VALUE ...
		addr string
		want string
	}{
		{"none", "", "hub.test:8883", ""},
		{"HTTPS_PROXY", "HTTPS_PROXY=http://p:3128", "hub.test:8883", "http://p:3128"},
		{"https_proxy without scheme", "https_proxy=p:3128", "hub.test:443", "http://p:3128"},
		{"ALL_PROXY", "ALL_PROXY=socks5://p:1080", "hub.test:8883", "socks5://p:1080"},
		{"HTTPS_PROXY before all_proxy", "all_proxy=socks5://p:1080 HTTPS_PROXY=https://q", "hub.test:8883", "https://q"},
		{"HTTP_PROXY is for something else", "HTTP_PROXY=http://p:3128", "hub.test:8883", ""},
		{"a name in NO_PROXY", "HTTPS_PROXY=http://p:3128 NO_PROXY=hub.test,other", "hub.test:8883", ""},
		{"a domain in NO_PROXY", "ALL_PROXY=http://p:3128 no_proxy=.test", "hub.test:8883", ""},
		{"another port in NO_PROXY", "HTTPS_PROXY=http://p:3128 NO_PROXY=hub.test:443", "hub.test:8883", "http://p:3128"},
		{"this machine", "HTTPS_PROXY=http://p:3128", "localhost:8883", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			setEnv(t, tt.env)
			got, err := Proxy(tt.addr)
			if err != nil {
				t.Fatal(err)
			}
			text := ""
			if got != nil {
				text = got.String()
			}
			if text != tt.want {
				t.Errorf("with %q the proxy for %s is %q, want %q", tt.env, tt.addr, text, tt.want)
			}
		})
	}
}

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

func TestProxyThatMisbehaves(t *testing.T) {
	tests := []struct {
		name   string
		answer string
		want   string
	}{
		{"no HTTP", "what?\r\n\r\n", "answer to CONNECT"},
		{"silence", "", "answer to CONNECT"},
		{"more than was asked for", "HTTP/1.1 200 OK\r\n\r\nhello", "spoke before"},
		{"a header without end", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxTunnelAnswer), "answer to CONNECT"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			near, far := net.Pipe()
			go func() {
				http.ReadRequest(bufio.NewReader(far))
				io.WriteString(far, tt.answer)
				far.Close()
			}()
			defer near.Close()
			if err := tunnel(t.Context(), near, nil, "hub.test:8883"); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
	t.Run("a caller who cannot wait", func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		impatient := errors.New("no patience")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(impatient)
		if err := tunnel(ctx, near, url.User("u"), "hub.test:8883"); !errors.Is(err, impatient) {
			t.Errorf("error %v, want %v", err, impatient)
		}
	})
}
