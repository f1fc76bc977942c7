package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/shirou/gopsutil/v4/host"

	"github.com/iotdm/iotdm/hub"
)

// A machineReboot reboots the machine the agent runs on. That it was asked to
// is on disk before the method is answered, and stays there until the machine
// has booted and the time of it is reported.
type machineReboot struct {
	file  string
	asked chan struct{} // of capacity 1
}

// A rebootIntent is the content of the file.
type rebootIntent struct {
	RequestedAt time.Time `json:"requestedAt"`
}

// stateFolder is where files that belong to devices lie: the given folder, or
// one beside the local hub's.
func stateFolder(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	dir, err := hub.DefaultFolder()
	if err != nil {
		return "", failf(statusFailed, "%v; name a folder with --state", err)
	}
	return filepath.Join(filepath.Dir(dir), "device"), nil
}

// intentFile is the file for what t acts as; ids may hold what paths may not.
func intentFile(folder string, t target) string {
	host, _ := splitPort(t.connection.HostName)
	return filepath.Join(folder, url.PathEscape(host), url.PathEscape(t.identity().String())+".reboot.json")
}

// requests delivers once for each reboot that was asked for; never if m is nil.
func (m *machineReboot) requests() <-chan struct{} {
	if m == nil {
		return nil
	}
	return m.asked
}

// remember stores that a reboot was asked for, and asks for it.
func (m *machineReboot) remember(now time.Time) error {
	doc, err := json.Marshal(rebootIntent{now.UTC()})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.file), 0o700); err != nil {
		return plainPathError(err)
	}
	if err := writeDurably(m.file, doc); err != nil {
		return err
	}
	select {
	case m.asked <- struct{}{}:
	default: // it is about to happen anyway
	}
	return nil
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
func (a *agent) reportRealReboot(ctx context.Context) error {
	if a.machine == nil {
		return nil
	}
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
	a.say("Device rebooted")
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
