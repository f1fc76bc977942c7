package configurations_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func setTags(t testing.TB, s *node.Node, id hub.ID, tags string) {
	t.Helper()
	if _, err := s.PatchTwin(id, hub.TwinChange{Tags: json.RawMessage(tags)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
}

func TestConfigurationFollowsTwinsAndConditions(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	north, south := hub.ID{Device: "north-1"}, hub.ID{Device: "south-1"}
	wiretest.Create(t, s, north, hub.IdentitySpec{})
	wiretest.Create(t, s, south, hub.IdentitySpec{})
	setTags(t, s, north, `{"site":"north"}`)
	if _, err := s.PatchTwin(north, hub.TwinChange{Desired: json.RawMessage(`{"own":1,"a":{"own":2}}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}

	spec := wiretest.DeviceConfiguration("cfg", "tags.site = 'north'", 1, map[string]string{"a.rate": "10", "mode": `"eco"`})
	c := wiretest.PutConfiguration(t, s, spec, hub.Match{})
	wiretest.WantConfigured(t, s, north, `{"a":{"own":2,"rate":10},"mode":"eco","own":1} {"cfg":{"status":"Applied"}}`)
	wiretest.WantConfigured(t, s, south, `{} `)

	// A twin comes into the scope, one leaves it, and a new device is in it.
	setTags(t, s, south, `{"site":"north"}`)
	wiretest.WantConfigured(t, s, south, `{"a":{"rate":10},"mode":"eco"} {"cfg":{"status":"Applied"}}`)
	setTags(t, s, north, `{"site":"west"}`)
	wiretest.WantConfigured(t, s, north, `{"a":{"own":2},"own":1} `)
	// What was set by hand is set back.
	if _, err := s.PatchTwin(south, hub.TwinChange{Desired: json.RawMessage(`{"mode":"full"}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.WantConfigured(t, s, south, `{"a":{"rate":10},"mode":"eco"} {"cfg":{"status":"Applied"}}`)

	// The condition changes, and the configuration ends.
	spec.TargetCondition = "tags.site = 'west'"
	wiretest.PutConfiguration(t, s, spec, hub.Match{ETag: c.ETag()})
	wiretest.WantConfigured(t, s, south, `{} `)
	wiretest.WantConfigured(t, s, north, `{"a":{"own":2,"rate":10},"mode":"eco","own":1} {"cfg":{"status":"Applied"}}`)
	if err := s.Configurations.Delete("cfg", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.WantConfigured(t, s, north, `{"a":{"own":2},"own":1} `)
}

func TestConfigurationsOfHigherPriorityCount(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	id := hub.ID{Device: "dev"}
	wiretest.Create(t, s, id, hub.IdentitySpec{})
	wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("high", "*", 10, map[string]string{"a": "1", "o": `{"x":1}`}), hub.Match{})
	wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("low", "*", 5, map[string]string{"a": "2", "b": "2", "o.y": "2"}), hub.Match{})
	wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("lowest", "*", 1, map[string]string{"a": "3"}), hub.Match{})
	wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("newer", "*", 10, map[string]string{"c": "4", "a": "4"}), hub.Match{})
	wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("nobody", "", 99, map[string]string{"a": "5"}), hub.Match{})
	wiretest.WantConfigured(t, s, id, `{"a":4,"b":2,"c":4,"o":{"x":1,"y":2}} `+
		`{"high":{"status":"Applied"},"low":{"status":"Applied"},"lowest":{"status":"Targeted"},"newer":{"status":"Applied"}}`)
	for _, name := range []string{"newer", "high", "low"} {
		if err := s.Configurations.Delete(name, hub.Match{Any: true}); err != nil {
			t.Fatal(err)
		}
	}
	wiretest.WantConfigured(t, s, id, `{"a":3} {"lowest":{"status":"Applied"}}`)
}

// The tests of the Node SDK set all properties at once, of devices and modules.
// They are merged into what is there, and only they are taken back.
func TestConfigurationOfAllProperties(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	id, module := hub.ID{Device: "dev"}, hub.ID{Device: "dev", Module: "m"}
	wiretest.Create(t, s, id, hub.IdentitySpec{})
	wiretest.Create(t, s, module, hub.IdentitySpec{})
	for _, id := range []hub.ID{id, module} {
		if _, err := s.PatchTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"own":1,"o":{"own":2},"old":3,"prop1":"before"}`)}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	const all = `{"prop1":"foo","o":{"x":1,"deep":{"y":[2]}},"old":null,"empty":{}}`
	spec := wiretest.DeviceConfiguration("all", "*", 20, map[string]string{"": all})
	c := wiretest.PutConfiguration(t, s, spec, hub.Match{})
	modules := configurations.Spec{ID: "modules", TargetCondition: "from devices.modules where moduleId = 'm'"}
	modules.Content.Module = map[string]json.RawMessage{"properties.desired": json.RawMessage(all)}
	wiretest.PutConfiguration(t, s, modules, hub.Match{})
	const merged = `{"empty":{},"o":{"deep":{"y":[2]},"own":2,"x":1},"own":1,"prop1":"foo"}`
	wiretest.WantConfigured(t, s, id, merged+` {"all":{"status":"Applied"}}`)
	wiretest.WantConfigured(t, s, module, merged+` {"modules":{"status":"Applied"}}`)
	spec.Priority = 99
	wiretest.PutConfiguration(t, s, spec, hub.Match{ETag: c.ETag()})

	// Of two that set all, one counts; those with paths of their own count beside it.
	wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("lower", "*", 10, map[string]string{"": `{"prop2":"bar"}`}), hub.Match{})
	wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("path", "*", 10, map[string]string{"o.x": "5", "o.z": "6"}), hub.Match{})
	wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("above", "*", 100, map[string]string{"o.deep": "7"}), hub.Match{})
	wiretest.WantConfigured(t, s, id, `{"empty":{},"o":{"deep":7,"own":2,"x":1,"z":6},"own":1,"prop1":"foo"} `+
		`{"above":{"status":"Applied"},"all":{"status":"Applied"},"lower":{"status":"Targeted"},"path":{"status":"Applied"}}`)

	// What an operator sets beside them stays when they are gone.
	if _, err := s.PatchTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"empty":{"mine":1},"o":{"mine":2},"mine":3,"prop1":"mine"}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"above", "all"} {
		if err := s.Configurations.Delete(name, hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	wiretest.WantConfigured(t, s, id, `{"empty":{"mine":1},"mine":3,"o":{"mine":2,"own":2,"x":5,"z":6},"own":1,"prop2":"bar"} `+
		`{"lower":{"status":"Applied"},"path":{"status":"Applied"}}`)
	for _, name := range []string{"lower", "path", "modules"} {
		if err := s.Configurations.Delete(name, hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	wiretest.WantConfigured(t, s, id, `{"empty":{"mine":1},"mine":3,"o":{"mine":2,"own":2},"own":1} `)
	wiretest.WantConfigured(t, s, module, `{"o":{"own":2},"own":1} `)
}

// Two configurations set an object, an operator a property beside theirs. The
// operator's stays when the last of them is gone.
func TestWhatAnOperatorSetsBesideAConfigurationStays(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	id := hub.ID{Device: "dev"}
	wiretest.Create(t, s, id, hub.IdentitySpec{})
	wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("low", "*", 1, map[string]string{"chiller": `{"temp":66,"fan":1}`}), hub.Match{})
	wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("high", "*", 2, map[string]string{"chiller": `{"temp":67,"hum":90}`}), hub.Match{})
	if _, err := s.PatchTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"chiller":{"mine":1}}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.WantConfigured(t, s, id, `{"chiller":{"hum":90,"mine":1,"temp":67}} {"high":{"status":"Applied"},"low":{"status":"Targeted"}}`)
	if err := s.Configurations.Delete("high", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.WantConfigured(t, s, id, `{"chiller":{"fan":1,"mine":1,"temp":66}} {"low":{"status":"Applied"}}`)
	if err := s.Configurations.Delete("low", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.WantConfigured(t, s, id, `{"chiller":{"mine":1}} `)
}

// An older hub remembered no more than the paths of the content.
func TestSettingsOfAnOlderHub(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	live, gone := hub.ID{Device: "live"}, hub.ID{Device: "gone"}
	for _, id := range []hub.ID{live, gone} {
		wiretest.Create(t, s, id, hub.IdentitySpec{})
	}
	wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("cfg", "deviceId = 'live'", 1, map[string]string{"a": `{"rate":10}`}), hub.Match{})
	wiretest.WantConfigured(t, s, live, `{"a":{"rate":10}} {"cfg":{"status":"Applied"}}`)
	for _, id := range []hub.ID{live, gone} {
		if err := s.Configurations.RememberAsAnOlderHub(id, "properties.desired.a", "properties.desired.b"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PatchTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"a":{"mine":1,"rate":10},"b":2,"c":3}`)}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	wiretest.WantConfigured(t, s, live, `{"a":{"mine":1,"rate":10},"c":3} {"cfg":{"status":"Applied"}}`)
	wiretest.WantConfigured(t, s, gone, `{"c":3} `)
	if err := s.Configurations.Delete("cfg", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.WantConfigured(t, s, live, `{"a":{"mine":1},"c":3} `)
}

func TestConfigurationOfModules(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	wiretest.Create(t, s, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	id := hub.ID{Device: "dev", Module: "camera"}
	wiretest.Create(t, s, id, hub.IdentitySpec{})
	spec := configurations.Spec{ID: "cfg", TargetCondition: "FROM devices.modules WHERE moduleId = 'camera'", Content: configurations.Content{
		Module: map[string]json.RawMessage{"properties.desired.fps": json.RawMessage("25")},
	}}
	wiretest.PutConfiguration(t, s, spec, hub.Match{})
	wiretest.WantConfigured(t, s, id, `{"fps":25} {"cfg":{"status":"Applied"}}`)
	wiretest.WantConfigured(t, s, hub.ID{Device: "dev"}, `{} `)
}

func TestConfigurationReachesAConnectedDevice(t *testing.T) {
	h := hubtest.New(t)
	d := wiretest.DialTLS(t, h)
	d.Connect(h.Device("dev"), wiretest.CleanSession)
	d.Subscribe(0, "$iothub/twin/PATCH/properties/desired/#")
	wiretest.PutConfiguration(t, h.Node, wiretest.DeviceConfiguration("cfg", "deviceId = 'dev'", 1, map[string]string{"rate": "1.50"}), hub.Match{})
	d.WantPublish("$iothub/twin/PATCH/properties/desired/?$version=2", `{"rate":1.50,"$version":2}`)
	// What changes nothing tells nothing: the next notice is of the next change.
	setTags(t, h.Node, hub.ID{Device: "dev"}, `{"x":1}`)
	if err := h.Configurations.Delete("cfg", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	p := wiretest.Receive[*packets.PublishPacket](d)
	if got := string(p.Payload); got != `{"rate":null,"$version":3}` {
		t.Errorf("the device is told %s", got)
	}
}

func TestConfigurationsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	s := wiretest.NewNode(t, node.Options{Storage: node.Folder(dir)})
	id := hub.ID{Device: "dev"}
	wiretest.Create(t, s, id, hub.IdentitySpec{})
	spec := wiretest.DeviceConfiguration("cfg", "*", 1, map[string]string{"a": "1"})
	wiretest.PutConfiguration(t, s, spec, hub.Match{})
	wiretest.WantConfigured(t, s, id, `{"a":1} {"cfg":{"status":"Applied"}}`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = wiretest.NewNode(t, node.Options{Storage: node.Folder(dir)})
	if err := s.Configurations.Delete("cfg", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wiretest.WantConfigured(t, s, id, `{} `)
}

func TestConfigurationIsTakenBackAfterAKill(t *testing.T) {
	dir := t.TempDir()
	s := wiretest.NewNode(t, node.Options{Storage: node.Folder(dir)})
	id, module := hub.ID{Device: "dev"}, hub.ID{Device: "dev", Module: "m"}
	wiretest.Create(t, s, id, hub.IdentitySpec{})
	wiretest.Create(t, s, module, hub.IdentitySpec{})
	wiretest.PutConfiguration(t, s, wiretest.DeviceConfiguration("cfg", "*", 1, map[string]string{"a": "1"}), hub.Match{})
	modules := configurations.Spec{ID: "modules", TargetCondition: "from devices.modules where moduleId = 'm'"}
	modules.Content.Module = map[string]json.RawMessage{"properties.desired.b": json.RawMessage("2")}
	wiretest.PutConfiguration(t, s, modules, hub.Match{})
	wiretest.WantConfigured(t, s, id, `{"a":1} {"cfg":{"status":"Applied"}}`)
	wiretest.WantConfigured(t, s, module, `{"b":2} {"modules":{"status":"Applied"}}`)
	for _, id := range []string{"cfg", "modules"} {
		if err := s.Configurations.DeleteAndDie(id); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = wiretest.NewNode(t, node.Options{Storage: node.Folder(dir)})
	wiretest.WantConfigured(t, s, id, `{} `)
	wiretest.WantConfigured(t, s, module, `{} `)
}

func TestAConfigurationOfAnOlderHubKeepsNoHubFromOpening(t *testing.T) {
	dir := t.TempDir()
	s := wiretest.NewNode(t, node.Options{Storage: node.Folder(dir)})
	wiretest.Create(t, s, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	old := configurations.Configuration{Spec: wiretest.DeviceConfiguration("cfg", "tags.a LIKE 'x%'", 1, map[string]string{"a": "1"})}
	if err := s.Configurations.StoreAsOlderHub(old); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = wiretest.NewNode(t, node.Options{Storage: node.Folder(dir)})
	wiretest.WantConfigured(t, s, hub.ID{Device: "dev"}, `{} `)
	old.TargetCondition = "*"
	wiretest.PutConfiguration(t, s, old.Spec, hub.Match{Any: true})
	wiretest.WantConfigured(t, s, hub.ID{Device: "dev"}, `{"a":1} {"cfg":{"status":"Applied"}}`)
}

func TestConfigurationsAreRefused(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	good := func() configurations.Spec {
		return wiretest.DeviceConfiguration("cfg", "*", 1, map[string]string{"a": "1"})
	}
	c := wiretest.PutConfiguration(t, s, good(), hub.Match{})
	for name, tt := range map[string]struct {
		change func(*configurations.Spec)
		match  hub.Match
		want   error
	}{
		"an id in upper case":      {func(c *configurations.Spec) { c.ID = "Cfg" }, hub.Match{}, hub.ErrArgumentInvalid},
		"an id that is there":      {func(*configurations.Spec) {}, hub.Match{}, hub.ErrConfigurationAlreadyExists},
		"another etag":             {func(*configurations.Spec) {}, hub.Match{ETag: "Mg=="}, hub.ErrPreconditionFailed},
		"an update of none":        {func(c *configurations.Spec) { c.ID = "none" }, hub.Match{Any: true}, hub.ErrConfigurationNotFound},
		"other content":            {func(c *configurations.Spec) { c.Content.Device["properties.desired.a"] = json.RawMessage("2") }, hub.Match{ETag: c.ETag()}, hub.ErrConfigurationImmutable},
		"no content":               {func(c *configurations.Spec) { c.Content = configurations.Content{} }, hub.Match{}, hub.ErrConfigurationContent},
		"a reported property":      {func(c *configurations.Spec) { c.Content.Device["properties.reported.a"] = json.RawMessage("2") }, hub.Match{}, hub.ErrConfigurationContent},
		"a path with a hole":       {func(c *configurations.Spec) { c.Content.Device["properties.desired.a..b"] = json.RawMessage("2") }, hub.Match{}, hub.ErrConfigurationContent},
		"all properties of a text": {func(c *configurations.Spec) { c.Content.Device["properties.desired"] = json.RawMessage(`"x"`) }, hub.Match{}, hub.ErrConfigurationContent},
		"no properties at all":     {func(c *configurations.Spec) { c.Content.Device["properties.desired"] = json.RawMessage("null") }, hub.Match{}, hub.ErrConfigurationContent},
		"all of another name":      {func(c *configurations.Spec) { c.Content.Device["properties.desiredx"] = json.RawMessage("{}") }, hub.Match{}, hub.ErrConfigurationContent},
		"all with a hole":          {func(c *configurations.Spec) { c.Content.Device["properties.desired."] = json.RawMessage("{}") }, hub.Match{}, hub.ErrConfigurationContent},
		"tags":                     {func(c *configurations.Spec) { c.Content.Device["tags.a"] = json.RawMessage("1") }, hub.Match{}, hub.ErrConfigurationContent},
		"a name no twin can take":  {func(c *configurations.Spec) { c.Content.Device["properties.desired"] = json.RawMessage(`{"a.b":1}`) }, hub.Match{}, hub.ErrConfigurationContent},
		"a condition with a fault": {func(c *configurations.Spec) { c.TargetCondition = "tags.a =" }, hub.Match{}, hub.ErrConfigurationTarget},
		"a condition of modules":   {func(c *configurations.Spec) { c.TargetCondition = "from devices.modules where a = 1" }, hub.Match{}, hub.ErrConfigurationTarget},
		"six metrics": {func(c *configurations.Spec) {
			c.Metrics = map[string]string{"1": "", "2": "", "3": "", "4": "", "5": "", "6": ""}
		}, hub.Match{}, hub.ErrConfigurationMetrics},
	} {
		t.Run(name, func(t *testing.T) {
			spec := good()
			tt.change(&spec)
			if _, err := s.Configurations.Put(spec, tt.match); !errors.Is(err, tt.want) {
				t.Errorf("PutConfiguration: %v, want %v", err, tt.want)
			}
		})
	}
	if err := s.Configurations.Delete("cfg", hub.Match{ETag: "Mg=="}); !errors.Is(err, hub.ErrPreconditionFailed) {
		t.Errorf("delete with another etag: %v, want %v", err, hub.ErrPreconditionFailed)
	}
	if err := s.Configurations.Delete("none", hub.Match{}); !errors.Is(err, hub.ErrConfigurationNotFound) {
		t.Errorf("delete of none: %v, want %v", err, hub.ErrConfigurationNotFound)
	}
}
