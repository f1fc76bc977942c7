package wiretest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/node"
)

// DeviceConfiguration is a configuration that sets desired properties of
// devices, in JSON by path; "" is all of them.
func DeviceConfiguration(id, target string, priority int, content map[string]string) configurations.Spec {
	spec := configurations.Spec{ID: id, TargetCondition: target, Priority: priority}
	spec.Content.Device = make(map[string]json.RawMessage)
	for path, value := range content {
		spec.Content.Device[strings.TrimSuffix("properties.desired."+path, ".")] = json.RawMessage(value)
	}
	return spec
}

// PutConfiguration creates a configuration, or replaces it if m is a condition.
func PutConfiguration(t testing.TB, s *node.Node, spec configurations.Spec, m hub.Match) configurations.Configuration {
	t.Helper()
	c, err := s.Configurations.Put(spec, m)
	if err != nil {
		t.Fatalf("put configuration %s: %v", spec.ID, err)
	}
	return c
}

// Configured returns the desired properties and the configurations of a twin
// once all configurations have been applied.
func Configured(t testing.TB, s *node.Node, id hub.ID) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := s.Configurations.Wait(ctx); err != nil {
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

// WantConfigured checks what Configured returns.
func WantConfigured(t testing.TB, s *node.Node, id hub.ID, want string) {
	t.Helper()
	if diff := cmp.Diff(want, Configured(t, s, id)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", id, diff)
	}
}

// BaseDeployment returns the content of a base deployment that runs modules.
func BaseDeployment(names ...string) string {
	var run []string
	for _, name := range names {
		run = append(run, fmt.Sprintf(`%q:{"type":"docker"}`, name))
	}
	return `{"$edgeAgent":{"properties.desired":{"schemaVersion":"1.1","modules":{` + strings.Join(run, ",") + `}}},"$edgeHub":{"properties.desired":{"routes":{}}}}`
}

// EdgeDeployment returns a deployment whose content is JSON.
func EdgeDeployment(t testing.TB, id, target string, priority int, modules string) configurations.Spec {
	t.Helper()
	spec := configurations.Spec{ID: id, TargetCondition: target, Priority: priority}
	if err := json.Unmarshal([]byte(modules), &spec.Content.Modules); err != nil {
		t.Fatal(err)
	}
	return spec
}
