package configurations_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func TestMetricsCountTheRowsOfTheirQueries(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	for n := range 7 {
		id := hub.ID{Device: fmt.Sprint("d", n)}
		wiretest.Create(t, s, id, hub.IdentitySpec{})
		setTags(t, s, id, fmt.Sprintf(`{"third":%d}`, n%3))
	}
	c := configurations.Configuration{Spec: wiretest.DeviceConfiguration("cfg", "tags.third = 1", 1, map[string]string{"a": "1"})}
	c.Metrics = map[string]string{
		"top":    "SELECT TOP 2 * FROM devices WHERE tags.third = 0",
		"few":    "SELECT TOP 5 * FROM devices WHERE tags.third = 0",
		"groups": "SELECT tags.third, COUNT() FROM devices GROUP BY tags.third",
		"one":    "SELECT COUNT() AS n FROM devices WHERE deviceId = 'none'",
		"none":   "SELECT deviceId FROM devices WHERE deviceId = 'none'",
	}
	system, custom, err := s.Configurations.Measure(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for _, metrics := range []map[string]configurations.Metric{system, custom} {
		for name, m := range metrics {
			got[name] = m.Result
		}
	}
	want := map[string]int{"targetedCount": 2, "appliedCount": 0, "top": 2, "few": 3, "groups": 3, "one": 1, "none": 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
}
