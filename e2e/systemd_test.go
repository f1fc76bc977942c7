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

// TestSystemdDevice runs the agent as the unit and the configuration in packaging
// have it, under a service manager that is this test.
func TestSystemdDevice(t *testing.T) {
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
	unit, err := os.ReadFile(filepath.Join("..", "packaging", "systemd", "iotdm-device.service"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join("..", "packaging", "etc", "device.yaml"))
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
	_, after, _ := strings.Cut(string(unit), "ExecStart=iotdm ")
	line, _, _ := strings.Cut(after, "\n")
	args := strings.Fields(line)
	if args[len(args)-1] != "/etc/iotdm/device.yaml" {
		t.Fatalf("the unit runs iotdm %q", args)
	}
	args[len(args)-1] = write("etc/iotdm/device.yaml", text)

	manager := listenAsManager(t)
	cmd := exec.Command("iotdm", args...)
	cmd.Env = append(os.Environ(), manager.environment()...)
	cmd.Env = append(cmd.Env, "IOTDM_CA_FILE="+h.CAFile())
	p := start(t, cmd)
	manager.hear(t, "READY=1")
	manager.hear(t, "STATUS=connected to localhost:"+port+" as d1")
	manager.hear(t, "WATCHDOG=1")
	if _, err := os.Stat(filepath.Join(root, "run/iotdm/device.json")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "var/lib/iotdm/localhost/d1/reboot.json")); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		skip(t, "processes cannot be interrupted here")
	}
	manager.hear(t, "STOPPING=1")
	p.await(t, "Disconnecting")
}

// TestSystemdHub runs a hub under a service manager that is this test.
func TestSystemdHub(t *testing.T) {
	manager := listenAsManager(t)
	cmd := exec.Command("iotdm", "hub", "run", "--ephemeral", "--data", t.TempDir(),
		"--mqtts-addr", "127.0.0.1:0", "--amqps-addr", "127.0.0.1:0", "--https-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), manager.environment()...)
	p := start(t, cmd)
	manager.hear(t, "STATUS=starting")
	manager.hear(t, "READY=1")
	manager.hear(t, "STATUS=0 connected devices")
	manager.hear(t, "WATCHDOG=1")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		skip(t, "processes cannot be interrupted here")
	}
	manager.hear(t, "STOPPING=1")
	p.await(t, "Stopping")
}

// A serviceManager hears what systemd would.
type serviceManager struct {
	conn   *net.UnixConn
	socket string
}

func listenAsManager(t *testing.T) serviceManager {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		skip(t, "there are no datagram sockets of this kind")
	}
	t.Cleanup(func() { conn.Close() })
	return serviceManager{conn, socket}
}

// environment is what it gives to a service.
func (m serviceManager) environment() []string {
	return []string{"NOTIFY_SOCKET=" + m.socket, "WATCHDOG_USEC=30000"}
}

// hear waits for a message that begins with want.
func (m serviceManager) hear(t *testing.T, want string) {
	t.Helper()
	m.conn.SetReadDeadline(time.Now().Add(time.Minute))
	for b := make([]byte, 1<<10); ; {
		n, err := m.conn.Read(b)
		if err != nil {
			t.Fatalf("the service manager does not hear %s: %v", want, err)
		}
		if strings.HasPrefix(string(b[:n]), want) {
			return
		}
	}
}

// TestSystemdUnits lets systemd check the units, and say how much they leave
// open: from 0, nothing, to 10.
func TestSystemdUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		skip(t, "systemd-analyze is not installed: it comes with systemd")
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for unit, most := range map[string]string{"iotdm-device.service": "2.2", "iotdm-hub.service": "1.7"} {
		t.Run(unit, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("..", "packaging", "systemd", unit))
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), unit)
			if err := os.WriteFile(file, []byte(strings.Replace(string(text), "ExecStart=iotdm", "ExecStart="+program, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput(); err != nil || strings.Contains(string(out), unit) {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
			out, err := exec.Command(analyze, "security", "--offline=yes", "--no-pager", file).CombinedOutput()
			if err != nil {
				t.Fatalf("systemd-analyze security: %v\n%s", err, out)
			}
			_, level, _ := strings.Cut(string(out), "Overall exposure level for "+unit+": ")
			if level, _, _ = strings.Cut(level, " "); level == "" || level > most {
				t.Errorf("systemd-analyze security says %q, want at most %s\n%s", level, most, out)
			}
		})
	}
}
