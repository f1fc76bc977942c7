package node_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// getHealth asks the health checks on l.
func getHealth(t *testing.T, l net.Listener, method, path string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(method, "http://"+l.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

type readiness struct {
	Status string
	Checks map[string]string
}

func wantReadiness(t *testing.T, l net.Listener, status int, want readiness) {
	t.Helper()
	response, body := getHealth(t, l, "GET", "/ready")
	var got readiness
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("GET /ready: %s: %v", body, err)
	}
	if diff := cmp.Diff(want, got); diff != "" || response.StatusCode != status {
		t.Errorf("GET /ready: %s, want %d (-want +got):\n%s", response.Status, status, diff)
	}
}

func TestHealthChecksOfAHubThatServes(t *testing.T) {
	l := listenLoopback(t)
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Health: l}))
	wantReadiness(t, l, 200, readiness{"ready", map[string]string{"store": "ok", "listeners": "ok"}})
	if response, body := getHealth(t, l, "GET", "/health"); response.StatusCode != 200 || body != "{\"status\":\"ok\"}\n" {
		t.Errorf("GET /health: %s %q", response.Status, body)
	}
	response, body := getHealth(t, l, "GET", "/ca.pem")
	if block, _ := pem.Decode([]byte(body)); block == nil || body != string(h.CACertificate()) || response.Header.Get("Content-Type") != "application/pem-certificate-chain" {
		t.Errorf("GET /ca.pem: %s, %q", response.Status, body)
	}
	if _, body := getHealth(t, l, "GET", "/metrics"); !strings.Contains(body, "\niotdm_hub_connected_devices 0\n") {
		t.Errorf("GET /metrics lacks the metrics of the hub:\n%s", body)
	}
	// Nothing else is there, whoever asks for it and how.
	for _, tt := range []struct {
		method, path string
		status       int
	}{{"GET", "/", 404}, {"GET", "/devices?api-version=2021-04-12", 404}, {"GET", "/iotdm/control/clock", 404}, {"POST", "/ready", 405}, {"DELETE", "/ca.pem", 405}, {"HEAD", "/ready", 200}} {
		if response, _ := getHealth(t, l, tt.method, tt.path); response.StatusCode != tt.status {
			t.Errorf("%s %s: %s, want %d", tt.method, tt.path, response.Status, tt.status)
		}
	}
}

// onLog is a log that calls a function for each line, while the hub waits.
type onLog func(slog.Record)

func (onLog) Enabled(context.Context, slog.Level) bool             { return true }
func (h onLog) WithAttrs([]slog.Attr) slog.Handler                 { return h }
func (h onLog) WithGroup(string) slog.Handler                      { return h }
func (h onLog) Handle(_ context.Context, record slog.Record) error { h(record); return nil }

func TestHealthChecksAreAnsweredFromTheBeginningToTheEnd(t *testing.T) {
	l := listenLoopback(t)
	var during *http.Response
	log := slog.New(onLog(func(r slog.Record) {
		if during != nil {
			return
		}
		during, _ = getHealth(t, l, "GET", "/health")
		wantReadiness(t, l, 503, readiness{"starting", map[string]string{"store": "not open", "listeners": "not open"}})
		for _, path := range []string{"/metrics", "/ca.pem"} {
			if response, _ := getHealth(t, l, "GET", path); response.StatusCode != 503 {
				t.Errorf("GET %s while the hub starts: %s", path, response.Status)
			}
		}
	}))
	n, err := node.New(node.Options{Storage: node.Folder(t.TempDir()), Health: l, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	if during == nil || during.StatusCode != 200 {
		t.Errorf("GET /health while the hub starts: %v", during)
	}
	wantReadiness(t, l, 503, readiness{"starting", map[string]string{"store": "ok", "listeners": "not open"}})
	failed := n.Serve(node.Listeners{HTTPS: listenLoopback(t)})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if response, _ := getHealth(t, l, "GET", "/ready"); response.StatusCode == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the hub does not become ready")
		}
	}
	if err := n.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		t.Error(err)
	default:
	}
	if nc, err := net.Dial("tcp", l.Addr().String()); err == nil {
		nc.Close()
		t.Error("health checks are still listened for when the hub has ended")
	}
}

func TestAHubThatCannotOpenStopsListeningForHealthChecks(t *testing.T) {
	l := listenLoopback(t)
	if _, err := node.New(node.Options{Health: l, HostNames: []string{"not a name"}}); err == nil {
		t.Fatal("a hub with an impossible name opens")
	}
	if nc, err := net.Dial("tcp", l.Addr().String()); err == nil {
		nc.Close()
		t.Error("health checks are still listened for")
	}
}

// While a hub stops it is alive and not ready, and does not ask the parts that
// close for their metrics.
func TestHealthChecksWhileTheHubStops(t *testing.T) {
	l := listenLoopback(t)
	stopping := false
	log := slog.New(onLog(func(r slog.Record) {
		if r.Message != "disconnected" || stopping {
			return
		}
		stopping = true
		if response, _ := getHealth(t, l, "GET", "/health"); response.StatusCode != 200 {
			t.Errorf("GET /health: %s", response.Status)
		}
		wantReadiness(t, l, 503, readiness{"stopping", map[string]string{"store": "not open", "listeners": "closed"}})
		if response, _ := getHealth(t, l, "GET", "/metrics"); response.StatusCode != 503 {
			t.Errorf("GET /metrics: %s", response.Status)
		}
	}))
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Health: l, Logger: log}))
	c := wiretest.DialTLS(t, h)
	c.Connect(h.Device("d1"))
	if err := h.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !stopping {
		t.Error("the log did not tell of the device's end")
	}
}
