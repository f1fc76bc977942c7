package device

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// A supervisor is the service manager that has started this process and wants
// to hear of it, as sd_notify(3) describes: systemd with Type=notify. Without
// one its methods do nothing.
type supervisor struct {
	conn     *net.UnixConn // nil: there is none
	watchdog time.Duration // how often it wants a sign of life; zero: never
}

// findSupervisor looks for what the service manager has put into the
// environment.
func findSupervisor() (supervisor, error) {
	var v supervisor
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return v, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return v, fail.Errorf(fail.Failed, "NOTIFY_SOCKET=%s: %v", socket, err)
	}
	v.conn = conn
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		v.watchdog = time.Duration(usec) * time.Microsecond
	}
	return v, nil
}

// tell sends assignments such as READY=1. That nobody listens is no reason to
// end.
func (v supervisor) tell(assignments ...string) {
	if v.conn != nil {
		v.conn.Write([]byte(strings.Join(assignments, "\n")))
	}
}

// status says in one line what the process is doing.
func (v supervisor) status(text string) {
	v.tell("STATUS=" + strings.Map(func(r rune) rune {
		if output.IsLineBreak(r) {
			return ' '
		}
		return r
	}, text))
}

// watch gives a sign of life in time, as long as alive says nothing else,
// until ctx ends. If alive does not return there is no sign either.
func (v supervisor) watch(ctx context.Context, alive func() error, note func(format string, args ...any)) {
	if v.watchdog <= 0 {
		return
	}
	tick := time.NewTicker(v.watchdog / 3)
	defer tick.Stop()
	for {
		if err := alive(); err != nil {
			note("iotdm: %v; the service manager's watchdog will start the device again", err)
		} else {
			v.tell("WATCHDOG=1")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (v supervisor) close() {
	if v.conn != nil {
		v.conn.Close()
	}
}
