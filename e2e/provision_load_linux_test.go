package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestProvisioningLoad has a fleet of devices that the hub knows connect, and then
// one of as many that it does not know, each of which registers with the hub's
// provisioning service, by the key of an enrollment group, and connects. It logs how
// long both took, each from an idle hub, and runs when IOTDM_LOAD says how many:
//
//	IOTDM_LOAD=10000 go test ./e2e -run ProvisioningLoad -v
//
// It fails when devices do not come, never because something took long.
func TestProvisioningLoad(t *testing.T) {
	devices, err := strconv.Atoi(os.Getenv("IOTDM_LOAD"))
	if err != nil {
		t.Skip("only run with IOTDM_LOAD=10000, or another number of devices")
	}
	h := &loadHub{data: t.TempDir(), mqtts: freeAddr(t), https: freeAddr(t)}
	h.start(t)
	key := filepath.Join(t.TempDir(), "group.key")
	if err := os.WriteFile(key, []byte(h.run(t, "service", "enrollment-group", "create", "load", "--show-keys", "--jq", ".attestation.symmetricKey.primaryKey")), 0o600); err != nil {
		t.Fatal(err)
	}
	// fleet returns how long it took to connect, and has the fleet leave.
	fleet := func(what, prefix string, more ...string) float64 {
		t.Helper()
		before := h.cpu(t)
		cmd := exec.Command("iotdm", append([]string{"device", "run", "--count", strconv.Itoa(devices), "--id-prefix", prefix,
			"--reboot-duration", "0s", "--jq", "tojson"}, more...)...)
		cmd.Env = append(os.Environ(), "IOTDM_DATA="+h.data)
		p := start(t, cmd)
		line := p.await(t, "devices are connected to")
		seconds := number(t, line, `after ([\d.]+) s`)
		t.Logf("%s: %d devices in %.1f s, %.0f/s; CPU for each: %.2f ms in the fleet, %.2f ms in the hub; resident: fleet %d MiB, hub %d MiB",
			what, devices, seconds, float64(devices)/seconds, ms(cpu(t, cmd.Process.Pid))/float64(devices), ms(h.cpu(t)-before)/float64(devices),
			memory(t, cmd.Process.Pid, "VmRSS"), memory(t, h.pid(), "VmRSS"))
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		var s struct{ Connected, Attempts int }
		statistics := p.await(t, `{"attempts":`)
		if err := json.Unmarshal([]byte(statistics), &s); err != nil || s.Connected != devices {
			t.Fatalf("%s: at the end %d of %d devices were connected (%v): %s", what, s.Connected, devices, err, statistics)
		}
		p.end(t)
		return seconds
	}
	fleet("put into the registry by the fleet, and connected", "known-")
	first := fleet("connected", "known-")
	began := time.Now()
	provisioned := fleet("provisioned and connected", "new-", "--provision", "--enrollment-group-key", "@"+key)
	t.Logf("the fleet's own time, its start and its end: %.1f s", time.Since(began).Seconds()-provisioned)
	again := fleet("provisioned again and connected", "new-", "--provision", "--enrollment-group-key", "@"+key)
	second := fleet("connected once more", "known-")
	alone := (first + second) / 2
	t.Logf("provisioned and connected in %.2f of the time of connecting alone, again in %.2f", provisioned/alone, again/alone)

	if n := h.run(t, "service", "query", "SELECT COUNT() AS n FROM devices WHERE STARTSWITH(deviceId, 'new-')", "--jq", ".[0].n"); n != strconv.Itoa(devices) {
		t.Errorf("the hub has %s devices that were provisioned, want %d", n, devices)
	}
}
