package configurations_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/internal/severaltest"
)

// desired returns the desired properties of a device, as a node knows them.
func desired(t *testing.T, n *severaltest.Node, device string) string {
	t.Helper()
	v, err := n.Twin(hub.ID{Device: device})
	if err != nil {
		t.Fatal(err)
	}
	_, properties, _ := v.Contents()
	return string(properties)
}

func TestConfigurationsOfAnyNodeAreAppliedByTheLeader(t *testing.T) {
	c := severaltest.Start(t, 3)
	c.Nodes[1].Create(t, "d1")
	spec := func(id, content string) configurations.Spec {
		s := configurations.Spec{ID: id, TargetCondition: "*"}
		if err := json.Unmarshal([]byte(content), &s.Content); err != nil {
			t.Fatal(err)
		}
		return s
	}
	put := func(n *severaltest.Node, s configurations.Spec) {
		t.Helper()
		if _, err := n.Configurations.Put(s, hub.Match{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), severaltest.Patience)
		defer cancel()
		if err := n.Configurations.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	want := func(nodes []int, device, properties string) {
		t.Helper()
		for _, i := range nodes {
			c.Settle(t, i)
			if got := desired(t, c.Nodes[i], device); got != properties {
				t.Errorf("node %d knows the desired properties of %s as %s, want %s", i, device, got, properties)
			}
		}
	}
	put(c.Nodes[2], spec("eco", `{"deviceContent":{"properties.desired.interval":60}}`))
	want([]int{0, 1, 2}, "d1", `{"interval":60}`)
	for i, n := range c.Nodes {
		if list := n.Configurations.List(); len(list) != 1 || list[0].ID != "eco" {
			t.Errorf("node %d lists %v", i, list)
		}
	}

	// A device that comes on another node gets them, and so does it from the next leader.
	c.Nodes[2].Create(t, "d2")
	c.Settle(t, 1)
	severaltest.Eventually(t, "the configuration of a new device", func() bool { return desired(t, c.Nodes[1], "d2") == `{"interval":60}` })
	c.Kill(t, 0)
	c.Nodes[2].Create(t, "d3")
	put(c.Nodes[2], spec("light", `{"deviceContent":{"properties.desired.light":"off"}}`))
	want([]int{1, 2}, "d1", `{"interval":60,"light":"off"}`)
	want([]int{1, 2}, "d3", `{"interval":60,"light":"off"}`)
	if err := c.Nodes[2].Configurations.Delete("eco", hub.Match{Any: true}); err != nil {
		t.Fatal(err)
	}
	severaltest.Eventually(t, "what a deleted configuration has set is gone", func() bool { return desired(t, c.Nodes[2], "d1") == `{"light":"off"}` })
}
