package node_test

import (
	"os"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/sas"
)

// A seed enters a twin by the rules for every twin.
func TestASeedThatNoTwinTakes(t *testing.T) {
	const chars = "Must not contain Control Characters, '.', '$', '#', or ' '."
	for _, tt := range []struct{ seed, device, want string }{
		{`{"devices":[{"deviceId":"d1","tags":{"a#b":1}}]}`, `line 1: device "d1": tags: `, chars},
		{`{"devices":[{"deviceId":"d1","desired":{"a":{"#":1}}}]}`, `line 1: device "d1": desired: `, chars},
		{`{"devices":[{"deviceId":"d1","modules":[{"moduleId":"m1","desired":{"a b":1}}]}]}`, `line 1: module "m1" of device "d1": desired: `, chars},
	} {
		_, err := node.ParseSeed([]byte(tt.seed))
		if err == nil || !strings.HasPrefix(err.Error(), tt.device) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one of %s with %s", tt.seed, err, tt.device, tt.want)
		}
	}
}

// "iotdm help seed" prints a seed.
func TestTheSeedOfTheHelp(t *testing.T) {
	text, err := os.ReadFile("../../cli/topics/seed.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, err := node.ParseSeed(text)
	if err != nil {
		t.Fatalf("help seed: %v", err)
	}
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Seed: s}))
	if got, want := h.Policy("dashboard").SharedAccessKey, sas.Key("MjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM="); got != want {
		t.Error("policy dashboard has another key than the seed gives it")
	}
	twin, err := h.Twin(hub.ID{Device: "pump-1"})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := twin.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	got := gjson.GetManyBytes(doc, "tags", "properties.desired.interval", "properties.reported.firmware")
	if got[0].Raw != `{"floor":2,"site":"north"}` || got[1].Int() != 60 || got[2].String() != "1.2" {
		t.Errorf("the twin of pump-1 is %s", doc)
	}
	if i, err := h.Identity(hub.ID{Device: "pump-4"}); err != nil || i.Auth.Type != hub.AuthCertificateAuthority {
		t.Errorf("pump-4 authenticates by %q, %v", i.Auth.Type, err)
	}
	gateway, err := h.Identity(hub.ID{Device: "gateway-1"})
	if err != nil {
		t.Fatal(err)
	}
	if i, err := h.Identity(hub.ID{Device: "pump-5"}); err != nil || !gateway.IoTEdge || i.DeviceScope != gateway.DeviceScope {
		t.Errorf("pump-5 has the scope %q, its parent %q, %v", i.DeviceScope, gateway.DeviceScope, err)
	}
	e, err := h.Provisioning.Enrollment(provisioning.Individual, "pump-6")
	if err != nil || e.DeviceID != "pump-six" {
		t.Errorf("enrollment pump-6 is for %q, %v", e.DeviceID, err)
	}
	a, err := h.Provisioning.AttestationMechanism(provisioning.Group, "meters")
	if err != nil || a.SymmetricKey.Primary != "NzY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY=" {
		t.Errorf("the enrollment group has not the key of the seed: %v", err)
	}
	c, err := h.Configurations.Get("north")
	if err != nil || c.Priority != 10 || string(c.Content.Device["properties.desired.mode"]) != `"eco"` || c.Labels["team"] != "water" || len(c.Metrics) != 1 {
		t.Errorf("configuration north is %+v, %v", c, err)
	}
}

// Each mistake is one line that says where it is.
func TestMistakesInASeed(t *testing.T) {
	for name, tt := range map[string]struct{ seed, want string }{
		"an unknown field":       {"devices:\n- deviceId: d1\n  tgas: {}\n", "line 3: field tgas not found"},
		"a key that is cut off":  {"devices:\n- deviceId: d1\n- deviceId: d2\n  primaryKey: AAAA\n", `line 4: device "d2": primaryKey: not 16 to 64 bytes of base64`},
		"a policy's key":         {"policies:\n- name: service\n  secondaryKey: x\n", `line 3: policy "service": secondaryKey: not base64`},
		"an unknown right":       {"policies:\n- name: ops\n  rights: [Everything]\n", `line 2: `},
		"a property's name":      {"devices:\n- deviceId: d1\n  tags:\n    a: 1\n  reported: {$b: 1}\n", `line 5: device "d1": reported: `},
		"a module's":             {"devices:\n- deviceId: d1\n  modules:\n  - moduleId: m1\n  - moduleId: m2\n    desired: {a.b: 1}\n", `line 6: module "m2" of device "d1": desired: `},
		"an id that is none":     {"devices:\n- deviceId: d 1\n", `line 2: device "d 1": `},
		"a device twice":         {"devices:\n- deviceId: d1\n- {deviceId: d2}\n- deviceId: d1\n", `line 4: device "d1" is listed twice`},
		"a parent that is later": {"devices:\n- deviceId: d1\n  parent: g\n- deviceId: g\n  iotEdge: true\n", `line 3: device "d1": parent: there is no device "g"; list it before this one`},
		"a parent that is none":  {"devices:\n- deviceId: d1\n- deviceId: d2\n  parent: d1\n", `line 4: device "d2": parent: device "d1" is no IoT Edge device`},
		"a condition":            {"configurations:\n- id: c1\n  targetCondition: tags.site =\n  content: {deviceContent: {properties.desired.a: 1}}\n", `line 2: configuration "c1": `},
		"a configuration's path": {"configurations:\n- id: c1\n  content: {deviceContent: {tags.a: 1}}\n", `line 2: configuration "c1": `},
		"an enrollment's member": {"enrollments:\n- registrationId: r1\n  attestation: {type: symmetricKey}\n  initialTwin: {tgas: {}}\n", "line 4: field tgas not found"},
		"its key":                {"enrollments:\n- registrationId: r1\n  attestation:\n    type: symmetricKey\n    symmetricKey:\n      secondaryKey: c2hvcnQ=\n", `line 6: enrollment "r1": secondaryKey: not 16 to 64 bytes of base64`},
		"its type":               {"enrollmentGroups:\n- enrollmentGroupId: g1\n  attestation:\n    type: [x]\n", "line 4: attestation.type must not be of type array"},
		"an attestation":         {"enrollmentGroups:\n- enrollmentGroupId: g1\n", `line 2: enrollment group "g1": `},
		"an enrollment's id":     {"enrollments:\n- enrollmentGroupId: g1\n", "line 2: an enrollment needs its id, as registrationId, and no other"},
		"an enrollment twice":    {"enrollments:\n- {registrationId: r1, attestation: {type: symmetricKey}}\n- {registrationId: R1, attestation: {type: symmetricKey}}\n", `line 3: enrollment "R1" is listed twice`},
		"a consumer group":       {"consumerGroups: [a, 'b c']\n", "line 1: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := node.ParseSeed([]byte(tt.seed))
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") && !strings.Contains(err.Error(), "yaml") {
				t.Errorf("%q: error %v, want one with %q", tt.seed, err, tt.want)
			}
		})
	}
}
