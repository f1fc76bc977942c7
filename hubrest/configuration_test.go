package hubrest_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubrest"
)

func TestARealHubAppliesConfigurations(t *testing.T) {
	ctx := t.Context()
	h := hubtest.New(t)
	h.Device("dev1")
	c := newHubClient(t, h, "iothubowner")
	wanted := hubrest.Configuration{
		ID: "cfg-1", SchemaVersion: "2.0", Labels: map[string]string{"for": "test"}, TargetCondition: "deviceId = 'dev1'", Priority: 5,
		Content: hubrest.ConfigurationContent{Device: map[string]json.RawMessage{"properties.desired.rate": json.RawMessage("10")}},
		Metrics: hubrest.ConfigurationMetrics{Queries: map[string]string{"all": "SELECT deviceId FROM devices"}},
	}
	if created, err := c.CreateConfiguration(ctx, wanted); err != nil || created.ETag != "MQ==" {
		t.Fatalf("CreateConfiguration: %+v, %v", created, err)
	}
	if _, err := c.CreateConfiguration(ctx, wanted); !errors.Is(err, hubrest.ErrAlreadyExists) {
		t.Errorf("CreateConfiguration again: %v, want ErrAlreadyExists", err)
	}
	if err := h.Configurations.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := c.Configuration(ctx, "cfg-1")
	if err != nil {
		t.Fatal(err)
	}
	want := wanted
	want.ETag, want.Metrics.Results = "MQ==", map[string]int64{"all": 1}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(hubrest.Configuration{}, "SystemMetrics", "Created", "LastUpdated")); diff != "" {
		t.Errorf("Configuration (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int64{"targetedCount": 1, "appliedCount": 1}, got.SystemMetrics.Results); diff != "" {
		t.Errorf("system metrics (-want +got):\n%s", diff)
	}
	if twin, err := c.Twin(ctx, hubrest.Target{DeviceID: "dev1"}); err != nil || !strings.Contains(string(twin.Desired), `"rate":10`) {
		t.Errorf("the twin has %s, %v", twin.Desired, err)
	}

	change := got
	change.TargetCondition = ""
	if updated, err := c.UpdateConfiguration(ctx, change); err != nil || updated.ETag != "Mg==" {
		t.Errorf("UpdateConfiguration: %+v, %v", updated, err)
	}
	if _, err := c.UpdateConfiguration(ctx, change); !errors.Is(err, hubrest.ErrPreconditionFailed) {
		t.Errorf("UpdateConfiguration with the old etag: %v, want ErrPreconditionFailed", err)
	}
	if list, err := c.Configurations(ctx, 10); err != nil || len(list) != 1 || list[0].ID != "cfg-1" {
		t.Errorf("Configurations: %+v, %v", list, err)
	}
	found, err := c.TestConfigurationQueries(ctx, "tags.a =", map[string]string{"good": "SELECT * FROM devices", "bad": "SELECT"})
	if err != nil || found.TargetCondition == "" || found.Metrics["bad"] == "" || len(found.Metrics) != 1 {
		t.Errorf("TestConfigurationQueries: %+v, %v", found, err)
	}
	if err := c.DeleteConfiguration(ctx, "cfg-1", ""); err != nil {
		t.Error(err)
	}
	if _, err := c.Configuration(ctx, "cfg-1"); !errors.Is(err, hubrest.ErrNotFound) {
		t.Errorf("Configuration after its end: %v, want ErrNotFound", err)
	}

	if _, err := h.PutIdentity(hub.ID{Device: "edge"}, hub.IdentitySpec{IoTEdge: true}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	content := hubrest.ConfigurationContent{Modules: map[string]map[string]json.RawMessage{"camera": {"properties.desired": json.RawMessage(`{"fps":25}`)}}}
	if err := c.ApplyConfigurationContent(ctx, "edge", content); err != nil {
		t.Error(err)
	}
	if twin, err := c.Twin(ctx, hubrest.Target{DeviceID: "edge", ModuleID: "camera"}); err != nil || !strings.Contains(string(twin.Desired), `"fps":25`) {
		t.Errorf("the module's twin has %s, %v", twin.Desired, err)
	}
	var refused *hubrest.Error
	if err := c.ApplyConfigurationContent(ctx, "dev1", content); !errors.As(err, &refused) || refused.Status != 400 {
		t.Errorf("ApplyConfigurationContent to a device that is not IoT Edge: %v, want status 400", err)
	}
	if err := c.ApplyConfigurationContent(ctx, "none", content); !errors.Is(err, hubrest.ErrNotFound) {
		t.Errorf("ApplyConfigurationContent to no device: %v, want ErrNotFound", err)
	}
}
