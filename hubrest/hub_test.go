package hubrest_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// newHubClient returns a client of a real hub with the rights of this policy.
func newHubClient(t *testing.T, h *hubtest.Hub, policy string) *hubrest.Client {
	t.Helper()
	c, err := hubrest.New(hubrest.Options{ConnectionString: h.Policy(policy), TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestARealHubKeepsDevices(t *testing.T) {
	ctx := t.Context()
	c := newHubClient(t, hubtest.New(t), "registryReadWrite")
	const id = "a-:.+%_#*?!(),=@;$'Z" // every character that an id may have
	created, err := c.CreateDevice(ctx, hubrest.Device{DeviceID: id})
	if err != nil {
		t.Fatal(err)
	}
	if created.DeviceID != id || created.Status != hubrest.Enabled || created.Authentication.Type != hubrest.AuthSAS || created.ETag == "" {
		t.Errorf("created %q, %s, %s, etag %q", created.DeviceID, created.Status, created.Authentication.Type, created.ETag)
	}
	if err := created.Authentication.SymmetricKey.PrimaryKey.Validate(); err != nil {
		t.Errorf("key: %v", err)
	}
	if _, err := c.CreateDevice(ctx, hubrest.Device{DeviceID: id}); !errors.Is(err, hubrest.ErrAlreadyExists) {
		t.Errorf("CreateDevice again: %v, want ErrAlreadyExists", err)
	}
	got, err := c.Device(ctx, id)
	if diff := cmp.Diff(created, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
		t.Errorf("Device: %v (-created +got):\n%s", err, diff)
	}

	change := got
	change.Status, change.StatusReason = hubrest.Disabled, "<lost> & found"
	updated, err := c.UpdateDevice(ctx, change)
	if err != nil {
		t.Fatal(err)
	}
	changed := cmpopts.IgnoreFields(hubrest.Device{}, "ETag", "StatusUpdatedTime")
	if diff := cmp.Diff(change, updated, changed, cmpopts.EquateEmpty()); diff != "" || updated.ETag == got.ETag {
		t.Errorf("UpdateDevice, etag %s after %s (-want +got):\n%s", updated.ETag, got.ETag, diff)
	}
	if _, err := c.UpdateDevice(ctx, change); !errors.Is(err, hubrest.ErrPreconditionFailed) {
		t.Errorf("UpdateDevice with the old etag: %v, want ErrPreconditionFailed", err)
	}
	if err := c.DeleteDevice(ctx, id, got.ETag); !errors.Is(err, hubrest.ErrPreconditionFailed) {
		t.Errorf("DeleteDevice with the old etag: %v, want ErrPreconditionFailed", err)
	}
	list, err := c.Devices(ctx, 10)
	if err != nil || len(list) != 1 || list[0].DeviceID != id {
		t.Errorf("Devices: %v", err)
	}
	stats, err := c.DeviceStatistics(ctx)
	if diff := cmp.Diff(hubrest.DeviceStatistics{Total: 1, Disabled: 1}, stats); diff != "" || err != nil {
		t.Errorf("DeviceStatistics: %v (-want +got):\n%s", err, diff)
	}
	if err := c.DeleteDevice(ctx, id, updated.ETag); err != nil {
		t.Error(err)
	}
	if err := c.DeleteDevice(ctx, id, ""); !errors.Is(err, hubrest.ErrNotFound) {
		t.Errorf("DeleteDevice again: %v, want ErrNotFound", err)
	}
}

func TestARealHubKeepsModules(t *testing.T) {
	ctx := t.Context()
	h := hubtest.New(t)
	h.Device("dev1")
	c := newHubClient(t, h, "registryReadWrite")
	target := hubrest.Target{DeviceID: "dev1", ModuleID: "m#1"}
	created, err := c.CreateModule(ctx, hubrest.Module{DeviceID: "dev1", ModuleID: "m#1", ManagedBy: "me"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Module(ctx, target)
	if diff := cmp.Diff(created, got); diff != "" || err != nil || got.ManagedBy != "me" {
		t.Errorf("Module: %v (-created +got):\n%s", err, diff)
	}
	list, err := c.Modules(ctx, "dev1")
	if diff := cmp.Diff([]hubrest.Module{created}, list); diff != "" || err != nil {
		t.Errorf("Modules: %v (-want +got):\n%s", err, diff)
	}
	got.ManagedBy = "you"
	if updated, err := c.UpdateModule(ctx, got); err != nil || updated.ManagedBy != "you" {
		t.Errorf("UpdateModule: %q, %v", updated.ManagedBy, err)
	}
	if _, err := c.UpdateModule(ctx, got); !errors.Is(err, hubrest.ErrPreconditionFailed) {
		t.Errorf("UpdateModule with the old etag: %v, want ErrPreconditionFailed", err)
	}
	if err := c.DeleteModule(ctx, target, ""); err != nil {
		t.Error(err)
	}
	if _, err := c.Module(ctx, target); !errors.Is(err, hubrest.ErrNotFound) {
		t.Errorf("Module after its end: %v, want ErrNotFound", err)
	}
}

func TestARealHubKeepsTwins(t *testing.T) {
	ctx := t.Context()
	h := hubtest.New(t)
	h.Module("dev1", "m1")
	c := newHubClient(t, h, "service")
	for _, target := range []hubrest.Target{{DeviceID: "dev1"}, {DeviceID: "dev1", ModuleID: "m1"}} {
		t.Run(target.String(), func(t *testing.T) {
			fresh, err := c.Twin(ctx, target)
			if err != nil {
				t.Fatal(err)
			}
			if fresh.DeviceID != target.DeviceID || fresh.ModuleID != target.ModuleID || fresh.DesiredVersion != 1 || fresh.Tags != nil {
				t.Errorf("fresh twin %s", fresh.Raw)
			}
			patched, err := c.PatchTwin(ctx, target, hubrest.TwinChange{
				Tags: map[string]any{"site": "<A&B>"}, Desired: json.RawMessage(`{"z":4503599627370495,"a":1.10}`), ETag: fresh.ETag,
			})
			if err != nil {
				t.Fatal(err)
			}
			var desired map[string]json.RawMessage
			if err := json.Unmarshal(patched.Desired, &desired); err != nil {
				t.Fatal(err)
			}
			if string(desired["z"]) != "4503599627370495" || string(desired["a"]) != "1.10" || patched.DesiredVersion != 2 {
				t.Errorf("desired %s", patched.Desired)
			}
			if _, err := c.PatchTwin(ctx, target, hubrest.TwinChange{Tags: map[string]any{}, ETag: fresh.ETag}); !errors.Is(err, hubrest.ErrPreconditionFailed) {
				t.Errorf("PatchTwin with the old etag: %v, want ErrPreconditionFailed", err)
			}
			// A whole section goes back as it came, with what only the hub writes.
			replaced, err := c.ReplaceTwin(ctx, target, hubrest.TwinChange{Desired: patched.Desired, ETag: patched.ETag})
			if err != nil || replaced.DesiredVersion != 3 || replaced.Tags != nil {
				t.Errorf("ReplaceTwin: %v, %s", err, replaced.Raw)
			}
		})
	}
	_, err := c.PatchTwin(ctx, hubrest.Target{DeviceID: "dev1"}, hubrest.TwinChange{Tags: 7})
	var refusal *hubrest.Error
	if !errors.As(err, &refusal) || refusal.Status != 400 || refusal.Name == "" || refusal.TrackingID == "" || refusal.RequestID == "" {
		t.Errorf("PatchTwin with tags that are a number: %+v", err)
	}
	if _, err := c.Twin(ctx, hubrest.Target{DeviceID: "nobody"}); !errors.Is(err, hubrest.ErrNotFound) {
		t.Errorf("Twin of nobody: %v, want ErrNotFound", err)
	}
}

func TestARealHubRefusesWhoMayNot(t *testing.T) {
	h := hubtest.New(t)
	h.Device("dev1")
	if _, err := newHubClient(t, h, "service").Device(t.Context(), "dev1"); !errors.Is(err, hubrest.ErrUnauthorized) {
		t.Errorf("Device with the policy service: %v, want ErrUnauthorized", err)
	}
	cs := h.Policy("iothubowner")
	cs.SharedAccessKey = sas.NewKey()
	c, err := hubrest.New(hubrest.Options{ConnectionString: cs, TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.InvokeMethod(t.Context(), hubrest.Target{DeviceID: "dev1"}, hubrest.Method{Name: "reboot"})
	if !errors.Is(err, hubrest.ErrUnauthorized) {
		t.Errorf("InvokeMethod with a wrong key: %v, want ErrUnauthorized", err)
	}
}

// connect runs a device whose methods are these.
func connect(t *testing.T, h *hubtest.Hub, cs sas.ConnectionString, methods map[string]mqttdevice.MethodHandler) {
	t.Helper()
	d, err := mqttdevice.New(mqttdevice.Options{ConnectionString: cs, Addr: h.MQTTSAddr, TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range methods {
		d.HandleMethod(name, m)
	}
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
}

func TestARealDeviceAnswersMethods(t *testing.T) {
	t.Parallel() // the shortest time-out there is takes five seconds
	h := hubtest.New(t)
	c := newHubClient(t, h, "service")
	over := make(chan struct{})
	defer close(over)
	methods := map[string]mqttdevice.MethodHandler{
		"echo": func(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
			return mqttdevice.Response{Status: 501, Payload: m.Payload}
		},
		"silent": func(context.Context, mqttdevice.Method) mqttdevice.Response {
			<-over
			return mqttdevice.Response{}
		},
	}
	connect(t, h, h.Device("dev1"), methods)
	connect(t, h, h.Module("dev1", "m1"), methods)
	h.Device("offline")
	for _, target := range []hubrest.Target{{DeviceID: "dev1"}, {DeviceID: "dev1", ModuleID: "m1"}} {
		for _, payload := range []string{`null`, `{"n":12345678901234567890,"s":"1"}`, `"text"`, `[1.0]`} {
			got, err := c.InvokeMethod(t.Context(), target, hubrest.Method{Name: "echo", Payload: json.RawMessage(payload)})
			if diff := cmp.Diff(hubrest.MethodAnswer{Status: 501, Payload: json.RawMessage(payload)}, got); diff != "" || err != nil {
				t.Errorf("InvokeMethod on %s: %v (-want +got):\n%s", target, err, diff)
			}
		}
	}
	for _, tt := range []struct {
		device, method string
		want           error
	}{
		{"nobody", "echo", hubrest.ErrNotFound},
		{"offline", "echo", hubrest.ErrNotOnline},
		{"dev1", "silent", hubrest.ErrTimedOut},
	} {
		_, err := c.InvokeMethod(t.Context(), hubrest.Target{DeviceID: tt.device}, hubrest.Method{Name: tt.method, ResponseTimeout: 5 * time.Second})
		if !errors.Is(err, tt.want) {
			t.Errorf("InvokeMethod %s on %s: %v, want %v", tt.method, tt.device, err, tt.want)
		}
	}
	if n, err := c.ConnectedDevices(t.Context()); n != 1 || err != nil {
		t.Errorf("ConnectedDevices: %d, %v, want 1", n, err)
	}
}

func TestARealHubDoesThingsInBulk(t *testing.T) {
	ctx := t.Context()
	h := hubtest.New(t)
	h.Device("dev1")
	c := newHubClient(t, h, "iothubowner")
	got, err := c.Bulk(ctx, []hubrest.BulkEntry{
		{ID: "dev1", ImportMode: hubrest.ImportCreate},
		{ID: "dev2", ImportMode: hubrest.ImportCreate, Tags: json.RawMessage(`{"floor":3}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.IsSuccessful || len(got.Errors) != 1 || got.Errors[0].DeviceID != "dev1" || got.Errors[0].Code != 409001 {
		t.Errorf("Bulk: %+v", got)
	}
	twin, err := c.Twin(ctx, hubrest.Target{DeviceID: "dev2"})
	if err != nil || string(twin.Tags) != `{"floor":3}` {
		t.Errorf("Twin: %s, %v", twin.Tags, err)
	}
	before, err := c.Device(ctx, "dev2")
	if err != nil {
		t.Fatal(err)
	}
	rotation, err := c.RegenerateKeys(ctx, hubrest.PrimaryKey, []hubrest.Target{{DeviceID: "dev2"}, {DeviceID: "nobody"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(rotation.Rotated) != 1 || rotation.Rotated[0].DeviceID != "dev2" || len(rotation.Errors) != 1 || rotation.Errors[0].DeviceID != "nobody" {
		t.Errorf("RegenerateKeys: %+v", rotation)
	}
	after, err := c.Device(ctx, "dev2")
	if err != nil {
		t.Fatal(err)
	}
	k, l := before.Authentication.SymmetricKey, after.Authentication.SymmetricKey
	if k.PrimaryKey == l.PrimaryKey || k.SecondaryKey != l.SecondaryKey {
		t.Error("RegenerateKeys changed the wrong keys")
	}
}
