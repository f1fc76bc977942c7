package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Clients of MQTT that know nothing of IoT Hub are devices with what
// "iotdm hub mqtt-settings" prints.

// with returns a command whose hub is h.
func (h *hubProcess) with(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "IOTDM_DATA="+h.data, "PYTHONDONTWRITEBYTECODE=1")
	return cmd
}

func TestPahoForPython(t *testing.T) {
	t.Parallel()
	python := pythonWith(t, "paho.mqtt.client")
	h := startHub(t, "127.0.0.90", "--ephemeral")
	start(t, h.with(t, python, "-u", "sdk/python/paho_client.py")).await(t, "all checks passed")
}

// mosquittoFiles starts a hub and has the settings of a device written.
func mosquittoFiles(t *testing.T, address string, programs ...string) (h *hubProcess, dir string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			skip(t, program+" is not installed: apt-get install mosquitto mosquitto-clients")
		}
	}
	h, dir = startHub(t, address, "--ephemeral"), filepath.Join(t.TempDir(), "mqtt")
	h.iotdm(t, "service", "device", "create", "--device", "d1")
	h.iotdm(t, "hub", "mqtt-settings", "--device", "d1", "--mosquitto", dir)
	return h, dir
}

// typed returns the command that mqtt-settings prints behind a heading.
func typed(t *testing.T, text, heading string) string {
	t.Helper()
	_, after, found := strings.Cut(text, heading+":\n  ")
	line, _, _ := strings.Cut(after, "\n")
	if !found {
		t.Fatalf("mqtt-settings prints nothing for %q:\n%s", heading, text)
	}
	return line
}

func TestMosquittoClients(t *testing.T) {
	t.Parallel()
	h, dir := mosquittoFiles(t, "127.0.0.91", "mosquitto_pub", "mosquitto_sub")
	text := h.iotdm(t, "hub", "mqtt-settings", "--device", "d1", "--mosquitto", dir)

	if out, err := h.with(t, "sh", "-c", typed(t, text, "Send telemetry")).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v\n%s", err, out)
	}
	if got := h.iotdm(t, "hub", "events", "--source", "telemetry", "--jq", ".event.payload"); got != "hello" {
		t.Errorf("the hub has telemetry %q, want hello", got)
	}
	h.iotdm(t, "service", "c2d", "send", "--device", "d1", "--data", "to the device")
	start(t, h.with(t, "sh", "-c", "exec env "+typed(t, text, "Receive messages"))).await(t, " to the device")
	call := start(t, h.with(t, "sh", "-c", "exec env "+typed(t, text, "Receive method calls")))
	invoke := h.with(t, "iotdm", "service", "method", "invoke", "--device", "d1", "--method-name", "blink", "--method-payload", "7", "--connect-timeout", "30", "--timeout", "5")
	if err := invoke.Start(); err != nil {
		t.Fatal(err)
	}
	call.await(t, "$iothub/methods/POST/blink/?$rid=1 7")
	_ = invoke.Wait() // nobody answers
}

// A broker with the bridge that mqtt-settings writes lets its own clients be the
// device, with all that a device does.
func TestMosquittoBridge(t *testing.T) {
	t.Parallel()
	h, dir := mosquittoFiles(t, "127.0.0.92", "mosquitto", "mosquitto_pub", "mosquitto_sub")
	_, port, _ := strings.Cut(freeAddr(t), ":")
	// Started by root it would become a user that may not look into this test's
	// folder.
	config := filepath.Join(t.TempDir(), "mosquitto.conf")
	if err := os.WriteFile(config, []byte("user root\ninclude_dir "+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	broker := start(t, h.with(t, "mosquitto", "-v", "-p", port, "-c", config))
	broker.await(t, "Received SUBACK from local.d1")
	client := start(t, h.with(t, "mosquitto_sub", "-p", port, "-v", "-t", "devices/d1/messages/devicebound/#", "-t", "$iothub/#"))
	broker.await(t, "$iothub/#")
	publish := func(topic, text string) {
		t.Helper()
		if out, err := h.with(t, "mosquitto_pub", "-p", port, "-q", "1", "-t", topic, "-m", text).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_pub -t %s: %v\n%s", topic, err, out)
		}
	}

	publish("devices/d1/messages/events/", "by the bridge")
	broker.await(t, "Received PUBACK from local.d1")
	if got := h.iotdm(t, "hub", "events", "--source", "telemetry", "--jq", ".event.payload"); got != "by the bridge" {
		t.Errorf("the hub has telemetry %q", got)
	}
	publish("$iothub/twin/PATCH/properties/reported/?$rid=2", `{"firmware": "1.2"}`)
	client.await(t, "$iothub/twin/res/204/?$rid=2")
	publish("$iothub/twin/GET/?$rid=3", "{}")
	client.await(t, `$iothub/twin/res/200/?$rid=3 {"desired":{"$version":1},"reported":{"firmware":"1.2"`)
	h.iotdm(t, "service", "c2d", "send", "--device", "d1", "--data", "to the device")
	client.await(t, "to the device")
	h.iotdm(t, "service", "twin", "patch", "--device", "d1", "--desired", `{"interval": 60}`)
	client.await(t, `"interval":60`)

	call := start(t, h.with(t, "iotdm", "service", "method", "invoke", "--device", "d1", "--method-name", "blink", "--method-payload", "7"))
	request := client.await(t, "$iothub/methods/POST/blink/")
	_, rid, _ := strings.Cut(strings.TrimSuffix(request, " 7"), "$rid=")
	publish("$iothub/methods/res/200/?$rid="+rid, `{"blinked": 7}`)
	call.await(t, `"blinked": 7`)
}
