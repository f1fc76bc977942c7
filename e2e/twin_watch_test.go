package e2e

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
)

// A front is what stands between a client and a hub.
type front struct {
	*httptest.Server
	flags []string // by which a service command finds the hub through it
}

// newFront returns a front of h that treats requests for events as events says,
// or passes them on if that is nil.
func newFront(t *testing.T, h *hubtest.Hub, events http.HandlerFunc) front {
	t.Helper()
	policy := h.Policy("iothubowner")
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: policy.HostName})
	behind.Transport = &http.Transport{TLSClientConfig: h.ClientTLS()}
	behind.FlushInterval = -1
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if events != nil && strings.HasPrefix(r.URL.Path, "/iotdm/") {
			events(w, r)
			return
		}
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	ca := filepath.Join(t.TempDir(), "front.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	policy.HostName = server.Listener.Addr().String()
	return front{server, []string{"--connection-string", policy.Format(), "--ca-file", ca, "--data", t.TempDir()}}
}

func (f front) watch(t *testing.T, flags ...string) *program {
	t.Helper()
	return start(t, exec.Command("iotdm", append(append([]string{"service", "twin", "watch", "--device", "d1"}, flags...), f.flags...)...))
}

func setTag(t *testing.T, h *hubtest.Hub, tags string) {
	t.Helper()
	if _, err := h.PatchTwin(hub.ID{Device: "d1"}, hub.TwinChange{Tags: json.RawMessage(tags), By: "policy p"}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
}

func TestTwinsAreReadAgainAndAgainWhereAHubDoesNotStreamThem(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	f := newFront(t, h, http.NotFound)
	p := f.watch(t, "--interval", "50ms")
	p.await(t, "does not stream changes: reading every 50ms, which does not tell who made them")
	p.await(t, "Watching the twin of d1 (version 2)")
	setTag(t, h, `{"site":"north"}`)
	if line := p.await(t, "tags.site"); !strings.HasSuffix(line, `tags.site: (none) -> "north"`) {
		t.Errorf("the change is printed as %q", line)
	}
	if err := h.DeleteIdentity(hub.ID{Device: "d1"}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	p.await(t, `device "d1" was deleted`)
}

func TestAWatchGoesOnWhenItsConnectionBreaks(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	f := newFront(t, h, nil)
	p := f.watch(t)
	p.await(t, "Watching the twin of d1 (version 2)")
	setTag(t, h, `{"a":1}`)
	p.await(t, "tags.a: (none) -> 1  (policy p)")
	f.CloseClientConnections()
	p.await(t, "The stream of changes has ended; connecting again")
	setTag(t, h, `{"b":2}`) // perhaps while nobody watches
	p.await(t, "tags.b: (none) -> 2")
}
