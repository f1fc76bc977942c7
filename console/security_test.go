package console_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/hub"
)

// ask sends a request as it is, without following redirects.
func (s *site) ask(method, path string, change func(*http.Request), form ...string) *http.Response {
	s.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Add(form[i], form[i+1])
	}
	r, err := http.NewRequest(method, s.server.URL+path, strings.NewReader(values.Encode()))
	if err != nil {
		s.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if change != nil {
		change(r)
	}
	browser := *s.browser
	browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := browser.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil {
		s.Fatal(err)
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	return answer
}

func TestOnlyHostsOfOursAreServed(t *testing.T) {
	s := newSite(t, func(o *console.Options) { o.Hosts = []string{"console.example.com"} })
	port := s.server.URL[strings.LastIndex(s.server.URL, ":"):]
	for host, want := range map[string]int{
		"127.0.0.1" + port: 200, "localhost" + port: 200, "LOCALHOST": 200, "[::1]" + port: 200, "127.9.9.9": 200, "console.example.com" + port: 200,
		"evil.example.com": 421, "evil.example.com" + port: 421, "localhost.evil.com": 421, "127.0.0.1.evil.com": 421, "192.0.2.1": 421, "[2001:db8::1]": 421, "a b": 421,
	} {
		for _, path := range []string{"/login", "/static/x", "/"} {
			status := s.ask("GET", path, func(r *http.Request) { r.Host = host }).StatusCode
			if (status == 421 || status == 400) != (want == 421) { // net/http itself refuses some
				t.Errorf("%s of %s is answered with status %d", path, host, status)
			}
		}
	}
}

func TestOtherSitesChangeNothing(t *testing.T) {
	s := newSite(t)
	id := s.hub.Device("d1").DeviceID
	foreign := map[string]func(*http.Request){
		"a foreign origin":            func(r *http.Request) { r.Header.Set("Origin", "http://evil.example.com") },
		"another port":                func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1") },
		"no origin to tell":           func(r *http.Request) { r.Header.Set("Origin", "null") },
		"a cross-site form":           func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"a form of another subdomain": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
	}
	actions := s.console.Actions()
	if len(actions) < 3 {
		t.Fatalf("there are %d actions", len(actions))
	}
	for path := range actions {
		path = strings.NewReplacer("{id}", id, "{module}", "m1", "{kind}", "group").Replace(path)
		for what, change := range foreign {
			if got := s.ask("POST", path, change, "confirm", id).StatusCode; got != http.StatusForbidden {
				t.Errorf("POST %s by %s is answered with status %d", path, what, got)
			}
		}
	}
	for what, change := range foreign {
		if got := s.ask("POST", "/login", change, "token", s.console.NewToken()).StatusCode; got != http.StatusForbidden {
			t.Errorf("a login by %s is answered with status %d", what, got)
		}
	}
	if _, err := s.hub.Identity(hub.ID{Device: id}); err != nil {
		t.Errorf("the device: %v", err)
	}
}

func TestNothingIsDoneForWhoHasNotLoggedIn(t *testing.T) {
	s := newSite(t)
	s.browser = s.newBrowser()
	for path := range s.console.Actions() {
		if got := s.ask("POST", path, nil).StatusCode; got != http.StatusUnauthorized {
			t.Errorf("POST %s is answered with status %d", path, got)
		}
	}
	for _, path := range []string{"/", "/devices", "/settings", "/events", "/device/d1", "/no-such-page"} {
		d := s.try(path)
		if d.status != http.StatusUnauthorized || strings.Contains(d.body, "test-hub<") {
			t.Errorf("GET %s is answered with status %d: %s", path, d.status, d.text("body"))
		}
	}
}

func TestAReadOnlyConsoleChangesNothing(t *testing.T) {
	s := newSite(t, func(o *console.Options) { o.ReadOnly = true })
	for path, need := range s.console.Actions() {
		if need == "" {
			continue
		}
		answer := s.ask("POST", path, nil)
		body, _ := io.ReadAll(answer.Body)
		if answer.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "read-only") {
			t.Errorf("POST %s is answered with status %d: %s", path, answer.StatusCode, body)
		}
	}
	s.get("/settings").says("changes nothing")
}

// What each shared access policy may do, from "Control access to IoT Hub with shared access signatures".
func TestThePolicyDecides(t *testing.T) {
	for policy, may := range map[string]string{
		"iothubowner":       "register operate schedule configure enroll",
		"service":           "operate schedule configure enroll",
		"registryRead":      "enroll",
		"registryReadWrite": "register schedule configure enroll",
	} {
		t.Run(policy, func(t *testing.T) {
			s := newSiteAs(t, policy)
			for path, need := range s.console.Actions() {
				if need == "" {
					continue
				}
				answer := s.ask("POST", path, nil)
				body, _ := io.ReadAll(answer.Body)
				refused := answer.StatusCode == http.StatusForbidden && strings.Contains(string(body), "its credential lacks")
				if allowed := strings.Contains(may, need); allowed == refused {
					t.Errorf("POST %s (%s) is answered with status %d: %s", path, need, answer.StatusCode, body)
				}
			}
			s.get("/settings").says("policy " + policy)
		})
	}
}

func TestCookiesOfSessions(t *testing.T) {
	s := newSite(t)
	for _, secure := range []bool{false, true} {
		server := s.server
		if secure {
			server = httptest.NewTLSServer(s.console)
			defer server.Close()
		}
		client := server.Client()
		client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		answer, err := client.Get(server.URL + "/?t=" + s.console.NewToken())
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if len(answer.Cookies()) != 1 {
			t.Fatalf("%d cookies", len(answer.Cookies()))
		}
		c := answer.Cookies()[0]
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 12*60*60 || c.Secure != secure ||
			strings.HasPrefix(c.Name, "__Host-") != secure || len(c.Value) < 32 {
			t.Errorf("over TLS %v: %v", secure, c)
		}
	}
}

func TestSessionsAndTokensEnd(t *testing.T) {
	now := time.Now()
	s := newSite(t, func(o *console.Options) { o.Now = func() time.Time { return now } })
	token := s.console.NewToken()
	now = now.Add(time.Hour + time.Second)
	s.get("/settings")
	other := *s
	other.browser = s.newBrowser()
	if d := other.try("/?t=" + token); d.status != http.StatusUnauthorized {
		t.Errorf("a token of an hour ago is answered with status %d", d.status)
	}
	now = now.Add(12 * time.Hour)
	if d := s.try("/settings"); d.status != http.StatusUnauthorized {
		t.Errorf("a session of 13 hours ago is answered with status %d", d.status)
	}
	s.get("/?t=" + s.console.NewToken())
	s.get("/settings")
	s.post("/logout")
	if d := s.try("/settings"); d.status != http.StatusUnauthorized {
		t.Errorf("behind the logout the status is %d", d.status)
	}
}

func TestPasswords(t *testing.T) {
	now := time.Now()
	s := newSite(t, func(o *console.Options) {
		o.Password = "correct horse"
		o.Now = func() time.Time { return now }
	})
	s.browser = s.newBrowser()
	for range 10 {
		if d := s.post("/login", "password", "wrong"); d.status != http.StatusUnauthorized {
			t.Fatalf("a wrong password is answered with status %d", d.status)
		}
	}
	s.post("/login", "password", "correct horse").says("Too many wrong passwords")
	now = now.Add(time.Minute + time.Second)
	s.post("/login", "password", "correct horse").says("Overview")
	s.get("/settings")

	s = newSite(t) // without one
	s.browser = s.newBrowser()
	if d := s.post("/login", "password", ""); d.status != http.StatusUnauthorized {
		t.Errorf("no password is answered with status %d", d.status)
	}
}

func TestATrustedHeaderCountsFromTheProxyOnly(t *testing.T) {
	for _, tt := range []struct {
		proxy string
		want  int
	}{{"127.0.0.1/32", 200}, {"192.0.2.0/24", 401}} {
		s := newSite(t, func(o *console.Options) {
			o.TrustedHeader, o.TrustedProxies = "X-Forwarded-User", []netip.Prefix{netip.MustParsePrefix(tt.proxy)}
		})
		s.browser = s.newBrowser()
		if got := s.ask("GET", "/settings", nil).StatusCode; got != 401 {
			t.Errorf("without the header the status is %d", got)
		}
		answer := s.ask("GET", "/settings", func(r *http.Request) { r.Header.Set("X-Forwarded-User", "<b>ann</b>") })
		body, _ := io.ReadAll(answer.Body)
		if answer.StatusCode != tt.want || (tt.want == 200) != strings.Contains(string(body), "&lt;b&gt;ann") {
			t.Errorf("with the header of %s the status is %d:\n%s", tt.proxy, answer.StatusCode, body)
		}
	}
	if _, err := console.New(console.Options{Client: newSite(t).service, TrustedHeader: "X-User"}); err == nil {
		t.Error("a header of anybody is trusted")
	}
}

// TestNoSecretIsToldUnasked looks into every page, cookie and log line for the keys of the hub and of its devices.
func TestNoSecretIsToldUnasked(t *testing.T) {
	var log bytes.Buffer
	s := newSite(t, func(o *console.Options) {
		o.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	var secrets []string
	for _, p := range s.hub.Policies() {
		secrets = append(secrets, string(p.PrimaryKey), string(p.SecondaryKey))
	}
	secrets = append(secrets, string(s.hub.Device("d1").SharedAccessKey), string(s.hub.Module("d1", "m1").SharedAccessKey))
	for path, d := range s.crawl(nil) {
		for _, secret := range secrets {
			if strings.Contains(d.body, secret) || strings.Contains(d.body, url.QueryEscape(secret)) {
				t.Errorf("%s holds a key", path)
			}
		}
	}
	s.post("/settings/theme", "theme", "dark")
	token := s.console.NewToken()
	s.get("/?t=" + token)
	link := s.post("/settings/link").body
	secrets = append(secrets, token)
	if match := regexp.MustCompile(`\?t=([0-9a-f]{32})`).FindStringSubmatch(link); match == nil {
		t.Error("there is no link")
	} else {
		secrets = append(secrets, match[1])
	}
	for _, cookie := range s.browser.Jar.Cookies(mustParse(s.server.URL)) {
		secrets = append(secrets, cookie.Value)
		if len(cookie.Value) > 32 {
			t.Errorf("the cookie %s is longer than a session", cookie.Name)
		}
	}
	if !strings.Contains(log.String(), "/settings/link") {
		t.Errorf("the log does not tell of changes:\n%s", log.String())
	}
	for _, secret := range secrets {
		if len(secret) > 8 && strings.Contains(log.String(), secret) {
			t.Errorf("the log holds a secret:\n%s", log.String())
		}
	}
}

func mustParse(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return u
}
