package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/shirou/gopsutil/v4/host"

	"github.com/iotdm/iotdm/mqttdevice"
)

// A machineReboot reboots the machine the agent runs on. That it was asked to
// is on disk before the method is answered, and stays there until the machine
// has booted and the time of it is reported.
type machineReboot struct {
	command string
	file    string
	asked   chan struct{} // of capacity 1
}

// plainPathError words a file error without the name of the system call.
func plainPathError(err error) error {
	if e, ok := err.(*os.PathError); ok {
		return fmt.Errorf("%s: %w", e.Path, e.Err)
	}
	return err
}

// A rebootIntent is the content of the file.
type rebootIntent struct {
	RequestedAt time.Time `json:"requestedAt"`
}

func newMachineReboot(opt Options) *machineReboot {
	return &machineReboot{
		command: opt.RebootCommand,
		file:    filepath.Join(opt.Folder, "reboot.json"),
		asked:   make(chan struct{}, 1),
	}
}

// reboot stores that a reboot was asked for, and asks for it once that is answered.
func (m *machineReboot) reboot(a *Agent) mqttdevice.Response {
	if err := m.remember(time.Now()); err != nil {
		a.note("iotdm: %v; not rebooting", err)
		return response(500, "The device could not store that it is to reboot")
	}
	r := response(200, rebootAnswer)
	r.Sent = func(error) {
		select {
		case m.asked <- struct{}{}:
		default: // it is about to happen anyway
		}
	}
	return r
}

// rebootMachine runs the reboot command whenever it is asked for.
func (a *Agent) rebootMachine(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.machine.asked:
		}
		err := runShell(ctx, a.machine.command)
		if ctx.Err() != nil {
			return // the machine is going down: what is remembered is for the next start
		}
		if err != nil {
			a.note("iotdm: the reboot command failed: %v; the device goes on", err)
			if err := a.machine.forget(); err != nil {
				a.note("iotdm: %v", err)
			}
		}
	}
}

// runShell runs the command. It returns when the command has ended, which a
// reboot may or may not leave time for.
func runShell(ctx context.Context, command string) error {
	shell := []string{"sh", "-c"}
	if runtime.GOOS == "windows" {
		shell = []string{"cmd", "/C"}
	}
	c := exec.CommandContext(ctx, shell[0], append(shell[1:], command)...)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	return c.Run()
}

// remember stores that a reboot was asked for.
func (m *machineReboot) remember(now time.Time) error {
	doc, err := json.Marshal(rebootIntent{now.UTC()})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.file), 0o700); err != nil {
		return plainPathError(err)
	}
	return writeDurably(m.file, doc)
}

// pending returns what was asked for and is not over.
func (m *machineReboot) pending() (intent rebootIntent, found bool, err error) {
	doc, err := os.ReadFile(m.file)
	if errors.Is(err, fs.ErrNotExist) {
		return intent, false, nil
	}
	if err != nil {
		return intent, false, plainPathError(err)
	}
	if err := json.Unmarshal(doc, &intent); err != nil {
		return intent, false, fmt.Errorf("%s: %w", m.file, err)
	}
	return intent, true, nil
}

func (m *machineReboot) forget() error {
	if err := os.Remove(m.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return plainPathError(err)
	}
	return nil
}

// reportRealReboot reports the boot time of the machine if it has booted since
// a reboot was asked for.
func (a *Agent) reportRealReboot(ctx context.Context) error {
	intent, found, err := a.machine.pending()
	if err != nil || !found {
		return err
	}
	seconds, err := host.BootTimeWithContext(ctx)
	if err != nil {
		return fmt.Errorf("read the boot time: %w", err)
	}
	booted := time.Unix(int64(seconds), 0)
	if booted.Before(intent.RequestedAt.Truncate(time.Second)) {
		a.note("The reboot asked for at %s has not happened yet", intent.RequestedAt.Format(time.RFC3339))
		return nil
	}
	a.opt.Say("Device rebooted")
	if err := a.reportRebootTime(ctx, booted); err != nil {
		return err
	}
	return a.machine.forget()
}

// writeDurably replaces a file as a whole: after a power cut it has either its
// old content or the new.
func writeDurably(file string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return plainPathError(err)
	}
	defer os.Remove(f.Name()) // gone already if all went well
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return err
	}
	if dir, err := os.Open(filepath.Dir(file)); err == nil {
		dir.Sync() // Windows cannot, and need not
		dir.Close()
	}
	return nil
}
