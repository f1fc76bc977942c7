package linked_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/internal/linked"
)

// webhook listens on addr and returns its URL, with a key in the query.
func webhook(t *testing.T, addr string, answer http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("no %s here: %v", addr, err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: answer}}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL + "/api/allocate?code=" + url.QueryEscape(string(secret))
}

func TestAWebhookIsAsked(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "127.0.0.2:0", "[::1]:0"} {
		hook := webhook(t, addr, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil || r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") || r.FormValue("code") != string(secret) {
				t.Errorf("asked by %s %v with %v: %v", r.Method, r.URL, r.Header, err)
			}
			fmt.Fprintf(w, `{"iotHubHostName":"a","payload":%s}`, body)
		})
		hook = strings.Replace(hook, "127.0.0.1", "LocalHost", 1)
		answer, err := linked.Ask(t.Context(), hook, nil, []byte(`{"n":1}`))
		if err != nil || string(answer) != `{"iotHubHostName":"a","payload":{"n":1}}` {
			t.Errorf("%s: %s, %v", addr, answer, err)
		}
	}
}

// A webhook of this machine is not asked by way of a proxy, which would see the key.
func TestNoProxyForWebhooksOfThisMachine(t *testing.T) {
	proxy := webhook(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) { t.Errorf("the proxy is asked for %v", r.URL) })
	t.Setenv("HTTP_PROXY", proxy)
	t.Setenv("http_proxy", proxy)
	hook := webhook(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "{}") })
	if answer, err := linked.Ask(t.Context(), hook, nil, []byte("{}")); err != nil || string(answer) != "{}" {
		t.Errorf("%s, %v", answer, err)
	}
}

func TestNobodyElseIsAsked(t *testing.T) {
	for _, tt := range []struct {
		url   string
		hosts []string
		ok    bool
	}{
		{"http://localhost/", nil, true},
		{"https://LOCALHOST.:7071/x?code=1", nil, true},
		{"http://hook.localhost:1/", nil, true},
		{"http://127.0.0.1:80", nil, true},
		{"http://127.1.2.3", nil, true},
		{"http://[::1]:80", nil, true},
		{"http://[::ffff:127.0.0.1]:80", nil, true},
		{"https://hook.example/x", []string{"other.example", "HOOK.example"}, true},
		{"https://hook.example:8443/x", []string{"hook.example"}, true},
		{"https://hook.example/x", []string{"hook.example:443"}, true},
		{"http://hook.example/x", []string{"hook.example:80"}, true},
		{"http://[fd00::1]/x", []string{"fd00::1"}, true},
		{"http://[fd00::1]:80/x", []string{"[fd00::1]:80"}, true},
		{"http://10.0.0.1/x", []string{"10.0.0.1"}, true},

		{"https://hook.example/x", nil, false},
		{"https://hook.example/x", []string{"hook.example:80"}, false},
		{"https://hook.example.evil.example/x", []string{"hook.example"}, false},
		{"https://evilhook.example/x", []string{"hook.example"}, false},
		{"https://hook.example/x", []string{""}, false},
		{"http://169.254.169.254/metadata", nil, false},
		{"http://10.0.0.1/", nil, false},
		{"http://[fe80::1]/", nil, false},
		{"http://0.0.0.0/", nil, false},
		{"http://[::]/", nil, false},
		{"http://2130706433/", nil, false},
		{"http://0x7f.1/", nil, false},
		{"http://127.1/", nil, false},
		{"http://localhost.evil.example/", nil, false},
		{"http://notlocalhost/", nil, false},
		{"http://user:secret@localhost/", nil, false},
		{"http://localhost@evil.example/", nil, false},
		{"ftp://localhost/", nil, false},
		{"file:///etc/passwd", nil, false},
		{"http:localhost", nil, false},
		{"http:///x", nil, false},
		{"localhost:7071/x", nil, false},
		{"//localhost/x", nil, false},
		{"", nil, false},
		{"http://local\nhost/", nil, false},
		{"http://evil\u2028.example/", nil, false},
		{"http://[::1/", nil, false},
		{"http://localhost:port/", nil, false},
	} {
		err := linked.CheckWebhook(tt.url, tt.hosts)
		if (err == nil) != tt.ok {
			t.Errorf("%q of %q: %v, want ok %t", tt.url, tt.hosts, err, tt.ok)
		}
		if err == nil {
			continue
		}
		if strings.ContainsAny(err.Error(), "\n\r") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q is refused with %q", tt.url, err)
		}
		if _, asked := linked.Ask(t.Context(), tt.url, tt.hosts, nil); asked == nil || asked.Error() != err.Error() {
			t.Errorf("%q is asked, with %v", tt.url, asked)
		}
	}
}

// What the name is when it is dialled counts, not what it was when it was checked.
func TestANameThatIsAnothersByNowIsNotDialled(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:80": true, "[::1]:80": true, "[::ffff:127.0.0.1]:80": true,
		"10.0.0.1:80": false, "169.254.169.254:80": false, "[fd00::1]:80": false, "0.0.0.0:80": false, "[::]:80": false, "x": false,
	} {
		if err := linked.LoopbackOnly("tcp", address, nil); (err == nil) != ok {
			t.Errorf("%s: %v, want ok %t", address, err, ok)
		}
	}
}

func TestWebhooksThatDoNotAnswerWell(t *testing.T) {
	var elsewhere string
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"redirects": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere, http.StatusTemporaryRedirect)
		}, "it redirects (307), which is not followed"},
		"refuses": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(403)
			fmt.Fprint(w, "top secret")
		}, "it answers 403 Forbidden"},
		"answers with something large": {func(w http.ResponseWriter, r *http.Request) {
			for range 300 {
				fmt.Fprint(w, strings.Repeat("x", 1024))
			}
		}, "its answer is larger than 262144 bytes"},
		"ends amid the answer": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "{")
		}, "unexpected EOF"},
		"ends without one": {func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			elsewhere = webhook(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) { t.Error("the redirect is followed") })
			_, err := linked.Ask(t.Context(), webhook(t, "127.0.0.1:0", tt.answer), nil, []byte("{}"))
			if err == nil || !strings.HasPrefix(err.Error(), `webhook at "127.0.0.1:`) || !strings.HasSuffix(err.Error(), tt.want) {
				t.Fatalf("%v, want %s", err, tt.want)
			}
			if text := err.Error(); strings.Contains(text, "code=") || strings.Contains(text, "top secret") || strings.Contains(text, "/api") {
				t.Errorf("the error tells %q", text)
			}
		})
	}
	t.Run("is not there", func(t *testing.T) {
		_, err := linked.Ask(t.Context(), "http://"+closedPort(t)+"/?code=x", nil, nil)
		if err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "code=") {
			t.Error(err)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		release := make(chan struct{})
		reason := errors.New("the hub closes")
		ctx, cancel := context.WithCancelCause(t.Context())
		hook := webhook(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) { cancel(reason); <-release })
		t.Cleanup(func() { close(release) }) // before the server closes
		start := time.Now()
		if _, err := linked.Ask(ctx, hook, nil, nil); !errors.Is(err, reason) || time.Since(start) > 5*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// FuzzCheckWebhook states the law that matters: what passes without a list leads
// to this machine, as net/http will read it.
func FuzzCheckWebhook(f *testing.F) {
	for _, s := range []string{"http://localhost:1/x", "http://127.0.0.1@evil.example/", "http://localhost%00.evil.example/", "http://[::1%25lo]/", "http://localhost\\@evil.example/", base64.StdEncoding.EncodeToString([]byte{0})} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if linked.CheckWebhook(s, nil) != nil {
			return
		}
		req, err := http.NewRequest(http.MethodPost, s, nil)
		if err != nil {
			t.Skip() // Ask returns it
		}
		host := strings.TrimSuffix(strings.ToLower(req.URL.Hostname()), ".")
		if ip := net.ParseIP(host); ip != nil && !ip.IsLoopback() || ip == nil && host != "localhost" && !strings.HasSuffix(host, ".localhost") && !strings.HasPrefix(host, "::1%") {
			t.Errorf("%q leads to %q", s, host)
		}
	})
}
