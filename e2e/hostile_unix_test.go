//go:build unix

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/clipperhouse/displaywidth"
	"github.com/creack/pty"

	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// hostile is what a device writes that wants to rename the window, clear the screen,
// turn the direction of text, break lines, and fill a screen.
var hostile = "pwned\x1b]0;title\a\x1b[2J\u009b31m\u202etxt.exe\u200b\r\n\t" + strings.Repeat("wide 寬 ", 60)

// TestADeviceCannotReachTheTerminal runs commands that print what devices write, on
// a terminal and into a pipe. A dumb terminal gets no control sequence at all.
func TestADeviceCannotReachTheTerminal(t *testing.T) {
	t.Parallel()
	h := &hubProcess{data: t.TempDir()}
	h.program = start(t, exec.Command("iotdm", "hub", "run", "--data", h.data, "--ephemeral", "--mqtts-addr", "127.0.0.1:0", "--https-addr", "127.0.0.1:0", "--amqps-addr", "127.0.0.1:0"))
	h.await(t, "ready")
	info, err := node.ReadInfo(h.data)
	check(t, err)
	ca, err := os.ReadFile(info.CAFile)
	check(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	connection := func(args ...string) sas.ConnectionString {
		c, err := sas.ParseConnectionString(h.connectionString(t, args...))
		check(t, err)
		return c
	}
	h.iotdm(t, "service", "device", "create", "evil")
	h.iotdm(t, "service", "device", "create", "victim")
	service, err := hubrest.New(hubrest.Options{ConnectionString: connection(), TLS: &tls.Config{RootCAs: roots}})
	check(t, err)
	defer service.Close()
	device, err := mqttdevice.New(mqttdevice.Options{ConnectionString: connection("--device", "evil"), Addr: info.MQTTSAddr, TLS: &tls.Config{RootCAs: roots}})
	check(t, err)
	defer device.Close()
	answer, err := json.Marshal(hostile)
	check(t, err)
	for name, status := range map[string]int{"evil": 500, "rebootDevice": 200} {
		device.HandleMethod(name, func(context.Context, mqttdevice.Method) mqttdevice.Response {
			return mqttdevice.Response{Status: status, Payload: json.RawMessage(answer)}
		})
	}
	check(t, device.Connect(t.Context()))
	_, err = device.PatchReported(t.Context(), map[string]any{"evil": hostile})
	check(t, err)
	for range 3 {
		check(t, device.Send(t.Context(), mqttdevice.Message{Payload: []byte(hostile), Properties: map[string]string{"evil": hostile}}))
	}
	_, err = service.PatchTwin(t.Context(), hubrest.Target{DeviceID: "victim"}, hubrest.TwinChange{Desired: map[string]any{"evil": hostile}, Tags: map[string]any{"evil": hostile}})
	check(t, err)
	check(t, service.SendMessage(t.Context(), "victim", hubrest.Message{Body: []byte(hostile), MessageID: "1"}))

	const reported = "SELECT deviceId, properties.reported.evil FROM devices"
	for _, tt := range []struct {
		name string
		args []string
		fits bool // no line is longer than the terminal
		raw  bool // a pipe gets the text as it is
	}{
		{"a twin", []string{"service", "twin", "get", "evil"}, false, false},
		{"a twin as YAML", []string{"service", "twin", "get", "evil", "-o", "yaml"}, false, false},
		{"a twin as TSV", []string{"service", "twin", "get", "evil", "-o", "tsv"}, false, false},
		{"what --jq finds", []string{"service", "twin", "get", "evil", "--jq", ".properties.reported.evil"}, false, true},
		{"a query", []string{"service", "query", reported}, true, false},
		{"a query as TSV", []string{"service", "query", reported, "-o", "tsv"}, false, false},
		{"a query as JSON", []string{"service", "query", reported, "-o", "json"}, false, false},
		{"a query as YAML", []string{"service", "query", reported, "-o", "yaml"}, false, false},
		{"an answer", []string{"service", "method", "invoke", "evil", "evil"}, false, false},
		{"a reboot", []string{"service", "reboot", "evil", "--no-wait"}, false, false},
		{"a fleet", []string{"service", "reboot", "--where", "deviceId = 'evil'", "--method", "evil", "--yes"}, false, false},
		{"what a job did", []string{"service", "query", "SELECT * FROM devices.jobs", "-o", "json"}, false, false},
		{"the events of a hub", []string{"hub", "events", "--since", "1h", "--source", "telemetry"}, false, false},
		{"events", []string{"service", "events", "--from", "earliest", "--message-count", "1", "--properties", "all"}, false, false},
		{"changes of twins", []string{"service", "twin", "watch", "--where", "*", "--timeout", "2s"}, false, false},
		{"an export", []string{"service", "device", "export", "--where", "deviceId = 'evil'"}, false, true},
		{"an export as CSV", []string{"service", "device", "export", "--where", "deviceId = 'evil'", "--format", "csv"}, false, true},
		{"what a device is told", []string{"device", "run", "--device", "victim"}, false, false},
		{"desired properties", []string{"device", "twin", "get", "--device", "victim", "-o", "table"}, true, false},
	} {
		for _, terminal := range []bool{true, false} {
			name := tt.name + map[bool]string{true: " on a terminal", false: " in a pipe"}[terminal]
			t.Run(name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				cmd := exec.CommandContext(ctx, "iotdm", tt.args...)
				cmd.Env = append(os.Environ(), "TERM=dumb", "IOTDM_DATA="+h.data, "IOTDM_DEVICE_STATE="+t.TempDir())
				stop := func() {}
				switch {
				case slices.Contains(tt.args, "watch"):
					go func() {
						for i := 0; ctx.Err() == nil; i++ {
							service.PatchTwin(ctx, hubrest.Target{DeviceID: "victim"}, hubrest.TwinChange{Tags: map[string]any{"evil": []any{hostile, i}}})
							time.Sleep(100 * time.Millisecond)
						}
					}()
				case slices.Contains(tt.args, "run"):
					stop = func() { cmd.Process.Signal(os.Interrupt) }
					service.SendMessage(ctx, "victim", hubrest.Message{Body: []byte(hostile), MessageID: "2"})
				}
				out := printed(t, cmd, terminal, stop)
				if !strings.Contains(out, "pwned") {
					t.Fatalf("nothing that the device wrote is in what it prints:\n%q", out)
				}
				if !terminal && tt.raw {
					return
				}
				for i, r := range out {
					if r == utf8.RuneError && !strings.HasPrefix(out[i:], "\ufffd") || r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
						t.Fatalf("%q is in what it prints: ... %q ...", r, out[max(0, i-20):min(len(out), i+20)])
					}
				}
				for line := range strings.Lines(out) {
					if w := displaywidth.String(strings.TrimSuffix(line, "\n")); terminal && tt.fits && w > 80 {
						t.Errorf("a line takes %d columns: %s", w, line)
					}
				}
			})
		}
	}
}

// printed returns what cmd prints on a terminal of 80 columns, or into a pipe. It
// calls stop once that the program has printed what the device wrote.
func printed(t *testing.T, cmd *exec.Cmd, terminal bool, stop func()) string {
	t.Helper()
	var r io.Reader
	if terminal {
		f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
		check(t, err)
		defer f.Close()
		r = f
	} else {
		pr, pw, err := os.Pipe()
		check(t, err)
		defer pr.Close()
		cmd.Stdout, cmd.Stderr = pw, pw
		check(t, cmd.Start())
		pw.Close()
		r = pr
	}
	var out bytes.Buffer
	buf := make([]byte, 4096)
	stopped := false
	for {
		n, err := r.Read(buf)
		out.Write(buf[:n])
		if !stopped && bytes.Contains(out.Bytes(), []byte("pwned")) && bytes.HasSuffix(out.Bytes(), []byte("\n")) {
			stopped = true
			stop()
		}
		if err != nil { // a terminal ends with EIO
			break
		}
	}
	cmd.Wait()
	if terminal {
		return strings.ReplaceAll(out.String(), "\r\n", "\n")
	}
	return out.String()
}
