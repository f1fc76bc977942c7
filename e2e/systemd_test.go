package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/hubtest"
)

// TestSystemd runs the agent as the unit and the configuration in docs/systemd
// have it, under a service manager that is this test.
func TestSystemd(t *testing.T) {
	h := hubtest.New(t)
	_, port, _ := net.SplitHostPort(h.MQTTSAddr)
	connection := h.Device("d1")
	connection.HostName = net.JoinHostPort(connection.HostName, port)
	root := t.TempDir()
	write := func(name, content string) string {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	unit, err := os.ReadFile(filepath.Join("..", "docs", "systemd", "iotdm-device.service"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join("..", "docs", "systemd", "device.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"etc/iotdm", "var/lib/iotdm", "run/iotdm"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/iotdm/connection-string", connection.Format()+"\n")
	text := strings.NewReplacer("@/etc/", "@"+root+"/etc/", " /var/", " "+root+"/var/", " /run/", " "+root+"/run/",
		"systemctl reboot", "exit 7", "# on-method", "on-method", "#   status: /usr/lib/app/status", "  status: echo 1").Replace(string(config))
	_, after, _ := strings.Cut(string(unit), "ExecStart=/usr/local/bin/iotdm ")
	line, _, _ := strings.Cut(after, "\n")
	args := strings.Fields(line)
	if args[len(args)-1] != "/etc/iotdm/device.yaml" {
		t.Fatalf("the unit runs iotdm %q", args)
	}
	args[len(args)-1] = write("etc/iotdm/device.yaml", text)

	socket := filepath.Join(root, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		skip(t, "there are no datagram sockets of this kind")
	}
	defer manager.Close()
	cmd := exec.Command("iotdm", args...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=30000", "IOTDM_CA_FILE="+h.CAFile())
	p := start(t, cmd)
	hear := func(want string) {
		t.Helper()
		manager.SetReadDeadline(time.Now().Add(time.Minute))
		for b := make([]byte, 1<<10); ; {
			n, err := manager.Read(b)
			if err != nil {
				t.Fatalf("the service manager does not hear %s: %v", want, err)
			}
			if strings.HasPrefix(string(b[:n]), want) {
				return
			}
		}
	}
	hear("READY=1")
	hear("STATUS=connected to localhost:" + port + " as d1")
	hear("WATCHDOG=1")
	if _, err := os.Stat(filepath.Join(root, "run/iotdm/device.json")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "var/lib/iotdm/localhost/d1/reboot.json")); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		skip(t, "processes cannot be interrupted here")
	}
	hear("STOPPING=1")
	p.await(t, "Disconnecting")
}

// TestSystemdUnit lets systemd check the unit.
func TestSystemdUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		skip(t, "systemd-analyze is not installed: it comes with systemd")
	}
	unit, err := os.ReadFile(filepath.Join("..", "docs", "systemd", "iotdm-device.service"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "iotdm-device.service")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(unit), "ExecStart=/usr/local/bin/iotdm", "ExecStart="+program, 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", file).CombinedOutput(); err != nil || strings.Contains(string(out), filepath.Base(file)) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
