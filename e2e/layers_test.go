package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// hubAndBelow is what a hub consists of.
var hubAndBelow = []string{"internal/jsontext", "sas", "twin", "hub/store", "hub/eventlog", "hub/query", "hub"}

// frame is what every command of package cli stands on: how a command line is
// read, which hub it means, and how it prints and fails.
var frame = slices.Concat(hubAndBelow, []string{"mqttdevice", "hubrest", "internal/wait", "cli/internal/fail", "cli/internal/condition",
	"cli/internal/output", "cli/internal/command", "cli/internal/localhub", "cli/internal/target"})

// commands are the commands and what only they use. They don't see each other.
var commands = []string{"cli/bulk", "cli/doctor", "cli/sas", "cli/hub", "cli/service", "cli/device", "agent", "agent/outbox", "agent/telemetry", "agent/tutorial", "fleet"}

// allowed says which packages of this module a package may import, directly or
// not, apart from tests: arrows point down only, and the device, the service
// client and the hub never borrow each other's code.
var allowed = map[string][]string{
	"sas":                    {},
	"twin":                   {"internal/jsontext"},
	"internal/wait":          {},
	"internal/jsontext":      {},
	"mqttdevice":             {"internal/jsontext", "sas", "twin", "internal/wait"},
	"hubrest":                {"internal/jsontext", "sas", "twin", "internal/wait"},
	"hub/store":              {},
	"hub/eventlog":           {"hub/store"},
	"hub/query":              {"internal/jsontext"},
	"hub":                    {"internal/jsontext", "sas", "twin", "hub/store", "hub/eventlog", "hub/query"},
	"hub/hubtest":            {"internal/jsontext", "sas", "twin", "hub/store", "hub/eventlog", "hub/query", "hub"},
	"agent":                  {"internal/jsontext", "sas", "twin", "mqttdevice", "internal/wait", "agent/tutorial", "agent/telemetry", "agent/outbox"},
	"fleet":                  {"internal/jsontext", "sas", "twin", "mqttdevice", "internal/wait", "agent/tutorial"},
	"agent/tutorial":         {"internal/jsontext", "sas", "twin", "mqttdevice", "internal/wait"},
	"agent/telemetry":        {"internal/jsontext", "sas", "twin", "mqttdevice", "internal/wait"},
	"agent/outbox":           {"internal/jsontext", "sas", "twin", "mqttdevice", "internal/wait"},
	"cli/internal/fail":      {},
	"cli/internal/condition": {},
	"cli/internal/output":    {"internal/jsontext", "cli/internal/fail"},
	"cli/internal/command":   {"internal/jsontext", "cli/internal/fail", "cli/internal/output"},
	"cli/internal/localhub":  slices.Concat(hubAndBelow, []string{"cli/internal/fail"}),
	"cli/internal/target": slices.Concat(hubAndBelow, []string{"mqttdevice", "hubrest", "internal/wait",
		"cli/internal/fail", "cli/internal/output", "cli/internal/command", "cli/internal/localhub"}),
	"cli/bulk":    {"internal/jsontext", "sas", "twin", "hubrest", "internal/wait", "cli/internal/fail", "cli/internal/condition", "cli/internal/output", "cli/internal/command"},
	"cli/doctor":  frame,
	"cli/sas":     slices.Concat(frame, []string{"cli/doctor"}),
	"cli/hub":     frame,
	"cli/service": slices.Concat(frame, []string{"cli/bulk", "agent", "agent/outbox", "agent/telemetry", "agent/tutorial"}),
	"cli/device":  slices.Concat(frame, []string{"agent", "agent/outbox", "agent/telemetry", "agent/tutorial", "fleet"}),
	"cli":         slices.Concat(frame, commands),
	"":            slices.Concat(frame, commands, []string{"cli"}),
	"e2e":         {},
}

func TestImportsPointDownOnly(t *testing.T) {
	const module = "github.com/iotdm/iotdm"
	list := exec.Command("go", "list", "-json=ImportPath,Deps", module+"/...")
	list.Stderr = t.Output()
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	local := func(path string) (string, bool) {
		if path == module {
			return "", true
		}
		return strings.CutPrefix(path, module+"/")
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Deps       []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		name, _ := local(p.ImportPath)
		may, known := allowed[name]
		if !known {
			t.Errorf("package %q has no place in the layers: give it one here", name)
		}
		for _, dep := range p.Deps {
			if dep, ok := local(dep); ok && !slices.Contains(may, dep) {
				t.Errorf("package %q must not import %q", name, dep)
			}
		}
	}
}
