package configurations_test

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// comparedTwins returns how many twins were compared with the configurations
// until all changes had been applied.
func comparedTwins(t testing.TB, h *wiretest.RESTHub) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wiretest.Patience)
	defer cancel()
	if err := h.Configurations.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	body := h.DoRaw(wiretest.Call{Method: "GET", Path: "/metrics", Token: "-"}).Body
	m := regexp.MustCompile(`(?m)^iotdm_hub_twins_configured_total (\d+)$`).FindStringSubmatch(body)
	if m == nil {
		t.Fatalf("/metrics does not count the twins: %s", body)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOnlyWhatIsAffectedIsCompared(t *testing.T) {
	hubtest.OneNode(t, "it counts what its own engine compares")
	h := wiretest.StartREST(t, node.Options{})
	ids := make([]hub.ID, 30)
	for n := range ids {
		ids[n] = hub.ID{Device: fmt.Sprintf("d%02d", n)}
		wiretest.Create(t, h.Node, ids[n], hub.IdentitySpec{})
		setTags(t, h.Node, ids[n], fmt.Sprintf(`{"n":%d}`, n))
	}
	module := hub.ID{Device: "d00", Module: "m"}
	wiretest.Create(t, h.Node, module, hub.IdentitySpec{})
	edge := hub.ID{Device: "edge"}
	wiretest.Create(t, h.Node, edge, hub.IdentitySpec{IoTEdge: true})
	documents := func() map[hub.ID]string {
		all := make(map[hub.ID]string)
		for _, id := range append(ids, module, edge) {
			v, err := h.Twin(id)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := v.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			all[id] = string(doc)
		}
		return all
	}
	count := comparedTwins(t, h)
	before := documents()
	// step makes a change and says how many twins may be compared and written.
	step := func(what string, compared, written int, change func()) {
		t.Helper()
		change()
		now := comparedTwins(t, h)
		if got := now - count; got != compared {
			t.Errorf("%s: %d twins were compared, want %d", what, got, compared)
		}
		count = now
		after := documents()
		differ := 0
		for id, doc := range after {
			if doc != before[id] {
				differ++
			}
		}
		if differ != written {
			t.Errorf("%s: %d twins were written, want %d", what, differ, written)
		}
		before = after
	}
	patch := func(id hub.ID, c hub.TwinChange) func() {
		return func() {
			if _, err := h.PatchTwin(id, c, hub.Match{}); err != nil {
				t.Fatal(err)
			}
		}
	}

	step("a twin, without configurations", 0, 1, patch(ids[20], hub.TwinChange{Tags: json.RawMessage(`{"x":0}`)}))
	spec := wiretest.DeviceConfiguration("cfg", "tags.n < 5", 1, map[string]string{"rate": "10"})
	step("a new configuration", 5, 5, func() { wiretest.PutConfiguration(t, h.Node, spec, hub.Match{}) })
	spec.Priority = 2
	step("another priority", 5, 0, func() { wiretest.PutConfiguration(t, h.Node, spec, hub.Match{Any: true}) })
	spec.TargetCondition = "tags.n >= 3 AND tags.n < 10"
	step("another condition: 5 twins and 5 others", 10, 8, func() { wiretest.PutConfiguration(t, h.Node, spec, hub.Match{Any: true}) })
	step("a twin outside", 1, 1, patch(ids[20], hub.TwinChange{Tags: json.RawMessage(`{"x":1}`)}))
	step("a twin that comes in", 1, 1, patch(ids[21], hub.TwinChange{Tags: json.RawMessage(`{"n":9}`)}))
	step("a module", 1, 1, patch(module, hub.TwinChange{Tags: json.RawMessage(`{"x":1}`)}))
	step("a report", 1, 1, func() {
		if _, err := h.PatchReported(ids[4], []byte(`{"rate":10}`), hub.AnyVersion); err != nil {
			t.Fatal(err)
		}
	})
	modules := configurations.Spec{ID: "modules", TargetCondition: " From  devices.modules\nWHERE moduleId = 'm'", Content: configurations.Content{
		Module: map[string]json.RawMessage{"properties.desired.fps": json.RawMessage("25")},
	}}
	step("a configuration for modules", 1, 1, func() { wiretest.PutConfiguration(t, h.Node, modules, hub.Match{}) })
	modules.Priority = 1
	step("another priority for modules", 1, 0, func() { wiretest.PutConfiguration(t, h.Node, modules, hub.Match{Any: true}) })
	step("the end of a configuration", 8, 8, func() {
		if err := h.Configurations.Delete("cfg", hub.Match{}); err != nil {
			t.Fatal(err)
		}
	})
	step("a configuration of nobody", 0, 0, func() {
		wiretest.PutConfiguration(t, h.Node, wiretest.DeviceConfiguration("none", "", 1, map[string]string{"a": "1"}), hub.Match{})
	})
	step("a deployment", 1, 0, func() {
		wiretest.PutConfiguration(t, h.Node, wiretest.EdgeDeployment(t, "base", "*", 5, wiretest.BaseDeployment()), hub.Match{})
	})
	if diff := cmp.Diff(`{} `, wiretest.Configured(t, h.Node, ids[20])); diff != "" {
		t.Errorf("the twin outside (-want +got):\n%s", diff)
	}
}
