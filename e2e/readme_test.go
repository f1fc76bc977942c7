package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// TestReadmeBackEnd runs the back end that the README shows: a program in Python
// that reads what devices send, and one for Node that sends a device a message.
func TestReadmeBackEnd(t *testing.T) {
	t.Parallel()
	python, node := pythonWith(t, "azure.eventhub"), nodeWith(t, "azure-iothub")
	reader, sender := readmeProgram(t, "python", "reader.py"), readmeProgram(t, "js", "sender.js")
	h := startHubOn443(t, "127.0.0.97")
	env := append(os.Environ(), h.env(t)...)
	env = append(env, "IOTDM_DATA="+h.data, "IOTDM_DEVICE_STATE="+t.TempDir(), "IOTHUB_CONNECTION_STRING="+h.connectionString(t),
		"EVENTHUB_CONNECTION_STRING="+h.connectionString(t, "--event-hub"))
	run := func(name string, args ...string) *program {
		cmd := exec.Command(name, args...)
		cmd.Env = env
		return start(t, cmd)
	}
	device := run("iotdm", "device", "run", "--device", "my-device")
	device.await(t, "is connected to")
	h.iotdm(t, "service", "device", "create", "--device", "sensor")
	h.iotdm(t, "device", "send", "--device", "sensor", "before")
	read := run(python, "-u", reader)
	read.await(t, "before")
	h.iotdm(t, "device", "send", "--device", "sensor", "after")
	read.await(t, "after")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	send := exec.CommandContext(ctx, node, sender)
	send.Env = env
	if out, err := send.CombinedOutput(); err != nil {
		t.Fatalf("the program for Node: %v\n%s", err, out)
	}
	device.await(t, "hello")
}

// readmeProgram returns a file with the one program of the README in a language.
func readmeProgram(t *testing.T, language, name string) string {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)\n```"+language+"\n(.*?)\n```\n").FindAllSubmatch(readme, -1)
	if len(found) != 1 {
		t.Fatalf("the README has %d programs for %s, want one", len(found), language)
	}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, found[0][1], 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
