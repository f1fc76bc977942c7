package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestTutorial runs the two Python programs of Microsoft's tutorial "Get
// started with device management", cut out of its text, against "iotdm hub
// run": only the connection strings and the device id are filled in.
func TestTutorial(t *testing.T) {
	t.Parallel()
	python := pythonWith(t, "azure.iot.device", "azure.iot.hub")
	device, service := tutorialPrograms(t)
	h := startHub(t, "127.0.0.2")
	h.iotdm(t, "service", "device", "create", "--device", "tutorial-device")
	fill := func(program string) string {
		return strings.NewReplacer(
			"{deviceConnectionString}", h.connectionString(t, "--device", "tutorial-device"),
			"{IoTHubConnectionString}", h.connectionString(t, "--policy", "iothubowner"),
			"{deviceId}", "tutorial-device",
		).Replace(program)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	deviceLines := h.python(ctx, t, python, "device.py", fill(device))
	deviceLines.await(t, "Waiting for commands")
	serviceLines := h.python(ctx, t, python, "service.py", fill(service))
	serviceLines.await(t, "Successfully invoked the device to reboot.")
	serviceLines.await(t, "This is the response from the device")
	got := serviceLines.await(t, "Last reboot time: ")
	if !regexp.MustCompile(`^Last reboot time: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d`).MatchString(got) {
		t.Errorf("the service program printed %q, want a last reboot time", got)
	}
	deviceLines.await(t, "Device twins updated with latest rebootTime")
}

// tutorialPrograms cuts the device program and the service program out of the
// tutorial's text.
func tutorialPrograms(t *testing.T) (device, service string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "shared", "tutorial.txt"))
	if err != nil {
		skip(t, "the text of Microsoft's tutorial is not beside this repository (shared/tutorial.txt)")
	}
	sections := regexp.MustCompile(`(?m)^## `).Split(string(text), -1)
	for _, section := range sections {
		var program strings.Builder
		for _, block := range regexp.MustCompile("(?s)```python\n(.*?)\n *```").FindAllStringSubmatch(section, -1) {
			program.WriteString(dedent(block[1]) + "\n\n")
		}
		switch {
		case strings.Contains(section, "dmpatterns_getstarted_device.py") && strings.Contains(program.String(), "create_from_connection_string"):
			device = program.String()
		case strings.Contains(section, "dmpatterns_getstarted_service.py") && strings.Contains(program.String(), "IoTHubRegistryManager"):
			service = program.String()
		}
	}
	if device == "" || service == "" {
		t.Fatal("the tutorial's text does not hold both programs")
	}
	return device, service
}

// dedent removes the blanks in front of the first line from all lines.
func dedent(block string) string {
	indent := block[:len(block)-len(strings.TrimLeft(block, " "))]
	lines := strings.Split(block, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], indent)
	}
	return strings.Join(lines, "\n")
}

// python starts a Python program that trusts the hub. It is killed when the
// test ends.
func (h *hubProcess) python(ctx context.Context, t *testing.T, python, name, source string) *program {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, python, "-u", file)
	cmd.Env = append(os.Environ(), h.env(t)...)
	return start(t, cmd)
}

// pythonWith returns a Python interpreter that has the modules.
func pythonWith(t *testing.T, modules ...string) string {
	t.Helper()
	python := os.Getenv("IOTDM_PYTHON")
	if python == "" {
		python = "python3"
	}
	program := "import " + strings.Join(modules, ", ")
	if out, err := exec.Command(python, "-c", program).CombinedOutput(); err != nil {
		skip(t, fmt.Sprintf("%s cannot %s: pip install -r e2e/sdk/python/requirements.txt (%v %s)", python, program, err, lastLine(out)))
	}
	return python
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
