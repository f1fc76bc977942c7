package doctor_test

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/iotdm/iotdm/cli/doctor"
	"github.com/iotdm/iotdm/hub/hubtest"
)

// blackHole returns an address that answers no connection: a socket that
// listens and whose queue is full, since nobody accepts.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: netip.MustParseAddr("127.0.0.1").As4()}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*syscall.SockaddrInet4).Port))
	for range 16 {
		conn, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { conn.Close() })
	}
	if os.Getenv("IOTDM_REQUIRE_ALL") != "" {
		t.Fatal("the system queues connections without end")
	}
	t.Skip("the system queues connections without end")
	return ""
}

func TestPortThatDoesNotAnswer(t *testing.T) {
	h := hubtest.New(t)
	opt := asDevice(h, "d1")
	opt.MQTTSAddr = blackHole(t)
	opt.Timeout = 200 * time.Millisecond
	checks := examine(t, opt)
	expect(t, checks, doctor.CheckMQTTPort, doctor.Failed, "does not answer within 200ms", "firewall let port .* out; until then use MQTT over WebSocket")
	if !checks[doctor.CheckMQTTPort].TimedOut {
		t.Error("it is not a time-out")
	}
}
