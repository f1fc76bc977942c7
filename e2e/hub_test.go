package e2e

import (
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// A hubProcess is "iotdm hub run" with a data folder of its own.
type hubProcess struct {
	*program
	address string
	https   string // the port for REST
	plain   bool   // whether it speaks AMQP without TLS too
	data    string

	certificates string // a folder with those of devices, if they are wanted
}

// startHub runs "iotdm hub run" on the ports that the official SDKs have built
// in, at a loopback address that no other test uses, and returns when it is
// ready. Without the right to bind port 443 it takes another port for REST.
func startHub(t *testing.T, address string, flags ...string) *hubProcess {
	t.Helper()
	port := "443"
	if !canBind(net.JoinHostPort(address, port)) {
		port = "0"
	}
	return startHubOn(t, address, port, flags...)
}

// canBind reports whether a hub may listen on an address. It is asked once: a
// program that another test starts at that moment holds what was bound until it
// runs.
func canBind(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func startHubOn(t *testing.T, address, https string, flags ...string) *hubProcess {
	t.Helper()
	return startHubIn(t, &hubProcess{address: address, https: https, data: t.TempDir()}, flags...)
}

// startHubIn runs a hub where another one has been, with its data folder.
func startHubIn(t *testing.T, before *hubProcess, flags ...string) *hubProcess {
	t.Helper()
	h := &hubProcess{address: before.address, https: before.https, data: before.data}
	args := append([]string{"hub", "run", "--data", h.data,
		"--mqtts-addr", net.JoinHostPort(h.address, "8883"), "--https-addr", net.JoinHostPort(h.address, h.https),
		"--amqps-addr", net.JoinHostPort(h.address, "5671")}, flags...)
	h.program = start(t, exec.Command("iotdm", args...))
	t.Cleanup(func() {
		if t.Failed() {
			h.mu.Lock()
			defer h.mu.Unlock()
			t.Logf("the hub printed:\n%s", strings.Join(h.lines, "\n"))
		}
	})
	h.await(t, "ready")
	return h
}

// iotdm runs a command against the hub and returns what it prints.
func (h *hubProcess) iotdm(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("iotdm", args...)
	cmd.Env = append(os.Environ(), "IOTDM_DATA="+h.data)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("iotdm %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// connectionString returns a connection string of the hub, which names the
// address that it listens on.
func (h *hubProcess) connectionString(t *testing.T, args ...string) string {
	t.Helper()
	return h.iotdm(t, append([]string{"hub", "connection-string"}, args...)...)
}

// env returns the variables that "iotdm hub env" sets.
func (h *hubProcess) env(t *testing.T) []string {
	t.Helper()
	var env []string
	for line := range strings.Lines(h.iotdm(t, "hub", "env")) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if ok {
			env = append(env, name+"="+strings.Trim(strings.TrimSuffix(value, ";"), `'"`))
		}
	}
	return env
}

// skip skips the test, or fails it where .ci/run has installed all it needs.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("IOTDM_REQUIRE_ALL") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// freeAddr returns an address that nothing listens on, and that no connection gets as its
// own: those have ports from 32768 on, of which systems choose for port 0, too.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(12000+rand.IntN(20000)))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("there is no free port")
	return ""
}
