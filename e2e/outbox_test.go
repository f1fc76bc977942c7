package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/mqttdevice"
)

// TestNothingQueuedIsLost queues messages while the agent and its hub are killed
// in turn. The hub then has all of them, and, but for repetitions, in order.
func TestNothingQueuedIsLost(t *testing.T) {
	data, state := t.TempDir(), t.TempDir()
	mqtts, https := freeAddr(t), freeAddr(t)
	var hub, device *exec.Cmd
	startHub := func() {
		hub = exec.Command("iotdm", "hub", "run", "--data", data, "--mqtts-addr", mqtts, "--https-addr", https)
		start(t, hub).await(t, "ready")
	}
	iotdm := func(args ...string) string {
		cmd := exec.Command("iotdm", append(args, "--data", data)...)
		cmd.Stderr = t.Output()
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("iotdm %s: %v", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out))
	}
	startHub()
	iotdm("service", "device", "create", "--device", "d1", "--output", "json")
	conn := iotdm("hub", "connection-string", "--device", "d1")
	startDevice := func() {
		device = exec.Command("iotdm", "device", "run", "--connection-string", conn, "--ca-file", filepath.Join(data, "ca.pem"),
			"--state", state, "--data", filepath.Join(state, "none"))
		start(t, device)
	}
	startDevice()

	const total, batch = 600, 5
	folder := filepath.Join(state, "localhost", "d1")
	for n := 0; n < total; n += batch {
		var messages []mqttdevice.Message
		for i := range batch {
			messages = append(messages, mqttdevice.Message{Payload: fmt.Append(nil, n+i), ContentType: "application/json", ContentEncoding: "utf-8"})
		}
		if err := agent.Queue(folder, messages...); err != nil {
			t.Fatal(err)
		}
		if n%150 == 75 {
			hub.Process.Kill()
			hub.Wait()
		}
		if n%100 == 50 {
			device.Process.Kill()
			device.Wait()
			startDevice()
		}
		if n%150 == 125 {
			startHub()
		}
	}
	follow := exec.Command("iotdm", "hub", "events", "--data", data, "--source", "telemetry", "--follow", "--since", "1h", "--jq", ".event.payload")
	start(t, follow).await(t, fmt.Sprint(total-1))

	next, seen := 0, make(map[string]bool)
	events := iotdm("hub", "events", "--source", "telemetry", "--output", "json")
	for dec := json.NewDecoder(strings.NewReader(events)); dec.More(); {
		var e struct {
			Event struct {
				Payload    json.RawMessage
				Properties struct {
					System struct {
						ID string `json:"message_id"`
					}
				}
			}
		}
		if err := dec.Decode(&e); err != nil {
			t.Fatal(err)
		}
		id := e.Event.Properties.System.ID
		if seen[id] {
			continue
		}
		seen[id] = true
		if got := string(e.Event.Payload); got != fmt.Sprint(next) {
			t.Fatalf("message %q is %s, want %d", id, got, next)
		}
		next++
	}
	if next != total {
		t.Errorf("%d messages arrived, want %d", next, total)
	}
	if left, err := os.ReadDir(filepath.Join(folder, "outbox", "spool")); err != nil || len(left) > 0 {
		t.Errorf("left in the spool: %v, %v", left, err)
	}
}
