package systemd

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

// listen hears what a service manager hears, as systemd does.
func listen(t *testing.T) *net.UnixConn {
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

// find returns the manager that listens on conn.
func find(t *testing.T, conn *net.UnixConn) Manager {
	t.Helper()
	m, err := FindManager()
	if err != nil {
		t.Fatal(err)
	}
	if got := hear(t, conn); got != "STATUS=starting" {
		t.Errorf("the service manager hears %q", got)
	}
	return m
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

func TestManagerHears(t *testing.T) {
	conn := listen(t)
	m := find(t, conn)
	m.Ready()
	m.Status("not connected:\nREADY=1")
	m.Stopping()
	got := []string{hear(t, conn), hear(t, conn), hear(t, conn)}
	if diff := cmp.Diff([]string{"READY=1", "STATUS=not connected: READY=1", "STOPPING=1"}, got); diff != "" {
		t.Errorf("the service manager hears (-want +got):\n%s", diff)
	}
}

func TestWatchdogHearsOnlyOfWhatIsAlive(t *testing.T) {
	conn := listen(t)
	m := find(t, conn)
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
		m.Watch(ctx, alive, func(string, ...any) { noted++ })
	}()
	for range 3 {
		if got := hear(t, conn); got != "WATCHDOG=1" {
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
	conn := listen(t)
	t.Setenv("WATCHDOG_PID", "1")
	if m := find(t, conn); m.watchdog != 0 {
		t.Errorf("watchdog %v, want none", m.watchdog)
	}
}

func TestNoManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	m, err := FindManager()
	if err != nil {
		t.Fatal(err)
	}
	m.Ready()
	m.Watch(t.Context(), nil, nil)
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if _, err := FindManager(); err == nil {
		t.Error("a socket that does not exist is no error")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "soon")
	if _, err := FindManager(); err == nil {
		t.Error("a time that is none is no error")
	}
}
