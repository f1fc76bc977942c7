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

const module = "github.com/iotdm/iotdm"

// arrows says which packages of this module a package imports, apart from
// tests, from the lowest to the highest. Arrows point down only. The device side,
// the service side and the hub never borrow each other's code; of the hub, the
// rules know no door, no door knows another, and only a node knows all.
var arrows = map[string][]string{
	"internal/bearer":   {},
	"internal/dial":     {},
	"internal/jsontext": {},
	"internal/segment":  {},
	"internal/wait":     {},
	"internal/yamltext": {},
	"sas":               {},
	"twin":              {"internal/jsontext"},

	// The device side.
	"mqttdevice":      {"internal/dial", "internal/wait", "sas", "twin"},
	"agent/outbox":    {"internal/segment", "mqttdevice"},
	"agent/telemetry": {"mqttdevice"},
	"agent/tutorial":  {"mqttdevice"},
	"agent":           {"agent/outbox", "agent/telemetry", "agent/tutorial", "internal/wait", "mqttdevice", "sas", "twin"},
	"fleet":           {"agent/tutorial", "internal/wait", "mqttdevice"},

	// The service side.
	"hubamqp": {"internal/bearer", "internal/dial", "internal/wait", "sas"},
	"hubrest": {"internal/bearer", "internal/jsontext", "internal/wait", "sas"},

	// The hub: what its rooms stand on, the rules, what stands on the rules, the
	// doors, and the node.
	"hub/store":                  {"internal/wait"},
	"hub/eventlog":               {"internal/segment"},
	"hub/clock":                  {},
	"hub/query":                  {"internal/jsontext"},
	"hub/fault":                  {"hub/query"},
	"hub/journal":                {"internal/jsontext"},
	"hub/internal/disk":          {},
	"hub/internal/words":         {"internal/jsontext"},
	"hub/internal/serve":         {"hub/internal/words"},
	"hub":                        {"hub/clock", "hub/eventlog", "hub/fault", "hub/internal/disk", "hub/internal/serve", "hub/internal/words", "hub/journal", "hub/query", "hub/store", "internal/jsontext", "internal/wait", "sas", "twin"},
	"hub/jobs":                   {"hub", "hub/clock", "hub/internal/disk", "hub/internal/serve", "hub/internal/words", "hub/query", "hub/store", "internal/wait", "twin"},
	"hub/configurations":         {"hub", "hub/clock", "hub/internal/disk", "hub/internal/serve", "hub/internal/words", "hub/query", "hub/store", "internal/jsontext", "internal/wait", "twin"},
	"hub/internal/linked":        {"hub/internal/words", "internal/wait", "sas"},
	"hub/provisioning":           {"hub", "hub/internal/disk", "hub/internal/linked", "hub/internal/words", "hub/store", "internal/wait", "sas"},
	"hub/controls":               {"hub", "hub/clock", "hub/configurations", "hub/jobs", "hub/provisioning", "hub/store"},
	"hub/entra":                  {"hub", "hub/internal/words", "internal/jsontext", "sas"},
	"hub/internal/mqtt":          {"hub", "hub/fault", "hub/internal/disk", "hub/internal/serve", "hub/internal/words", "hub/journal", "hub/provisioning", "internal/wait"},
	"hub/internal/rest":          {"hub", "hub/configurations", "hub/controls", "hub/fault", "hub/internal/httprequest", "hub/internal/serve", "hub/internal/words", "hub/jobs", "hub/journal", "internal/jsontext", "sas", "twin"},
	"hub/internal/httprequest":   {"hub", "hub/journal", "internal/wait"},
	"hub/internal/dps":           {"hub", "hub/internal/httprequest", "hub/internal/serve", "hub/internal/words", "hub/journal", "hub/provisioning", "internal/jsontext"},
	"hub/internal/amqp/wire":     {},
	"hub/internal/amqp/engine":   {"hub/internal/amqp/wire"},
	"hub/internal/amqp/recorded": {"hub/internal/amqp/wire"},
	"hub/internal/amqp":          {"hub", "hub/clock", "hub/fault", "hub/internal/amqp/engine", "hub/internal/amqp/wire", "hub/internal/serve", "hub/internal/words", "hub/journal", "hub/provisioning", "internal/wait", "sas"},
	"hub/node":                   {"hub", "hub/clock", "hub/configurations", "hub/controls", "hub/entra", "hub/eventlog", "hub/fault", "hub/internal/amqp", "hub/internal/disk", "hub/internal/dps", "hub/internal/linked", "hub/internal/mqtt", "hub/internal/rest", "hub/internal/serve", "hub/internal/words", "hub/jobs", "hub/journal", "hub/provisioning", "hub/store", "internal/jsontext", "internal/yamltext", "sas"},
	"hub/hubtest":                {"hub", "hub/controls", "hub/fault", "hub/journal", "hub/node", "sas"},
	"hub/internal/wiretest":      {"hub", "hub/clock", "hub/configurations", "hub/hubtest", "hub/internal/amqp/wire", "hub/jobs", "hub/node", "hub/provisioning", "sas"},

	// The command line: the frame, the commands of each role, the tree.
	"cli/internal/fail":      {},
	"cli/internal/condition": {},
	"cli/internal/output":    {"cli/internal/fail", "internal/jsontext"},
	"cli/internal/command":   {"cli/internal/fail", "cli/internal/output"},
	"cli/internal/localhub":  {"cli/internal/fail", "hub/node", "sas"},
	"cli/internal/event":     {"cli/internal/output"},
	"cli/internal/logs":      {"cli/internal/command", "cli/internal/fail", "cli/internal/output"},
	"cli/internal/systemd":   {"cli/internal/fail", "cli/internal/output"},
	"cli/internal/target":    {"cli/internal/command", "cli/internal/fail", "cli/internal/localhub", "cli/internal/output", "hub/node", "hubamqp", "hubrest", "internal/jsontext", "mqttdevice", "sas"},
	"cli/internal/provision": {"agent", "cli/internal/command", "cli/internal/fail", "cli/internal/localhub", "cli/internal/output", "cli/internal/target", "mqttdevice", "sas"},
	"cli/internal/mqttsetup": {"cli/internal/command", "cli/internal/fail", "cli/internal/localhub", "cli/internal/output", "cli/internal/target", "sas"},
	"cli/bulk":               {"cli/internal/command", "cli/internal/condition", "cli/internal/fail", "cli/internal/output", "hubrest", "internal/jsontext", "sas", "twin"},
	"cli/doctor":             {"cli/internal/command", "cli/internal/fail", "cli/internal/localhub", "cli/internal/output", "cli/internal/provision", "cli/internal/target", "hubamqp", "hubrest", "mqttdevice", "sas"},
	"cli/sas":                {"cli/doctor", "cli/internal/command", "cli/internal/fail", "cli/internal/localhub", "cli/internal/output", "cli/internal/target", "hubrest", "sas"},
	"cli/hub":                {"cli/internal/command", "cli/internal/event", "cli/internal/fail", "cli/internal/localhub", "cli/internal/logs", "cli/internal/mqttsetup", "cli/internal/output", "cli/internal/systemd", "cli/internal/target", "hub", "hub/entra", "hub/node", "hubrest", "internal/yamltext", "sas"},
	"cli/device":             {"agent", "agent/outbox", "agent/telemetry", "cli/internal/command", "cli/internal/condition", "cli/internal/fail", "cli/internal/localhub", "cli/internal/logs", "cli/internal/mqttsetup", "cli/internal/output", "cli/internal/provision", "cli/internal/systemd", "cli/internal/target", "fleet", "hub/node", "hubrest", "mqttdevice", "sas", "twin"},
	"cli/service":            {"agent", "cli/bulk", "cli/internal/command", "cli/internal/condition", "cli/internal/event", "cli/internal/fail", "cli/internal/output", "cli/internal/target", "hub/query", "hubamqp", "hubrest", "internal/jsontext", "internal/yamltext", "sas", "twin"},
	"cli":                    {"agent", "cli/device", "cli/doctor", "cli/hub", "cli/internal/command", "cli/internal/condition", "cli/internal/fail", "cli/internal/localhub", "cli/internal/output", "cli/internal/target", "cli/sas", "cli/service", "hub", "hub/node", "hubrest", "sas"},
	"":                       {"cli"},
	"examples/ci/go":         {"hubamqp", "mqttdevice"},
	"e2e":                    {},
}

// wires are what only doors, and what serves them, may know.
var wires = []string{"net/http", "github.com/eclipse/paho.mqtt.golang/packets", "github.com/coder/websocket", module + "/hub/internal/amqp/wire"}

// wireless are the packages of the hub that parse no wire.
var wireless = []string{"hub", "hub/jobs", "hub/configurations", "hub/provisioning", "hub/query", "hub/store", "hub/eventlog", "hub/fault", "hub/journal"}

func TestImportsPointDownOnly(t *testing.T) {
	list := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...")
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
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		name, _ := local(p.ImportPath)
		may, known := arrows[name]
		if !known {
			t.Errorf("package %q has no place in the layers: give it one here", name)
		}
		unused := slices.Clone(may)
		for _, imported := range p.Imports {
			if slices.Contains(wires, imported) && slices.Contains(wireless, name) {
				t.Errorf("package %q must not know of a wire: it imports %q", name, imported)
			}
			imported, ok := local(imported)
			if !ok {
				continue
			}
			if !slices.Contains(may, imported) {
				t.Errorf("package %q must not import %q", name, imported)
			}
			unused = slices.DeleteFunc(unused, func(s string) bool { return s == imported })
		}
		if known && len(unused) > 0 {
			t.Errorf("package %q no longer imports %q: take it out here", name, unused)
		}
	}
}
