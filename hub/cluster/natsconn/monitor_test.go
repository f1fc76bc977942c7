package natsconn_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
)

func TestAddressesOfMonitoringPorts(t *testing.T) {
	got, err := natsconn.MonitorURLs("http://nats-1:8222/, https://nats-2:8222")
	if !slices.Equal(got, []string{"http://nats-1:8222", "https://nats-2:8222"}) || err != nil {
		t.Errorf("the addresses are %q, %v", got, err)
	}
	for _, text := range []string{"", "nats-1:8222", "nats://nats-1:8222", "http://", "http://nats-1,", "http://nats-1/?a=b", "http://[::1"} {
		_, err := natsconn.MonitorURLs(text)
		says(t, err, "must be like http://nats-1:8222")
	}
	_, err = natsconn.MonitorURLs("http://hub:secret@nats-1:8222")
	says(t, err, "leave that out")
}

// monitors are the addresses of a cluster's monitoring ports.
func monitors(c *natstest.Cluster) (urls []string) {
	for _, s := range c.Servers {
		urls = append(urls, s.MonitorURL())
	}
	return urls
}

func TestServersThatSync(t *testing.T) {
	c := natstest.Start(t, 3)
	opt := natsconn.Options{URL: c.URL()}
	servers, missing, err := natsconn.Monitor(t.Context(), opt, monitors(c))
	if err != nil || len(missing) > 0 || len(servers) != 3 {
		t.Fatalf("three servers: %+v, %v, %v", servers, missing, err)
	}
	for i, s := range servers {
		if want := (natsconn.Server{URL: c.Servers[i].MonitorURL(), Name: c.Servers[i].Name, Version: s.Version, JetStream: true, SyncAlways: true, Servers: 3}); s != want {
			t.Errorf("a server says %+v, want %+v", s, want)
		}
	}
	_, missing, err = natsconn.Monitor(t.Context(), opt, monitors(c)[:2])
	if err != nil || len(missing) != 1 {
		t.Fatalf("two of three: %v, %v", missing, err)
	}
	says(t, missing[0], "names 2 servers", "there are 3")
	c.Servers[2].Kill()
	servers, missing, err = natsconn.Monitor(t.Context(), opt, monitors(c))
	if err != nil || len(missing) != 1 || len(servers) != 2 {
		t.Fatalf("one of three is dead: %v, %v, %v", servers, missing, err)
	}
	says(t, missing[0], c.Servers[2].MonitorURL(), "cannot be asked")
}

func TestServersThatSyncNowAndThen(t *testing.T) {
	c := natstest.StartWith(t, 1, natstest.Settings{LazySync: true})
	servers, _, err := natsconn.Monitor(t.Context(), natsconn.Options{}, monitors(c))
	if !errors.Is(err, natsconn.ErrServer) || len(servers) != 1 || servers[0].SyncAlways {
		t.Errorf("%+v, %v", servers, err)
	}
	says(t, err, c.Servers[0].Name, "sync_interval: always")

	// One without JetStream keeps nothing.
	c = natstest.StartWith(t, 1, natstest.Settings{NoJetStream: true})
	if _, _, err := natsconn.Monitor(t.Context(), natsconn.Options{}, monitors(c)); err != nil {
		t.Errorf("a server without JetStream: %v", err)
	}
}

// TestOtherPorts has answers that are a server's of long ago, and no server's at all.
func TestOtherPorts(t *testing.T) {
	answer := ""
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) }))
	defer s.Close()
	cert, key := certificate(t)
	_, missing, err := natsconn.Monitor(t.Context(), natsconn.Options{CA: cert}, []string{s.URL})
	if err != nil || len(missing) != 1 {
		t.Errorf("a certificate of another CA: %v, %v", missing, err)
	}
	says(t, missing[0], "certificate")
	if _, _, err := natsconn.Monitor(t.Context(), natsconn.Options{CA: key}, []string{s.URL}); err == nil {
		t.Error("a file that is no certificate is taken")
	}
	s.Close()

	s = httptest.NewServer(s.Config.Handler)
	defer s.Close()
	for _, answer = range []string{"", "<html>", "{}", `{"server_name":"x"}`} {
		_, missing, err := natsconn.Monitor(t.Context(), natsconn.Options{}, []string{s.URL})
		if err != nil || len(missing) != 1 {
			t.Fatalf("%q: %v, %v", answer, missing, err)
		}
		says(t, missing[0], "does not answer as nats-server does")
	}
	answer = `{"server_name":"old","version":"2.12.2","jetstream":{"config":{"sync_always":true}}}`
	_, _, err = natsconn.Monitor(t.Context(), natsconn.Options{}, []string{s.URL})
	says(t, err, "old at "+s.URL+" is nats-server 2.12.2", "2.12.3")
}
