package hubtest_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

func TestDevicesAndModulesAreCreatedOnce(t *testing.T) {
	h := hubtest.New(t)
	device := h.Device("d1")
	i, err := h.Identity(hub.ID{Device: "d1"})
	if err != nil {
		t.Fatal(err)
	}
	want := sas.ConnectionString{HostName: "localhost", DeviceID: "d1", SharedAccessKey: i.Auth.SymmetricKey.Primary}
	if diff := cmp.Diff(want.Format(), device.Format()); diff != "" {
		t.Errorf("connection string (-want +got):\n%s", diff)
	}
	if again := h.Device("d1"); again.Format() != device.Format() {
		t.Error("the second time it is another device")
	}

	module := h.Module("d2", "m1") // with its device
	i, err = h.Identity(hub.ID{Device: "d2", Module: "m1"})
	if err != nil {
		t.Fatal(err)
	}
	want = sas.ConnectionString{HostName: "localhost", DeviceID: "d2", ModuleID: "m1", SharedAccessKey: i.Auth.SymmetricKey.Primary}
	if diff := cmp.Diff(want.Format(), module.Format()); diff != "" {
		t.Errorf("connection string of a module (-want +got):\n%s", diff)
	}
}

// get asks the REST door for a device with a policy's connection string, as a
// service client does.
func get(t *testing.T, h *hubtest.Hub, policy string) (status int, body string) {
	t.Helper()
	cs := h.Policy(policy)
	token, err := sas.Sign(cs.Audience(), cs.SharedAccessKeyName, cs.SharedAccessKey, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+cs.HostName+"/devices/d1?api-version=2021-04-12", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", token)
	transport := &http.Transport{TLSClientConfig: h.ClientTLS()}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestPoliciesAreForServices(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	if status, body := get(t, h, "registryRead"); status != 200 || !strings.Contains(body, `"deviceId":"d1"`) {
		t.Errorf("registryRead reads a device: %d %s", status, body)
	}
	if status, body := get(t, h, "device"); status != 401 {
		t.Errorf("device reads a device: %d %s", status, body)
	}
}

func TestEventHubConnectionStrings(t *testing.T) {
	port := func(addr string) string {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		return port
	}
	h := hubtest.New(t)
	key := h.Policy("service").SharedAccessKey
	want := sas.EventHubConnectionString{Host: "localhost:" + port(h.AMQPSAddr), SharedAccessKeyName: "service", SharedAccessKey: key, EntityPath: node.EventHubName}
	if diff := cmp.Diff(want.Format(), h.EventHub().Format()); diff != "" || h.AMQPAddr != "" {
		t.Errorf("it listens without TLS on %q; connection string (-want +got):\n%s", h.AMQPAddr, diff)
	}

	h = hubtest.New(t, hubtest.WithAMQPAddrs("", "127.0.0.1:0"))
	want.Host, want.SharedAccessKey, want.UseDevelopmentEmulator = "localhost:"+port(h.AMQPAddr), h.Policy("service").SharedAccessKey, true
	if diff := cmp.Diff(want.Format(), h.EventHub().Format()); diff != "" {
		t.Errorf("connection string without TLS (-want +got):\n%s", diff)
	}
}

func TestTheEnvironmentNamesTheCA(t *testing.T) {
	h := hubtest.New(t)
	pem, err := os.ReadFile(h.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("%s is not a certificate", pem)
	}
	for _, addr := range []string{h.MQTTSAddr, h.HTTPSAddr, h.AMQPSAddr} {
		nc, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, ServerName: h.HostName})
		if err != nil {
			t.Errorf("with the CA of the file: %v", err)
			continue
		}
		nc.Close()
	}
	want := []string{"SSL_CERT_FILE=" + h.CAFile(), "REQUESTS_CA_BUNDLE=" + h.CAFile(), "NODE_EXTRA_CA_CERTS=" + h.CAFile()}
	if diff := cmp.Diff(want, h.Env()); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

// A hub gives its addresses back, and keeps its state where it is told, with
// the end of the test.
func TestHubsFollowEachOther(t *testing.T) {
	dir := t.TempDir()
	var addrs [4]string
	var device string
	addrsOf := func(h *hubtest.Hub) [4]string { return [4]string{h.MQTTSAddr, h.HTTPSAddr, h.AMQPSAddr, h.AMQPAddr} }
	t.Run("the first", func(t *testing.T) {
		h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}), hubtest.WithAMQPAddrs("", "127.0.0.1:0"))
		addrs, device = addrsOf(h), h.Device("d1").Format()
	})
	t.Run("and the second", func(t *testing.T) {
		h := hubtest.New(t, hubtest.WithAddrs(addrs[0], addrs[1]), hubtest.WithAMQPAddrs(addrs[2], addrs[3]), hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}))
		if diff := cmp.Diff(addrs, addrsOf(h)); diff != "" {
			t.Errorf("addresses (-want +got):\n%s", diff)
		}
		if again := h.Device("d1").Format(); again != device {
			t.Error("it does not know the device of the first")
		}
		if status, body := get(t, h, "iothubowner"); status != 200 {
			t.Errorf("its REST door answers %d %s", status, body)
		}
	})
}
