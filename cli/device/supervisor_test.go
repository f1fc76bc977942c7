package device

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// serviceManager listens as systemd does.
func serviceManager(t *testing.T) *net.UnixConn {
	if runtime.GOOS == "windows" {
		t.Skip("there are no datagram sockets of this kind")
	}
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "3000")
	t.Setenv("WATCHDOG_PID", "")
	return conn
}

func hear(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 1<<10)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestSupervisorHears(t *testing.T) {
	manager := serviceManager(t)
	v, err := findSupervisor()
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	v.tell("READY=1", "STATUS=here")
	v.status("not connected:\nREADY=1")
	got := []string{hear(t, manager), hear(t, manager)}
	if diff := cmp.Diff([]string{"READY=1\nSTATUS=here", "STATUS=not connected: READY=1"}, got); diff != "" {
		t.Errorf("the service manager hears (-want +got):\n%s", diff)
	}
}

func TestWatchdogHearsOnlyOfWhatIsAlive(t *testing.T) {
	manager := serviceManager(t)
	v, err := findSupervisor()
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	ctx, cancel := context.WithCancel(t.Context())
	asked, noted := 0, 0
	alive := func() error {
		if asked++; asked == 2 {
			return errors.New("it hangs")
		}
		return nil
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		v.watch(ctx, alive, func(string, ...any) { noted++ })
	}()
	for range 3 {
		if got := hear(t, manager); got != "WATCHDOG=1" {
			t.Errorf("the service manager hears %q", got)
		}
	}
	cancel()
	<-ended
	if noted != 1 || asked < 4 {
		t.Errorf("asked %d times for 3 signs of life, noted %d times", asked, noted)
	}
}

func TestWatchdogOfAnotherProcess(t *testing.T) {
	serviceManager(t)
	t.Setenv("WATCHDOG_PID", "1")
	v, err := findSupervisor()
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	if v.watchdog != 0 {
		t.Errorf("watchdog %v, want none", v.watchdog)
	}
}

func TestNoSupervisor(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	v, err := findSupervisor()
	if err != nil {
		t.Fatal(err)
	}
	v.tell("READY=1")
	v.watch(t.Context(), nil, nil)
	v.close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if _, err := findSupervisor(); err == nil {
		t.Error("a socket that does not exist is no error")
	}
}
