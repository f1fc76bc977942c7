package console_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/hubrest"
)

// newForeignSite starts a site whose hub does not tell that it is one of iotdm, and has nothing that Azure IoT Hub lacks:
// a proxy sees to that.
func newForeignSite(t *testing.T) *site {
	t.Helper()
	withoutName := func(r *http.Response) error {
		r.Header.Del("Server")
		return nil
	}
	return newSiteBehind(t, withoutName, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/iotdm/") {
			return false
		}
		http.NotFound(w, r)
		return true
	})
}

// newSiteBehind starts a site whose hub is behind a proxy, which answers some requests itself and changes the answers of
// the others.
func newSiteBehind(t *testing.T, change func(*http.Response) error, answer func(http.ResponseWriter, *http.Request) bool) *site {
	t.Helper()
	return startSite(t, "iothubowner", func(s *site, o *console.Options) {
		proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: s.hub.HTTPSAddr})
		proxy.Transport = &http.Transport{TLSClientConfig: s.hub.ClientTLS()}
		proxy.ModifyResponse = change
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !answer(w, r) {
				proxy.ServeHTTP(w, r)
			}
		}))
		t.Cleanup(server.Close)
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		client, err := hubrest.New(hubrest.Options{
			ConnectionString: s.hub.Policy("iothubowner"), Addr: server.Listener.Addr().String(),
			TLS: &tls.Config{RootCAs: roots, ServerName: "example.com"},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		o.Client = client
	})
}

func TestAHubThatIsNotOurs(t *testing.T) {
	s := newForeignSite(t)
	s.create("d1")
	s.patch("d1", `{"site":"A"}`, "")
	s.send("d1", "hello", nil)
	for path, words := range map[string]string{
		"/device/d1":      "How it is connected, and why it went away or was refused: only a hub of iotdm tells",
		"/device/d1/twin": "Who changed a twin: only a hub of iotdm tells",
		"/events":         "Twin changes, lifecycle and connections without a route for them: only a hub of iotdm tells",
	} {
		s.get(path).says(words)
	}
	for _, tab := range deviceTabs {
		s.get("/device/d1" + tab)
	}
	s.get("/device/d1/mqtt").saysNot("iotdm hub ca-cert")
	d := s.get("/device/d1/events?source=Telemetry")
	d.saysNot("hello") // nobody has asked for it
	past := ""
	for _, a := range d.all("a") {
		if textOf(a) == "Ask the hub for the last ones" {
			past, _ = attribute(a, "href")
		}
	}
	if past == "" {
		t.Fatal("the page does not offer to ask the hub")
	}
	s.get(past).says("hello")
}

func TestATwinIsReadAgainAndAgainWhereNothingTells(t *testing.T) {
	s := newForeignSite(t)
	s.create("d1")
	f := s.follow("/device/d1/twin/live")
	s.patch("d1", `{"site":"A"}`, "")
	change := f.next("")
	if !strings.Contains(change, `"path":"tags.site"`) || strings.Contains(change, `"by"`) {
		t.Errorf("the change is %s", change)
	}
}

func TestEventsOfAHubThatIsNotOursComeLive(t *testing.T) {
	s := newForeignSite(t)
	s.create("d1")
	f := s.follow("/device/d1/events/live")
	s.send("d1", "hello", nil)
	if event := f.next(""); !strings.Contains(event, "hello") {
		t.Errorf("the event is %s", event)
	}
	if saved := s.get("/device/d1/events/save").body; !strings.Contains(saved, "hello") {
		t.Errorf("saved %q", saved)
	}
}
