package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
)

func deviceConfiguration(id, target string, priority int, content map[string]string) hub.ConfigurationSpec {
	spec := hub.ConfigurationSpec{ID: id, TargetCondition: target, Priority: priority}
	spec.Content.Device = make(map[string]json.RawMessage)
	for path, value := range content {
		spec.Content.Device["properties.desired."+path] = json.RawMessage(value)
	}
	return spec
}

func putConfiguration(t testing.TB, s *hub.Server, spec hub.ConfigurationSpec, m hub.Match) hub.Configuration {
	t.Helper()
	c, err := s.PutConfiguration(spec, m)
	if err != nil {
		t.Fatalf("put configuration %s: %v", spec.ID, err)
	}
	return c
}

func setTags(t testing.TB, s *hub.Server, id hub.ID, tags string) {
	t.Helper()
	if _, err := s.PatchTwin(id, hub.TwinChange{Tags: json.RawMessage(tags)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
}

// configured returns the desired properties and the configurations of a twin
// once all configurations have been applied.
func configured(t testing.TB, s *hub.Server, id hub.ID) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.WaitConfigurations(ctx); err != nil {
		t.Fatal(err)
	}
	v, err := s.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := v.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	properties := make(map[string]any)
	numbers := json.NewDecoder(strings.NewReader(gjson.GetBytes(doc, "properties.desired").Raw))
	numbers.UseNumber()
	if err := numbers.Decode(&properties); err != nil {
		t.Fatal(err)
	}
	delete(properties, "$metadata")
	delete(properties, "$version")
	desired, err := json.Marshal(properties)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %s", desired, gjson.GetBytes(doc, "configurations").Raw)
}

func wantConfigured(t testing.TB, s *hub.Server, id hub.ID, want string) {
	t.Helper()
	if diff := cmp.Diff(want, configured(t, s, id)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", id, diff)
	}
}

func TestConfigurationFollowsTwinsAndConditions(t *testing.T) {
	s := newServer(t, hub.Options{})
	north, south := hub.ID{Device: "north-1"}, hub.ID{Device: "south-1"}
	create(t, s, north, hub.IdentitySpec{})
	create(t, s, south, hub.IdentitySpec{})
	setTags(t, s, north, `{"site":"north"}`)
	if _, err := s.PatchTwin(north, hub.TwinChange{Desired: json.RawMessage(`{"own":1,"a":{"own":2}}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}

	spec := deviceConfiguration("cfg", "tags.site = 'north'", 1, map[string]string{"a.rate": "10", "mode": `"eco"`})
	c := putConfiguration(t, s, spec, hub.Match{})
	wantConfigured(t, s, north, `{"a":{"own":2,"rate":10},"mode":"eco","own":1} {"cfg":{"status":"Applied"}}`)
	wantConfigured(t, s, south, `{} `)

	// A twin comes into the scope, one leaves it, and a new device is in it.
	setTags(t, s, south, `{"site":"north"}`)
	wantConfigured(t, s, south, `{"a":{"rate":10},"mode":"eco"} {"cfg":{"status":"Applied"}}`)
	setTags(t, s, north, `{"site":"west"}`)
	wantConfigured(t, s, north, `{"a":{"own":2},"own":1} `)
	// What was set by hand is set back.
	if _, err := s.PatchTwin(south, hub.TwinChange{Desired: json.RawMessage(`{"mode":"full"}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wantConfigured(t, s, south, `{"a":{"rate":10},"mode":"eco"} {"cfg":{"status":"Applied"}}`)

	// The condition changes, and the configuration ends.
	spec.TargetCondition = "tags.site = 'west'"
	putConfiguration(t, s, spec, hub.Match{ETag: c.ETag()})
	wantConfigured(t, s, south, `{} `)
	wantConfigured(t, s, north, `{"a":{"own":2,"rate":10},"mode":"eco","own":1} {"cfg":{"status":"Applied"}}`)
	if err := s.DeleteConfiguration("cfg", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wantConfigured(t, s, north, `{"a":{"own":2},"own":1} `)
}

func TestConfigurationsOfHigherPriorityCount(t *testing.T) {
	s := newServer(t, hub.Options{})
	id := hub.ID{Device: "dev"}
	create(t, s, id, hub.IdentitySpec{})
	putConfiguration(t, s, deviceConfiguration("high", "*", 10, map[string]string{"a": "1", "o": `{"x":1}`}), hub.Match{})
	putConfiguration(t, s, deviceConfiguration("low", "*", 5, map[string]string{"a": "2", "b": "2", "o.y": "2"}), hub.Match{})
	putConfiguration(t, s, deviceConfiguration("lowest", "*", 1, map[string]string{"a": "3"}), hub.Match{})
	putConfiguration(t, s, deviceConfiguration("newer", "*", 10, map[string]string{"c": "4", "a": "4"}), hub.Match{})
	putConfiguration(t, s, deviceConfiguration("nobody", "", 99, map[string]string{"a": "5"}), hub.Match{})
	wantConfigured(t, s, id, `{"a":4,"b":2,"c":4,"o":{"x":1,"y":2}} `+
		`{"high":{"status":"Applied"},"low":{"status":"Applied"},"lowest":{"status":"Targeted"},"newer":{"status":"Applied"}}`)
	for _, name := range []string{"newer", "high", "low"} {
		if err := s.DeleteConfiguration(name, hub.Match{Any: true}); err != nil {
			t.Fatal(err)
		}
	}
	wantConfigured(t, s, id, `{"a":3} {"lowest":{"status":"Applied"}}`)
}

func TestConfigurationOfModules(t *testing.T) {
	s := newServer(t, hub.Options{})
	create(t, s, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	id := hub.ID{Device: "dev", Module: "camera"}
	create(t, s, id, hub.IdentitySpec{})
	spec := hub.ConfigurationSpec{ID: "cfg", TargetCondition: "FROM devices.modules WHERE moduleId = 'camera'", Content: hub.ConfigurationContent{
		Module: map[string]json.RawMessage{"properties.desired.fps": json.RawMessage("25")},
	}}
	putConfiguration(t, s, spec, hub.Match{})
	wantConfigured(t, s, id, `{"fps":25} {"cfg":{"status":"Applied"}}`)
	wantConfigured(t, s, hub.ID{Device: "dev"}, `{} `)
}

func TestConfigurationReachesAConnectedDevice(t *testing.T) {
	h := hubtest.New(t)
	d := dialTLS(t, h)
	d.connect(h.Device("dev"), cleanSession)
	d.subscribe(0, "$iothub/twin/PATCH/properties/desired/#")
	putConfiguration(t, h.Server, deviceConfiguration("cfg", "deviceId = 'dev'", 1, map[string]string{"rate": "1.50"}), hub.Match{})
	d.wantPublish("$iothub/twin/PATCH/properties/desired/?$version=2", `{"rate":1.50,"$version":2}`)
	// What changes nothing tells nothing: the next notice is of the next change.
	setTags(t, h.Server, hub.ID{Device: "dev"}, `{"x":1}`)
	if err := h.DeleteConfiguration("cfg", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	p := receive[*packets.PublishPacket](d)
	if got := string(p.Payload); got != `{"rate":null,"$version":3}` {
		t.Errorf("the device is told %s", got)
	}
}

func TestConfigurationsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	s := newServer(t, hub.Options{Data: dir})
	id := hub.ID{Device: "dev"}
	create(t, s, id, hub.IdentitySpec{})
	spec := deviceConfiguration("cfg", "*", 1, map[string]string{"a": "1"})
	putConfiguration(t, s, spec, hub.Match{})
	wantConfigured(t, s, id, `{"a":1} {"cfg":{"status":"Applied"}}`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newServer(t, hub.Options{Data: dir})
	if err := s.DeleteConfiguration("cfg", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wantConfigured(t, s, id, `{} `)
}

func TestConfigurationIsTakenBackAfterAKill(t *testing.T) {
	dir := t.TempDir()
	s := newServer(t, hub.Options{Data: dir})
	id, module := hub.ID{Device: "dev"}, hub.ID{Device: "dev", Module: "m"}
	create(t, s, id, hub.IdentitySpec{})
	create(t, s, module, hub.IdentitySpec{})
	putConfiguration(t, s, deviceConfiguration("cfg", "*", 1, map[string]string{"a": "1"}), hub.Match{})
	modules := hub.ConfigurationSpec{ID: "modules", TargetCondition: "from devices.modules where moduleId = 'm'"}
	modules.Content.Module = map[string]json.RawMessage{"properties.desired.b": json.RawMessage("2")}
	putConfiguration(t, s, modules, hub.Match{})
	wantConfigured(t, s, id, `{"a":1} {"cfg":{"status":"Applied"}}`)
	wantConfigured(t, s, module, `{"b":2} {"modules":{"status":"Applied"}}`)
	for _, id := range []string{"cfg", "modules"} {
		if err := s.DeleteConfigurationAndDie(id); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newServer(t, hub.Options{Data: dir})
	wantConfigured(t, s, id, `{} `)
	wantConfigured(t, s, module, `{} `)
}

func TestConfigurationsAreRefused(t *testing.T) {
	s := newServer(t, hub.Options{})
	good := func() hub.ConfigurationSpec { return deviceConfiguration("cfg", "*", 1, map[string]string{"a": "1"}) }
	c := putConfiguration(t, s, good(), hub.Match{})
	for name, tt := range map[string]struct {
		change func(*hub.ConfigurationSpec)
		match  hub.Match
		want   error
	}{
		"an id in upper case":      {func(c *hub.ConfigurationSpec) { c.ID = "Cfg" }, hub.Match{}, hub.ErrArgumentInvalid},
		"an id that is there":      {func(*hub.ConfigurationSpec) {}, hub.Match{}, hub.ErrConfigurationAlreadyExists},
		"another etag":             {func(*hub.ConfigurationSpec) {}, hub.Match{ETag: "Mg=="}, hub.ErrPreconditionFailed},
		"an update of none":        {func(c *hub.ConfigurationSpec) { c.ID = "none" }, hub.Match{Any: true}, hub.ErrConfigurationNotFound},
		"other content":            {func(c *hub.ConfigurationSpec) { c.Content.Device["properties.desired.a"] = json.RawMessage("2") }, hub.Match{ETag: c.ETag()}, hub.ErrConfigurationImmutable},
		"no content":               {func(c *hub.ConfigurationSpec) { c.Content = hub.ConfigurationContent{} }, hub.Match{}, hub.ErrConfigurationContent},
		"a reported property":      {func(c *hub.ConfigurationSpec) { c.Content.Device["properties.reported.a"] = json.RawMessage("2") }, hub.Match{}, hub.ErrConfigurationContent},
		"a path with a hole":       {func(c *hub.ConfigurationSpec) { c.Content.Device["properties.desired.a..b"] = json.RawMessage("2") }, hub.Match{}, hub.ErrConfigurationContent},
		"a condition with a fault": {func(c *hub.ConfigurationSpec) { c.TargetCondition = "tags.a =" }, hub.Match{}, hub.ErrConfigurationTarget},
		"a condition of modules":   {func(c *hub.ConfigurationSpec) { c.TargetCondition = "from devices.modules where a = 1" }, hub.Match{}, hub.ErrConfigurationTarget},
		"six metrics": {func(c *hub.ConfigurationSpec) {
			c.Metrics = map[string]string{"1": "", "2": "", "3": "", "4": "", "5": "", "6": ""}
		}, hub.Match{}, hub.ErrConfigurationMetrics},
	} {
		t.Run(name, func(t *testing.T) {
			spec := good()
			tt.change(&spec)
			if _, err := s.PutConfiguration(spec, tt.match); !errors.Is(err, tt.want) {
				t.Errorf("PutConfiguration: %v, want %v", err, tt.want)
			}
		})
	}
	if err := s.DeleteConfiguration("cfg", hub.Match{ETag: "Mg=="}); !errors.Is(err, hub.ErrPreconditionFailed) {
		t.Errorf("delete with another etag: %v, want %v", err, hub.ErrPreconditionFailed)
	}
	if err := s.DeleteConfiguration("none", hub.Match{}); !errors.Is(err, hub.ErrConfigurationNotFound) {
		t.Errorf("delete of none: %v, want %v", err, hub.ErrConfigurationNotFound)
	}
}
