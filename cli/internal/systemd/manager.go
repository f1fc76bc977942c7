// Package systemd tells the service manager that has started this process how
// it is, as sd_notify(3) describes. Without one it does nothing.
package systemd

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// A Manager is the service manager: systemd, with Type=notify. The zero Manager
// is none.
type Manager struct {
	watchdog time.Duration // how often it wants a sign of life; zero: never
}

// FindManager looks for what the service manager has put into the environment,
// and tells it that this process is starting.
func FindManager() (m Manager, err error) {
	if _, err := daemon.SdNotify(false, "STATUS=starting"); err != nil {
		return m, fail.Errorf(fail.Failed, "NOTIFY_SOCKET=%s: %v", os.Getenv("NOTIFY_SOCKET"), err)
	}
	if m.watchdog, err = daemon.SdWatchdogEnabled(false); err != nil {
		return m, fail.Errorf(fail.Failed, "the service manager's watchdog: %v", err)
	}
	return m, nil
}

// Ready says that the process serves.
func (m Manager) Ready() { tell(daemon.SdNotifyReady) }

// Stopping says that the process begins to end.
func (m Manager) Stopping() { tell(daemon.SdNotifyStopping) }

// Status says in one line what the process is doing.
func (m Manager) Status(text string) {
	tell("STATUS=" + strings.Map(func(r rune) rune {
		if output.IsLineBreak(r) {
			return ' '
		}
		return r
	}, text))
}

// tell sends assignments. That nobody listens is no reason to end.
func tell(assignments string) { daemon.SdNotify(false, assignments) }

// Watch gives a sign of life in time, as long as alive says nothing else,
// until ctx ends. If alive does not return there is no sign either.
func (m Manager) Watch(ctx context.Context, alive func() error, note func(format string, args ...any)) {
	if m.watchdog <= 0 {
		return
	}
	tick := time.NewTicker(m.watchdog / 3)
	defer tick.Stop()
	for {
		if err := alive(); err != nil {
			note("iotdm: %v; the service manager's watchdog will start this program again", err)
		} else {
			tell(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
