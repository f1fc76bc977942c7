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
	"internal/bearer":       {},
	"internal/dial":         {},
	"internal/condition":    {},
	"internal/jsontext":     {},
	"internal/phrase":       {},
	"internal/mqttsettings": {"sas"},
	"internal/reboot":       {},
	"internal/segment":      {},
	"internal/wait":         {},
	"internal/yamltext":     {},
	"sas":                   {},
	"twin":                  {"internal/jsontext"},

	// The device side.
	"mqttdevice":      {"internal/dial", "internal/wait", "sas", "twin"},
	"agent/outbox":    {"internal/segment", "mqttdevice"},
	"agent/telemetry": {"mqttdevice"},
	"agent/tutorial":  {"mqttdevice"},
	"agent":           {"agent/outbox", "agent/telemetry", "agent/tutorial", "internal/wait", "mqttdevice", "sas", "twin"},
	"fleet":           {"agent/tutorial", "internal/wait", "mqttdevice"},

	// The service side.
	"hubamqp":           {"internal/bearer", "internal/dial", "internal/wait", "sas"},
	"hubrest":           {"internal/bearer", "internal/jsontext", "internal/wait", "sas"},
	"internal/bulk":     {"hubrest", "internal/condition", "internal/jsontext", "internal/phrase", "sas", "twin"},
	"internal/eventdoc": {"hubamqp"},

	// What the command line and the console share of the service side.
	"internal/twinwatch": {"hubrest", "twin"},
	"internal/twinedit":  {"hubrest", "internal/jsontext", "internal/phrase", "twin"},

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
	"hub/cluster/memlog":         {"hub", "hub/store"},
	"hub/entra":                  {"hub", "hub/internal/words", "internal/jsontext", "sas"},
	"hub/internal/mqtt":          {"hub", "hub/fault", "hub/internal/disk", "hub/internal/serve", "hub/internal/words", "hub/journal", "hub/provisioning", "internal/wait"},
	"hub/internal/rest":          {"hub", "hub/configurations", "hub/controls", "hub/fault", "hub/internal/httprequest", "hub/internal/serve", "hub/internal/words", "hub/jobs", "hub/journal", "internal/jsontext", "sas", "twin"},
	"hub/internal/httprequest":   {"hub", "hub/journal", "internal/wait"},
	"hub/internal/dps":           {"hub", "hub/internal/httprequest", "hub/internal/serve", "hub/internal/words", "hub/journal", "hub/provisioning", "internal/jsontext"},
	"hub/internal/amqp/wire":     {},
	"hub/internal/amqp/engine":   {"hub/internal/amqp/wire"},
	"hub/internal/amqp/recorded": {"hub/internal/amqp/wire"},
	"hub/internal/amqp":          {"hub", "hub/fault", "hub/internal/amqp/engine", "hub/internal/amqp/wire", "hub/internal/serve", "hub/internal/words", "hub/journal", "hub/provisioning", "internal/wait", "sas"},
	"hub/node":                   {"hub", "hub/clock", "hub/configurations", "hub/controls", "hub/entra", "hub/eventlog", "hub/fault", "hub/internal/amqp", "hub/internal/disk", "hub/internal/dps", "hub/internal/linked", "hub/internal/mqtt", "hub/internal/rest", "hub/internal/serve", "hub/internal/words", "hub/jobs", "hub/journal", "hub/provisioning", "hub/store", "internal/jsontext", "internal/wait", "internal/yamltext", "sas"},
	"hub/cluster/natsconn":       {"internal/wait"},
	"hub/cluster/natslog":        {"hub/cluster/natsconn", "hub/store", "internal/wait"},
	"hub/cluster/natsevents":     {"hub/cluster/natsconn", "hub/eventlog", "internal/wait"},
	"hub/cluster/natstest":       {},
	"hub/cluster":                {"hub", "hub/cluster/natsconn", "hub/cluster/natslog", "hub/store", "internal/wait"},
	"hub/cluster/clusternode":    {"hub", "hub/cluster", "hub/cluster/natsconn", "hub/cluster/natsevents", "hub/node", "hub/store"},
	"hub/internal/several":       {"hub/node"},
	"hub/hubtest":                {"hub", "hub/clock", "hub/controls", "hub/fault", "hub/internal/several", "hub/journal", "hub/node", "sas"},
	"hub/hubtest/clustertest":    {"hub/cluster", "hub/cluster/clusternode", "hub/cluster/natsconn", "hub/cluster/natsevents", "hub/cluster/natstest", "hub/hubtest", "hub/internal/several", "hub/node", "hub/store"},
	"hub/internal/severaltest":   {"hub", "hub/clock", "hub/cluster/memlog", "hub/configurations", "hub/eventlog", "hub/jobs", "hub/provisioning", "sas"},
	"hub/internal/wiretest":      {"hub", "hub/clock", "hub/configurations", "hub/hubtest", "hub/internal/amqp/wire", "hub/jobs", "hub/node", "hub/provisioning", "sas"},

	"console": {"hubamqp", "hubrest", "internal/bulk", "internal/condition", "internal/eventdoc", "internal/jsontext", "internal/mqttsettings", "internal/phrase", "internal/reboot", "internal/twinedit", "internal/twinwatch", "internal/wait", "sas", "twin"},

	// The command line: the frame, the commands of each role, the tree.
	"cli/internal/fail":       {},
	"cli/internal/output":     {"cli/internal/fail", "internal/jsontext"},
	"cli/internal/command":    {"cli/internal/fail", "cli/internal/output", "internal/phrase"},
	"cli/internal/localhub":   {"cli/internal/fail", "hub/node", "sas"},
	"cli/internal/event":      {"cli/internal/output"},
	"cli/internal/logs":       {"cli/internal/command", "cli/internal/fail", "cli/internal/output"},
	"cli/internal/systemd":    {"cli/internal/fail", "cli/internal/output"},
	"cli/internal/target":     {"cli/internal/command", "cli/internal/fail", "cli/internal/localhub", "cli/internal/output", "hub/node", "hubamqp", "hubrest", "internal/jsontext", "internal/phrase", "mqttdevice", "sas"},
	"cli/internal/provision":  {"agent", "cli/internal/command", "cli/internal/fail", "cli/internal/localhub", "cli/internal/output", "cli/internal/target", "mqttdevice", "sas"},
	"cli/internal/mqttsetup":  {"cli/internal/command", "cli/internal/fail", "cli/internal/output", "cli/internal/target", "internal/mqttsettings"},
	"cli/internal/webconsole": {"cli/internal/fail", "cli/internal/localhub", "cli/internal/output", "cli/internal/target", "console", "hubamqp", "hubrest"},
	"cli/console":             {"cli/internal/command", "cli/internal/fail", "cli/internal/logs", "cli/internal/output", "cli/internal/target", "cli/internal/webconsole"},
	"cli/doctor":              {"cli/internal/command", "cli/internal/fail", "cli/internal/localhub", "cli/internal/output", "cli/internal/provision", "cli/internal/target", "hubamqp", "hubrest", "mqttdevice", "sas"},
	"cli/sas":                 {"cli/doctor", "cli/internal/command", "cli/internal/fail", "cli/internal/localhub", "cli/internal/output", "cli/internal/target", "hubrest", "sas"},
	"cli/hub":                 {"cli/internal/command", "cli/internal/event", "cli/internal/fail", "cli/internal/localhub", "cli/internal/logs", "cli/internal/mqttsetup", "cli/internal/output", "cli/internal/systemd", "cli/internal/target", "cli/internal/webconsole", "hub", "hub/cluster", "hub/cluster/clusternode", "hub/cluster/natsconn", "hub/cluster/natsevents", "hub/entra", "hub/node", "hub/store", "hubrest", "internal/phrase", "internal/yamltext", "sas"},
	"cli/device":              {"agent", "agent/outbox", "agent/telemetry", "cli/internal/command", "cli/internal/fail", "cli/internal/localhub", "cli/internal/logs", "cli/internal/mqttsetup", "cli/internal/output", "cli/internal/provision", "cli/internal/systemd", "cli/internal/target", "fleet", "hub/node", "hubrest", "internal/condition", "internal/phrase", "mqttdevice", "sas", "twin"},
	"cli/service":             {"agent", "cli/internal/command", "cli/internal/event", "cli/internal/fail", "cli/internal/output", "cli/internal/target", "hub/query", "hubamqp", "hubrest", "internal/bulk", "internal/condition", "internal/eventdoc", "internal/jsontext", "internal/phrase", "internal/reboot", "internal/twinedit", "internal/twinwatch", "internal/yamltext", "sas", "twin"},
	"cli":                     {"agent", "cli/console", "cli/device", "cli/doctor", "cli/hub", "cli/internal/command", "cli/internal/fail", "cli/internal/localhub", "cli/internal/output", "cli/internal/target", "cli/sas", "cli/service", "hub", "hub/node", "hubrest", "internal/condition", "internal/phrase", "internal/reboot", "sas"},
	"":                        {"cli"},
	"examples/ci/go":          {"hubamqp", "mqttdevice"},
	"e2e":                     {},
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
