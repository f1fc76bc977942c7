package node_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
)

// from dials from an address of this machine. The hub may turn it away at once.
func from(t *testing.T, ip, addr string) (net.Conn, error) {
	t.Helper()
	nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext(t.Context(), "tcp", addr)
	if err == nil {
		t.Cleanup(func() { nc.Close() })
	}
	return nc, err
}

// An address that opens thousands of connections and says nothing shuts out
// itself: a device and a service at another are answered as ever.
func TestAFloodOfSilentConnections(t *testing.T) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	h := hubtest.New(t)
	device := h.Device("dev1")
	doors := []string{h.MQTTSAddr, h.HTTPSAddr, h.AMQPSAddr}
	// Both ends are in this process.
	flood := min(2500, int(files.Cur)/(3*len(doors)))
	for range flood {
		for _, addr := range doors {
			if _, err := from(t, "127.0.0.9", addr); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
		}
	}
	secure := func(addr string) *tls.Conn {
		t.Helper()
		nc, err := from(t, "127.0.0.8", addr)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Client(nc, &tls.Config{RootCAs: h.RootCAs(), ServerName: "localhost"})
	}
	wiretest.NewClient(t, secure(h.MQTTSAddr)).Connect(device)
	over := wiretest.OpenAMQP(t, h, secure(h.AMQPSAddr))
	over.Claim(device.Audience(), wiretest.Sign(t, device.Audience(), "", device.SharedAccessKey, time.Now().Add(time.Hour)))
	over.Receiver("/devices/dev1/messages/devicebound")

	client := http.Client{Transport: &http.Transport{
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return secure(h.HTTPSAddr), nil },
	}}
	t.Cleanup(client.CloseIdleConnections)
	owner := h.Policy("iothubowner")
	do := func(method, path, body string) (status int, answer string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://localhost"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", wiretest.Sign(t, "localhost", owner.SharedAccessKeyName, owner.SharedAccessKey, time.Now().Add(time.Hour)))
		resp, err := client.Do(req)
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
	if status, answer := do("PUT", "/devices/dev2?api-version=2021-04-12", `{"deviceId":"dev2"}`); status != 200 {
		t.Errorf("a write: %d %s", status, answer)
	}
	_, metrics := do("GET", "/metrics", "")
	waiting, crowded := 0, 0
	for line := range strings.SplitSeq(metrics, "\n") {
		name, value, _ := strings.Cut(line, " ")
		n, _ := strconv.Atoi(value)
		switch {
		case strings.HasPrefix(name, "iotdm_hub_unauthenticated_connections{"):
			waiting += n
		case strings.HasPrefix(name, "iotdm_hub_unauthenticated_connections_ended_total{") && strings.Contains(name, "crowded"):
			crowded += n
		}
	}
	if all := flood * len(doors); waiting > 2048 || waiting+crowded < all {
		t.Errorf("of %d connections %d wait and %d were closed, want at most 2048 to wait", all, waiting, crowded)
	}
}
