package configurations

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// A configuration that is stored is read as it was, and sets the same; what is
// none is an error.
func FuzzConfigurationRecord(f *testing.F) {
	f.Add([]byte(`{"ID":"c","SchemaVersion":null,"Labels":{"a":"b"},"Content":{"deviceContent":{"properties.desired.a":{"b":[1e2]}}},"TargetCondition":"tags.a = 1","Priority":1,"Metrics":{"m":"SELECT deviceId FROM devices"},"Created":"2026-03-14T09:26:53Z","Updated":"2026-03-14T09:26:53Z","Version":1}`))
	f.Add([]byte(`{"Content":{"modulesContent":{"$edgeAgent":{"properties.desired":{"modules":{"a":null}}},"m":null}},"TargetCondition":"from devices.modules where true"}`))
	f.Add([]byte(`{"Content":{"moduleContent":{"a":"<\u2028>"}},"TargetCondition":"tags.a ="}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c, read Configuration
		if json.Unmarshal(data, &c) != nil {
			return
		}
		again, err := jsontext.Marshal(c)
		if err != nil {
			t.Fatalf("%q is read as %+v, which cannot be stored: %v", data, c, err)
		}
		if err := json.Unmarshal(again, &read); err != nil {
			t.Fatalf("%q is stored again as %q: %v", data, again, err)
		}
		if !c.Content.same(&read.Content) {
			t.Errorf("%q is stored again as %q", data, again)
		}
		c.Content, read.Content = Content{}, Content{}
		if diff := cmp.Diff(c, read); diff != "" {
			t.Errorf("%q stored again (-read +again):\n%s", data, diff)
		}
		// Whatever its condition is, it is none of another kind than the content.
		if a, err := newActive(read); err == nil && a.target != nil && (a.target.From() == query.Modules) != read.Content.modules() {
			t.Errorf("%q targets %v", data, a.target.From())
		}
	})
}

// The settings of a twin are read as they were stored, whoever set them.
func FuzzSettings(f *testing.F) {
	f.Add("properties.desired.a", "properties.desired.b", []byte(`["properties.desired.a","leaf/properties.desired.a","edge/properties.desired"]`))
	f.Add("properties.desired.a", "properties.desired.a", []byte(`["edge/edge/x",null]`))
	f.Fuzz(func(t *testing.T, configured, deployed string, data []byte) {
		if all, err := decodeSettings(data); err == nil && len(all) > len(data) {
			t.Errorf("%q is read as %d settings", data, len(all))
		}
		configured, deployed = desiredPath+strings.ToValidUTF8(configured, ""), desiredPath+strings.ToValidUTF8(deployed, "") // as JSON and the rules leave them
		want := settings{{configured, byConfiguration}: true, {deployed, byDeployment}: true, {configured, byOlderHub}: true}
		got, err := decodeSettings(want.encode())
		if !maps.Equal(want, got) || err != nil {
			t.Errorf("%v and %v, want %v", got, err, want)
		}
	})
}
