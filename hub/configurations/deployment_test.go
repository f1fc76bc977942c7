package configurations_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func moduleNames(t testing.TB, s *node.Node, device string) (names []string) {
	t.Helper()
	modules, err := s.Modules(device)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		names = append(names, m.Module)
	}
	return names
}

func wantModules(t testing.TB, s *node.Node, device string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{"$edgeAgent", "$edgeHub"}, want...), moduleNames(t, s, device)); diff != "" {
		t.Errorf("modules of %s (-want +got):\n%s", device, diff)
	}
}

func TestDeploymentsOfEdgeDevices(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	wiretest.Create(t, s, hub.ID{Device: "edge"}, hub.IdentitySpec{IoTEdge: true})
	wiretest.Create(t, s, hub.ID{Device: "plain"}, hub.IdentitySpec{})
	agent, edgeHub := hub.ID{Device: "edge", Module: "$edgeAgent"}, hub.ID{Device: "edge", Module: "$edgeHub"}
	setTags(t, s, agent, `{"kept":true}`)
	if _, err := s.PatchTwin(edgeHub, hub.TwinChange{Desired: json.RawMessage(`{"own":1}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}

	wiretest.PutConfiguration(t, s, wiretest.EdgeDeployment(t, "base", "*", 5, wiretest.BaseDeployment("filter")), hub.Match{})
	wiretest.WantConfigured(t, s, agent, `{"modules":{"filter":{"type":"docker"}},"schemaVersion":"1.1"} {"base":{"status":"Applied"}}`)
	wiretest.WantConfigured(t, s, edgeHub, `{"routes":{}} {"base":{"status":"Applied"}}`) // all properties are replaced
	wiretest.WantConfigured(t, s, hub.ID{Device: "edge"}, `{} `)
	wantModules(t, s, "edge", "filter")
	if m, err := s.Identity(hub.ID{Device: "edge", Module: "filter"}); err != nil || m.ManagedBy == nil || *m.ManagedBy != "IotEdge" {
		t.Errorf("the module that was made: %+v, %v", m, err)
	}
	if got := moduleNames(t, s, "plain"); got != nil {
		t.Errorf("a device that is no IoT Edge device has modules %v", got)
	}

	// A base of a higher priority takes the place of the other, and does not merge with it.
	wiretest.PutConfiguration(t, s, wiretest.EdgeDeployment(t, "better", "tags.site = 'north'", 7, wiretest.BaseDeployment("camera")), hub.Match{})
	setTags(t, s, hub.ID{Device: "edge"}, `{"site":"north"}`)
	wiretest.WantConfigured(t, s, agent, `{"modules":{"camera":{"type":"docker"}},"schemaVersion":"1.1"} {"base":{"status":"Targeted"},"better":{"status":"Applied"}}`)
	wantModules(t, s, "edge", "camera")

	// Layers need a higher priority than the base that counts.
	layered := func(id string, priority int, content string) {
		t.Helper()
		wiretest.PutConfiguration(t, s, wiretest.EdgeDeployment(t, id, "*", priority, content), hub.Match{})
	}
	layered("low", 7, `{"$edgeAgent":{"properties.desired.modules.low":{"type":"docker"}}}`)
	layered("high", 8, `{"$edgeAgent":{"properties.desired.modules.audio":{"type":"docker"},"properties.desired.modules.camera":{"image":"v2"}},"audio":{"properties.desired.level":1}}`)
	layered("higher", 9, `{"$edgeAgent":{"properties.desired.modules.audio":{"image":"v3"}},"$edgeHub":{"properties.desired.routes.up":"FROM /* INTO $upstream"}}`)
	statuses := `{"base":{"status":"Targeted"},"better":{"status":"Applied"},"high":{"status":"Applied"},"higher":{"status":"Applied"},"low":{"status":"Targeted"}}`
	wiretest.WantConfigured(t, s, agent, `{"modules":{"audio":{"image":"v3"},"camera":{"image":"v2"}},"schemaVersion":"1.1"} `+statuses)
	wiretest.WantConfigured(t, s, edgeHub, `{"routes":{"up":"FROM /* INTO $upstream"}} {"base":{"status":"Targeted"},"better":{"status":"Applied"},"higher":{"status":"Applied"}}`)
	wiretest.WantConfigured(t, s, hub.ID{Device: "edge", Module: "audio"}, `{"level":1} {"high":{"status":"Applied"}}`)
	wantModules(t, s, "edge", "audio", "camera")

	// What is written by hand is set back, and a module that was deleted comes again.
	if _, err := s.PatchTwin(edgeHub, hub.TwinChange{Desired: json.RawMessage(`{"own":1}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.WantConfigured(t, s, edgeHub, `{"routes":{"up":"FROM /* INTO $upstream"}} {"base":{"status":"Targeted"},"better":{"status":"Applied"},"higher":{"status":"Applied"}}`)
	if err := s.DeleteIdentity(hub.ID{Device: "edge", Module: "audio"}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.WantConfigured(t, s, agent, `{"modules":{"audio":{"image":"v3"},"camera":{"image":"v2"}},"schemaVersion":"1.1"} `+statuses)
	wiretest.WantConfigured(t, s, hub.ID{Device: "edge", Module: "audio"}, `{"level":1} {"high":{"status":"Applied"}}`)

	// The device leaves the better base, above which are all layers then.
	setTags(t, s, hub.ID{Device: "edge"}, `{"site":null}`)
	wiretest.WantConfigured(t, s, agent, `{"modules":{"audio":{"image":"v3"},"camera":{"image":"v2"},"filter":{"type":"docker"},"low":{"type":"docker"}},"schemaVersion":"1.1"} `+
		`{"base":{"status":"Applied"},"high":{"status":"Applied"},"higher":{"status":"Applied"},"low":{"status":"Applied"}}`)
	wantModules(t, s, "edge", "audio", "camera", "filter", "low")
	for _, id := range []string{"low", "higher", "better"} {
		if err := s.Configurations.Delete(id, hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	wiretest.WantConfigured(t, s, agent, `{"modules":{"audio":{"type":"docker"},"camera":{"image":"v2"},"filter":{"type":"docker"}},"schemaVersion":"1.1"} {"base":{"status":"Applied"},"high":{"status":"Applied"}}`)
	wantModules(t, s, "edge", "audio", "camera", "filter")

	// Without a base nothing applies, and the modules stay as they are.
	for _, id := range []string{"base", "high"} {
		if err := s.Configurations.Delete(id, hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	wiretest.WantConfigured(t, s, agent, `{"modules":{"audio":{"type":"docker"},"camera":{"image":"v2"},"filter":{"type":"docker"}},"schemaVersion":"1.1"} `)
	wiretest.WantConfigured(t, s, hub.ID{Device: "edge", Module: "audio"}, `{"level":1} `)
	wantModules(t, s, "edge", "audio", "camera", "filter")
}

func TestDeploymentChangesNothingTwice(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	wiretest.Create(t, s, hub.ID{Device: "edge"}, hub.IdentitySpec{IoTEdge: true})
	agent := hub.ID{Device: "edge", Module: "$edgeAgent"}
	wiretest.PutConfiguration(t, s, wiretest.EdgeDeployment(t, "base", "*", 5,
		`{"$edgeAgent":{"properties.desired":{"$version":7,"$metadata":{"a":1},"schemaVersion":"1.1","none":null,"modules":{"m":{"none":null}}}}}`), hub.Match{})
	const want = `{"modules":{"m":{}},"schemaVersion":"1.1"} {"base":{"status":"Applied"}}`
	wiretest.WantConfigured(t, s, agent, want)
	before, err := s.Twin(agent)
	if err != nil {
		t.Fatal(err)
	}
	setTags(t, s, hub.ID{Device: "edge"}, `{"x":1}`)
	wiretest.WantConfigured(t, s, agent, want)
	after, err := s.Twin(agent)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := before.MarshalJSON()
	b, _ := after.MarshalJSON()
	if diff := cmp.Diff(string(a), string(b)); diff != "" {
		t.Errorf("the twin of $edgeAgent has changed (-before +after):\n%s", diff)
	}
}

func TestDeploymentThatDoesNotFitOnADevice(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	wiretest.Create(t, s, hub.ID{Device: "edge"}, hub.IdentitySpec{IoTEdge: true})
	for n := range 47 {
		wiretest.Create(t, s, hub.ID{Device: "edge", Module: fmt.Sprint("own-", n)}, hub.IdentitySpec{})
	}
	agent := hub.ID{Device: "edge", Module: "$edgeAgent"}
	wiretest.PutConfiguration(t, s, wiretest.EdgeDeployment(t, "base", "*", 5, wiretest.BaseDeployment("a", "b")), hub.Match{})
	wiretest.WantConfigured(t, s, agent, `{} {"base":{"status":"Targeted"}}`)
	setTags(t, s, agent, `{"x":1}`)
	wiretest.WantConfigured(t, s, agent, `{} {"base":{"status":"Targeted"}}`)
	if got := len(moduleNames(t, s, "edge")); got != 49 {
		t.Errorf("the device has %d modules, want 49", got)
	}
	// As soon as there is room it applies.
	if err := s.DeleteIdentity(hub.ID{Device: "edge", Module: "own-7"}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.WantConfigured(t, s, agent, `{"modules":{"a":{"type":"docker"},"b":{"type":"docker"}},"schemaVersion":"1.1"} {"base":{"status":"Applied"}}`)
	if got := len(moduleNames(t, s, "edge")); got != 50 {
		t.Errorf("the device has %d modules, want 50", got)
	}
}

func TestDeploymentMetrics(t *testing.T) {
	hubtest.OneNode(t, "a module reports without a connection")
	h := wiretest.StartREST(t, node.Options{})
	wiretest.Create(t, h.Node, hub.ID{Device: "edge"}, hub.IdentitySpec{IoTEdge: true})
	wiretest.Create(t, h.Node, hub.ID{Device: "edge-2"}, hub.IdentitySpec{IoTEdge: true})
	wiretest.Create(t, h.Node, hub.ID{Device: "plain"}, hub.IdentitySpec{})
	agent := hub.ID{Device: "edge", Module: "$edgeAgent"}
	results := func(want string) {
		t.Helper()
		wait := wiretest.Configured(t, h.Node, agent)
		if got := gjson.Get(h.Do(wiretest.Call{Method: "GET", Path: "/configurations/base"}).Want(t, 200, "").Body, "systemMetrics.results").Raw; got != want {
			t.Errorf("system metrics are %s, want %s; $edgeAgent is %s", got, want, wait)
		}
	}
	h.Do(wiretest.Call{Method: "PUT", Path: "/configurations/base", Body: `{"id":"base","priority":5,"targetCondition":"*","content":{"modulesContent":` + wiretest.BaseDeployment("m") + `}}`}).Want(t, 200, "")
	results(`{"appliedCount":2,"reportedFailedCount":0,"reportedSuccessfulCount":0,"targetedCount":2}`)
	report := func(version, code int) {
		t.Helper()
		if _, err := h.PatchReported(agent, fmt.Appendf(nil, `{"lastDesiredVersion":%d,"lastDesiredStatus":{"code":%d}}`, version, code), hub.AnyVersion); err != nil {
			t.Fatal(err)
		}
	}
	report(2, 200)
	results(`{"appliedCount":2,"reportedFailedCount":0,"reportedSuccessfulCount":1,"targetedCount":2}`)
	report(2, 417)
	results(`{"appliedCount":2,"reportedFailedCount":1,"reportedSuccessfulCount":0,"targetedCount":2}`)
	report(1, 417) // of an older version
	results(`{"appliedCount":2,"reportedFailedCount":0,"reportedSuccessfulCount":0,"targetedCount":2}`)
	h.Do(wiretest.Call{Method: "PUT", Path: "/configurations/base", Header: map[string]string{"If-Match": "*"},
		Body: `{"id":"base","priority":5,"targetCondition":"deviceId = 'edge' or deviceId = 'plain'","content":{"modulesContent":` + wiretest.BaseDeployment("m") + `}}`}).Want(t, 200, "")
	results(`{"appliedCount":1,"reportedFailedCount":0,"reportedSuccessfulCount":0,"targetedCount":1}`)
	queries := gjson.Get(h.Do(wiretest.Call{Method: "GET", Path: "/configurations/base"}).Body, "systemMetrics.queries")
	for name, want := range map[string]string{
		"targetedCount":       "select deviceId from devices where capabilities.iotEdge = true and (deviceId = 'edge' or deviceId = 'plain')",
		"appliedCount":        "select deviceId from devices.modules where moduleId = '$edgeAgent' and configurations.[[base]].status = 'Applied'",
		"reportedFailedCount": "select deviceId from devices.modules where moduleId = '$edgeAgent' and configurations.[[base]].status = 'Applied' and properties.desired.$version = properties.reported.lastDesiredVersion and properties.reported.lastDesiredStatus.code != 200",
	} {
		if got := queries.Get(name).Str; got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestContentIsAppliedToOneDevice(t *testing.T) {
	h := hubtest.New(t)
	wiretest.Create(t, h.Node, hub.ID{Device: "edge"}, hub.IdentitySpec{IoTEdge: true})
	camera := hub.ID{Device: "edge", Module: "camera"}
	wiretest.Create(t, h.Node, hub.ID{Device: "edge", Module: "own"}, hub.IdentitySpec{})
	apply := func(modules string) {
		t.Helper()
		content := wiretest.EdgeDeployment(t, "", "", 0, modules).Content
		if err := h.Configurations.Apply("edge", content); err != nil {
			t.Fatalf("apply %s: %v", modules, err)
		}
	}
	apply(strings.TrimSuffix(wiretest.BaseDeployment("camera", "audio"), "}") + `,"camera":{"properties.desired":{"fps":25,"hdr":true}}}`)
	wantModules(t, h.Node, "edge", "audio", "camera", "own")
	wiretest.WantConfigured(t, h.Node, camera, `{"fps":25,"hdr":true} `)

	d := wiretest.DialTLS(t, h)
	d.Connect(h.Module("edge", "camera"), wiretest.CleanSession)
	d.Subscribe(0, "$iothub/twin/PATCH/properties/desired/#")
	apply(`{"camera":{"properties.desired.fps":30}}`) // merged, and nothing is deleted
	d.WantPublish("$iothub/twin/PATCH/properties/desired/?$version=3", `{"fps":30,"$version":3}`)
	wiretest.WantConfigured(t, h.Node, camera, `{"fps":30,"hdr":true} `)
	wantModules(t, h.Node, "edge", "audio", "camera", "own")
	apply(strings.TrimSuffix(wiretest.BaseDeployment("camera"), "}") + `,"camera":{"properties.desired":{"fps":5}}}`)
	d.WantPublish("$iothub/twin/PATCH/properties/desired/?$version=4", `{"fps":5,"hdr":null,"$version":4}`)
	wantModules(t, h.Node, "edge", "camera", "own")
	wiretest.WantConfigured(t, h.Node, hub.ID{Device: "edge", Module: "$edgeAgent"}, `{"modules":{"camera":{"type":"docker"}},"schemaVersion":"1.1"} `)

	// Deployments have the last word.
	wiretest.PutConfiguration(t, h.Node, wiretest.EdgeDeployment(t, "base", "*", 5, wiretest.BaseDeployment("filter")), hub.Match{})
	apply(wiretest.BaseDeployment("other"))
	wiretest.WantConfigured(t, h.Node, hub.ID{Device: "edge", Module: "$edgeAgent"}, `{"modules":{"filter":{"type":"docker"}},"schemaVersion":"1.1"} {"base":{"status":"Applied"}}`)
	wantModules(t, h.Node, "edge", "filter", "own")
}

func TestContentForOneDeviceIsRefused(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	wiretest.Create(t, h.Node, hub.ID{Device: "edge"}, hub.IdentitySpec{IoTEdge: true})
	wiretest.Create(t, h.Node, hub.ID{Device: "plain"}, hub.IdentitySpec{})
	many := make([]string, 49)
	for n := range many {
		many[n] = fmt.Sprint("m", n)
	}
	for name, tt := range map[string]struct {
		device, body string
		status       int
		code, text   string
	}{
		"no device":             {"none", `{"modulesContent":` + wiretest.BaseDeployment() + `}`, 404, "DeviceNotFound", "none"},
		"no device, no content": {"none", `{}`, 404, "DeviceNotFound", "none"},
		"no edge device":        {"plain", `{"modulesContent":` + wiretest.BaseDeployment() + `}`, 400, "InvalidConfigurationContent", "device 'plain' is not an IoT Edge device"},
		"content of devices":    {"edge", `{"deviceContent":{"properties.desired.a":1}}`, 400, "InvalidConfigurationContent", "only modulesContent can be applied to one device"},
		"no content":            {"edge", `{}`, 400, "InvalidConfigurationContent", "content needs exactly one of deviceContent, moduleContent and modulesContent"},
		"no body":               {"edge", ``, 400, "ArgumentNull", "BadRequest"},
		"no JSON":               {"edge", `{`, 400, "IotHubFormatError", "the body is not JSON: unexpected end of JSON input"},
		"a module of text":      {"edge", `{"modulesContent":{"m":"text"}}`, 400, "ArgumentInvalid", "modulesContent must not be of type string"},
		"an id that is none":    {"edge", `{"modulesContent":{"a b":{"properties.desired.a":1}}}`, 400, "InvalidConfigurationContent", "module id 'a b' is not valid"},
		"an id in $edgeAgent":   {"edge", `{"modulesContent":{"$edgeAgent":{"properties.desired":{"modules":{"a/b":{}}}}}}`, 400, "InvalidConfigurationContent", "module id 'a/b' is not valid"},
		"a reported property":   {"edge", `{"modulesContent":{"m":{"properties.reported.a":1}}}`, 400, "InvalidConfigurationContent", "module 'm': path 'properties.reported.a' must be 'properties.desired' or like 'properties.desired.interval'"},
		"properties of text":    {"edge", `{"modulesContent":{"m":{"properties.desired":"text"}}}`, 400, "InvalidConfigurationContent", "module 'm': properties.desired must be an object"},
		"a name with a blank":   {"edge", `{"modulesContent":{"m":{"properties.desired":{"a b":1}}}}`, 400, "InvalidConfigurationContent", ""},
		"too many modules":      {"edge", `{"modulesContent":` + wiretest.BaseDeployment(many...) + `}`, 400, "InvalidConfigurationContent", "an IoT Edge device has at most 50 modules"},
	} {
		t.Run(name, func(t *testing.T) {
			a := h.Do(wiretest.Call{Method: "POST", Path: "/devices/" + tt.device + "/applyConfigurationContent", Body: tt.body})
			if tt.text == "" {
				a.Want(t, tt.status, "")
				return
			}
			a.WantError(t, tt.status, tt.code, tt.text)
		})
	}
	wantModules(t, h.Node, "edge")

	wiretest.Create(t, h.Node, hub.ID{Device: "edge", Module: "own"}, hub.IdentitySpec{})
	if err := h.Configurations.Apply("edge", wiretest.EdgeDeployment(t, "", "", 0, wiretest.BaseDeployment(many[1:]...)).Content); !errors.Is(err, hub.ErrTooManyModules) {
		t.Errorf("48 modules beside one of its own: %v, want %v", err, hub.ErrTooManyModules)
	}
	wantModules(t, h.Node, "edge", "own")
}

func TestConfigurationIsNamedInMetadata(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	id := hub.ID{Device: "dev"}
	wiretest.Create(t, s, id, hub.IdentitySpec{})
	if _, err := s.PatchTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"own":1,"chiller":{"own":2}}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	low := wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("low", "*", 1, map[string]string{"hum": "90", "chiller": `{"temp":66,"fan":1}`}), hub.Match{})
	high := wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("high", "*", 2, map[string]string{"chiller.temp": "67"}), hub.Match{})
	wiretest.WantConfigured(t, s, id, `{"chiller":{"fan":1,"own":2,"temp":67},"hum":90,"own":1} {"high":{"status":"Applied"},"low":{"status":"Applied"}}`)
	writer := func(path string) string {
		t.Helper()
		v, err := s.Twin(id)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := v.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		node := gjson.GetBytes(doc, "properties.desired.$metadata").Get(path)
		if !node.Exists() {
			t.Fatalf("%s has no metadata: %s", path, doc)
		}
		return strings.TrimSpace(node.Get("$lastUpdatedBy").Str + " " + node.Get("$lastUpdatedByDigest").Str)
	}
	digest := func(c configurations.Configuration) string {
		return fmt.Sprintf("%s %d", c.ID, 621_355_968_000_000_000+c.Created.UnixNano()/100)
	}
	for path, want := range map[string]string{
		"own": "", "hum": digest(low), "chiller": "", "chiller.own": "", "chiller.fan": digest(low), "chiller.temp": digest(high),
	} {
		if got := writer(path); got != want {
			t.Errorf("%s was written by %q, want %q", path, got, want)
		}
	}
	// What somebody else writes is no longer the configuration's.
	if err := s.Configurations.Delete("low", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.WantConfigured(t, s, id, `{"chiller":{"own":2,"temp":67},"own":1} {"high":{"status":"Applied"}}`)
	if err := s.Configurations.Delete("high", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.WantConfigured(t, s, id, `{"chiller":{"own":2},"own":1} `)
}

// Each twin says for itself which deployments have set something in it, as
// issues 5023, 5299 and 4935 of Azure/iotedge show it of the service.
func TestStatusesOfLayeredDeployments(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	wiretest.Create(t, s, hub.ID{Device: "edge"}, hub.IdentitySpec{IoTEdge: true})
	put := func(id string, priority int, content string) {
		t.Helper()
		wiretest.PutConfiguration(t, s, wiretest.EdgeDeployment(t, id, "*", priority, content), hub.Match{})
	}
	want := func(module, desired string, statuses map[string]string) {
		t.Helper()
		shown := make(map[string]map[string]string)
		for id, status := range statuses {
			shown[id] = map[string]string{"status": status}
		}
		text, err := json.Marshal(shown)
		if err != nil {
			t.Fatal(err)
		}
		wiretest.WantConfigured(t, s, hub.ID{Device: "edge", Module: module}, desired+" "+string(text))
	}
	put("base", 1, wiretest.BaseDeployment("client"))

	// It changes properties of a module and needs an empty $edgeAgent.
	put("device-layer", 2, `{"$edgeAgent":{},"client":{"properties.desired.level":2}}`)
	want("client", `{"level":2}`, map[string]string{"device-layer": "Applied"})
	want("$edgeAgent", `{"modules":{"client":{"type":"docker"}},"schemaVersion":"1.1"}`, map[string]string{"base": "Applied", "device-layer": "Targeted"})
	want("$edgeHub", `{"routes":{}}`, map[string]string{"base": "Applied"})

	// Of two with the same path the newer one counts, though each has a module.
	put("app-a", 10, `{"$edgeAgent":{"properties.desired.modules":{"a":{"type":"docker"}}},"a":{"properties.desired":{"send":true}}}`)
	put("app-b", 10, `{"$edgeAgent":{"properties.desired.modules":{"b":{"type":"docker"}}},"b":{"properties.desired":{"send":true}}}`)
	want("$edgeAgent", `{"modules":{"b":{"type":"docker"}},"schemaVersion":"1.1"}`,
		map[string]string{"base": "Applied", "device-layer": "Targeted", "app-a": "Targeted", "app-b": "Applied"})
	want("a", `{"send":true}`, map[string]string{"app-a": "Applied"})

	// A path above replaces those below it, and so sets them.
	put("below", 11, `{"$edgeAgent":{"properties.desired.modules.b.version":"1.0"},"client":{"properties.desired.deep.level":1}}`)
	want("client", `{"deep":{"level":1},"level":2}`, map[string]string{"device-layer": "Applied", "below": "Applied"})
	put("above", 12, `{"$edgeAgent":{"properties.desired.modules.b":{"type":"docker"}},"client":{"properties.desired":{"x":1}}}`)
	want("$edgeAgent", `{"modules":{"b":{"type":"docker"}},"schemaVersion":"1.1"}`,
		map[string]string{"base": "Applied", "device-layer": "Targeted", "app-a": "Targeted", "app-b": "Applied", "below": "Targeted", "above": "Applied"})
	want("client", `{"x":1}`, map[string]string{"device-layer": "Targeted", "below": "Targeted", "above": "Applied"})

	// A configuration for modules is merged into what deployments set, and the
	// other way round has nothing to say.
	modules := func(id string, priority int, desired string) {
		t.Helper()
		spec := configurations.Spec{ID: id, Priority: priority, TargetCondition: "from devices.modules where moduleId = 'client'"}
		spec.Content.Module = map[string]json.RawMessage{"properties.desired": json.RawMessage(desired)}
		wiretest.PutConfiguration(t, s, spec, hub.Match{})
	}
	modules("over", 13, `{"y":2}`)
	modules("under", 5, `{"z":3}`)
	want("client", `{"x":1,"y":2}`, map[string]string{"device-layer": "Targeted", "below": "Targeted", "above": "Applied", "over": "Applied", "under": "Targeted"})
	for _, id := range []string{"above", "over", "app-b"} {
		if err := s.Configurations.Delete(id, hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	want("$edgeAgent", `{"modules":{"a":{"type":"docker"},"b":{"version":"1.0"}},"schemaVersion":"1.1"}`,
		map[string]string{"base": "Applied", "device-layer": "Targeted", "app-a": "Applied", "below": "Applied"})
	want("client", `{"deep":{"level":1},"level":2,"z":3}`, map[string]string{"device-layer": "Applied", "below": "Applied", "under": "Applied"})
}
