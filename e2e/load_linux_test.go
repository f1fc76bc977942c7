package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestLoad connects many devices of one process to a hub in another, kills the hub, starts it again, and
// logs how long everything took. It runs when IOTDM_LOAD says how many devices:
//
//	IOTDM_LOAD=10000 go test ./e2e -run Load -v
//
// It fails when devices do not come back, never because something took long.
func TestLoad(t *testing.T) {
	devices, err := strconv.Atoi(os.Getenv("IOTDM_LOAD"))
	if err != nil {
		t.Skip("only run with IOTDM_LOAD=10000, or another number of devices")
	}
	h := &loadHub{data: t.TempDir(), mqtts: freeAddr(t), https: freeAddr(t)}
	h.start(t)
	t.Logf("for comparison: %.0f/s TLS handshakes without anything else", handshakes(t, h, devices/5))
	before := h.cpu(t)
	cmd := exec.Command("iotdm", "device", "run", "--count", strconv.Itoa(devices), "--id-prefix", "load-",
		"--reboot-duration", "0s", "--jq", "tojson")
	cmd.Env = append(os.Environ(), "IOTDM_DATA="+h.data)
	fleet := start(t, cmd)

	line := fleet.await(t, "devices are connected to")
	seconds := number(t, line, `after ([\d.]+) s`)
	t.Logf("connected: %d devices in %.1f s, %.0f/s; CPU for each: %.2f ms in the fleet, %.2f ms in the hub, with registering",
		devices, seconds, float64(devices)/seconds, ms(cpu(t, cmd.Process.Pid))/float64(devices), ms(h.cpu(t)-before)/float64(devices))
	t.Logf("resident: fleet %d MiB (%d at most), hub %d MiB", memory(t, cmd.Process.Pid, "VmRSS"), memory(t, cmd.Process.Pid, "VmHWM"), memory(t, h.pid(), "VmRSS"))

	for _, job := range [][]string{
		{"service", "reboot", "--yes", "--where", "tags.fleet = 'load-'", "--jq", "length"},
		{"service", "query", "SELECT COUNT() AS n FROM devices WHERE is_defined(properties.reported.rebootTime)", "--jq", ".[0].n"},
		{"service", "query", "SELECT deviceId FROM devices WHERE connectionState = 'Connected'", "--jq", "length"},
	} {
		began := time.Now()
		out := h.run(t, job...)
		t.Logf("%q printed %s in %.2f s", job, out, time.Since(began).Seconds())
	}

	const away = 5 * time.Second
	h.kill(t)
	t.Logf("the hub was killed and is away for %v", away)
	time.Sleep(away) // not to wait for something: the storm is to brew
	began := time.Now()
	h.start(t)
	ready := time.Since(began)
	line = fleet.await(t, "devices are connected again")
	t.Logf("the storm: over %.1f s after the hub was started, which was ready after %.1f s", time.Since(began).Seconds(), ready.Seconds())
	lost := number(t, line, `after ([\d.]+) s`)

	most := memory(t, cmd.Process.Pid, "VmHWM")
	began = time.Now()
	cmd.Process.Signal(os.Interrupt)
	statistics := fleet.await(t, `{"attempts":`)
	fleet.await(t, "stay registered")
	t.Logf("the end took %.1f s after Ctrl-C", time.Since(began).Seconds())
	var s struct {
		Connected, Reconnects, Attempts int
		LeastRetryMs                    float64
		ConnectMs                       struct{ P50, P99, Max float64 }
		ConnectFailures, Disconnects    map[string]int
		Methods                         map[string]int
	}
	if err := json.Unmarshal([]byte(statistics), &s); err != nil {
		t.Fatalf("the statistics are no JSON: %v\n%s", err, statistics)
	}
	t.Logf("attempts per device and second of the storm: %.2f; at least %.0f ms apart; statistics: %+v",
		float64(s.Attempts-devices)/float64(devices)/lost, s.LeastRetryMs, s)
	t.Logf("resident at most: fleet %d MiB, hub %d MiB", most, memory(t, h.pid(), "VmHWM"))
	if s.Connected != devices || s.Reconnects < devices {
		t.Errorf("%d devices were connected at the end, after %d reconnects; want %d and at least as many", s.Connected, s.Reconnects, devices)
	}
}

// A loadHub is a hub that is killed and started again.
type loadHub struct {
	data, mqtts, https string
	cmd                *exec.Cmd
}

func (h *loadHub) start(t *testing.T) {
	h.cmd = exec.Command("iotdm", "hub", "run", "--data", h.data, "--mqtts-addr", h.mqtts, "--https-addr", h.https)
	start(t, h.cmd).await(t, "ready")
}

func (h *loadHub) kill(t *testing.T) {
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
}

func (h *loadHub) pid() int { return h.cmd.Process.Pid }

func (h *loadHub) cpu(t *testing.T) time.Duration { return cpu(t, h.pid()) }

func (h *loadHub) run(t *testing.T, args ...string) string {
	p := hubProcess{data: h.data}
	return p.iotdm(t, args...)
}

// handshakes connects n times by TLS alone, as a fleet does, and returns how many that were in a second.
func handshakes(t *testing.T, h *loadHub, n int) float64 {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(h.data, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", CurvePreferences: []tls.CurveID{tls.X25519}}
	var group sync.WaitGroup
	turns := make(chan struct{}, 64)
	began := time.Now()
	for range n {
		turns <- struct{}{}
		group.Go(func() {
			conn, err := tls.Dial("tcp", h.mqtts, config)
			if err != nil {
				t.Error(err)
			} else {
				conn.Close()
			}
			<-turns
		})
	}
	group.Wait()
	return float64(n) / time.Since(began).Seconds()
}

func number(t *testing.T, text, pattern string) float64 {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("%q does not match %s", text, pattern)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// cpu is the time that a process has used so far.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')'):])
	var ticks int
	for _, f := range fields[12:14] { // utime and stime, in hundredths of a second
		n, err := strconv.Atoi(string(f))
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// memory is a figure of /proc/PID/status in MiB.
func memory(t *testing.T, pid int, name string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	return int(number(t, string(status), name+`:\s+(\d+) kB`)) >> 10
}
