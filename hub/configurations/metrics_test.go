package configurations_test

import (
	"context"
	"errors"
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
	measured, err := s.Configurations.Measure(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for _, metrics := range []map[string]configurations.Metric{measured[0].System, measured[0].Custom} {
		for name, m := range metrics {
			got[name] = m.Result
		}
	}
	want := map[string]int{"targetedCount": 2, "appliedCount": 0, "top": 2, "few": 3, "groups": 3, "one": 1, "none": 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
}

// Metrics for which there is no time are left out; the others, and the
// configurations, are not.
func TestMetricsHaveABoundOfTime(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	for n := range 200 {
		wiretest.Create(t, s, hub.ID{Device: fmt.Sprint("d", n)}, hub.IdentitySpec{})
	}
	c := configurations.Configuration{Spec: wiretest.DeviceConfiguration("cfg", "deviceId = 'd7'", 1, map[string]string{"a": "1"})}
	c.Metrics = map[string]string{"all": "SELECT * FROM devices", "groups": "SELECT COUNT() FROM devices", "one": "SELECT * FROM devices WHERE deviceId = 'd8'"}
	over, cancel := context.WithCancelCause(t.Context())
	cancel(hub.ErrQueryTime)
	measured, err := s.Configurations.Measure(over, c, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range measured {
		got := map[string]bool{"targeted": m.System["targetedCount"].Valid}
		for name, metric := range m.Custom {
			got[name] = metric.Valid
		}
		if diff := cmp.Diff(map[string]bool{"targeted": true, "all": false, "groups": false, "one": true}, got); diff != "" {
			t.Errorf("which metrics have a result (-want +got):\n%s", diff)
		}
	}
	if len(measured) != 2 {
		t.Errorf("%d configurations, want 2", len(measured))
	}
	gone, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the caller has gone"))
	if _, err := s.Configurations.Measure(gone, c); err == nil || err.Error() != "the caller has gone" {
		t.Errorf("for a caller who has gone: %v", err)
	}
}
