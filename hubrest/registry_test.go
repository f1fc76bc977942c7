package hubrest_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

func TestRegistryCallsBecomeTheseRequests(t *testing.T) {
	module := hubrest.Target{DeviceID: "dev1", ModuleID: "$edgeHub"}
	for _, tt := range []wireTest{
		{
			name: "get a module",
			call: func(ctx context.Context, c *hubrest.Client) error { _, err := c.Module(ctx, module); return err },
			want: "GET /devices/dev1/modules/%24edgeHub?api-version=2021-04-12",
		},
		{
			name:   "list modules",
			call:   func(ctx context.Context, c *hubrest.Client) error { _, err := c.Modules(ctx, "dev1"); return err },
			answer: `[]`,
			want:   "GET /devices/dev1/modules?api-version=2021-04-12",
		},
		{
			name: "create a module",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.CreateModule(ctx, hubrest.Module{DeviceID: "dev1", ModuleID: "m1"})
				return err
			},
			want: "PUT /devices/dev1/modules/m1?api-version=2021-04-12",
			body: `{"moduleId":"m1","deviceId":"dev1","cloudToDeviceMessageCount":0}`,
		},
		{
			name: "update a module if its etag is this",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.UpdateModule(ctx, hubrest.Module{DeviceID: "dev1", ModuleID: "m1", ETag: "MQ==", ManagedBy: "me"})
				return err
			},
			want:  "PUT /devices/dev1/modules/m1?api-version=2021-04-12",
			match: `"MQ=="`,
			body:  `{"moduleId":"m1","deviceId":"dev1","managedBy":"me","etag":"MQ==","cloudToDeviceMessageCount":0}`,
		},
		{
			name:  "delete a module",
			call:  func(ctx context.Context, c *hubrest.Client) error { return c.DeleteModule(ctx, module, "") },
			want:  "DELETE /devices/dev1/modules/%24edgeHub?api-version=2021-04-12",
			match: `*`,
		},
		{
			name:   "count devices",
			call:   func(ctx context.Context, c *hubrest.Client) error { _, err := c.DeviceStatistics(ctx); return err },
			answer: `{"totalDeviceCount":3,"enabledDeviceCount":2,"disabledDeviceCount":1}`,
			want:   "GET /statistics/devices?api-version=2021-04-12",
		},
		{
			name:   "count connected devices",
			call:   func(ctx context.Context, c *hubrest.Client) error { _, err := c.ConnectedDevices(ctx); return err },
			answer: `{"connectedDeviceCount":3}`,
			want:   "GET /statistics/service?api-version=2021-04-12",
		},
		{
			name: "purge messages",
			call: func(ctx context.Context, c *hubrest.Client) error { _, err := c.PurgeCommands(ctx, "dev1"); return err },
			want: "DELETE /devices/dev1/commands?api-version=2021-04-12",
		},
		{
			name: "regenerate keys, with the api-version that has it",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.RegenerateKeys(ctx, hubrest.BothKeys, []hubrest.Target{{DeviceID: "dev1"}, {DeviceID: "dev2", ModuleID: "m1"}})
				return err
			},
			want: "POST /devices/keys/regenerate?api-version=2024-03-31",
			body: `{"policyKey":"both","devices":[{"id":"dev1"},{"id":"dev2","moduleId":"m1"}]}`,
		},
		{
			name: "bulk",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.Bulk(ctx, []hubrest.BulkEntry{
					{
						ID: "dev1", ImportMode: hubrest.ImportCreate, Status: hubrest.Enabled, Capabilities: &hubrest.Capabilities{},
						Authentication: hubrest.Authentication{Type: hubrest.AuthSAS},
						Tags:           json.RawMessage(`{"floor":3.0}`), Properties: hubrest.BulkProperties{Desired: json.RawMessage(`{"interval":5}`)},
					},
					{ID: "dev2", ETag: "MTc3NDU4ODkx", ImportMode: hubrest.ImportUpdateIfMatchETag, Status: hubrest.Disabled},
					{ID: "dev3", ModuleID: "m1"},
				})
				return err
			},
			want: "POST /devices?api-version=2021-04-12",
			body: `[{"id":"dev1","importMode":"create","status":"enabled","authentication":{"type":"sas"},"tags":{"floor":3.0},"properties":{"desired":{"interval":5}},"capabilities":{"iotEdge":false}},` +
				`{"id":"dev2","eTag":"MTc3NDU4ODkx","importMode":"updateIfMatchETag","status":"disabled"},{"id":"dev3","moduleId":"m1"}]`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t) })
	}
}

func TestAModuleCallWithoutModuleNeverMeansTheDevice(t *testing.T) {
	var rec recorder
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) { rec.add(req) })
	if err := c.DeleteModule(t.Context(), hubrest.Target{DeviceID: "dev1"}, ""); err == nil {
		t.Error("DeleteModule went through")
	}
	if _, err := c.UpdateModule(t.Context(), hubrest.Module{DeviceID: "dev1"}); err == nil {
		t.Error("UpdateModule went through")
	}
	if n := rec.count(); n != 0 {
		t.Errorf("%d requests were sent, want none", n)
	}
}

func TestCountsAreRead(t *testing.T) {
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
		io.WriteString(w, `{"totalDeviceCount":3,"enabledDeviceCount":2,"disabledDeviceCount":1,"connectedDeviceCount":7,"totalMessagesPurged":2,"deviceId":"dev1","moduleId":null}`)
	})
	devices, err := c.DeviceStatistics(t.Context())
	if diff := cmp.Diff(hubrest.DeviceStatistics{Total: 3, Enabled: 2, Disabled: 1}, devices); diff != "" || err != nil {
		t.Errorf("DeviceStatistics: %v (-want +got):\n%s", err, diff)
	}
	if n, err := c.ConnectedDevices(t.Context()); n != 7 || err != nil {
		t.Errorf("ConnectedDevices: %d, %v, want 7", n, err)
	}
	if n, err := c.PurgeCommands(t.Context(), "dev1"); n != 2 || err != nil {
		t.Errorf("PurgeCommands: %d, %v, want 2", n, err)
	}
}

func TestBulkReportsWhatFailedAndDoesNotFailItself(t *testing.T) {
	for _, header := range []string{"iothub-errorcode", "IotHubErrorCode"} {
		c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set(header, "BulkRegistryOperationFailure")
			w.WriteHeader(400)
			io.WriteString(w, `{"isSuccessful":false,"errors":[
				{"deviceId":"dev1","errorCode":409001,"errorStatus":"A device with ID 'dev1' is already registered.","moduleId":null,"operation":null},
				{"deviceId":"dev2","errorCode":"DeviceNotFound","errorStatus":"dev2","moduleId":"m1"}],
				"warnings":[{"deviceId":"dev3","warningCode":"DeviceRegisteredWithoutTwin","warningStatus":"why"}]}`)
		})
		got, err := c.Bulk(t.Context(), []hubrest.BulkEntry{{ID: "dev1"}, {ID: "dev2", ModuleID: "m1"}, {ID: "dev3"}})
		if err != nil {
			t.Fatal(err)
		}
		want := hubrest.BulkResult{
			Errors: []hubrest.BulkError{
				{DeviceID: "dev1", Code: 409001, Message: "A device with ID 'dev1' is already registered."},
				{DeviceID: "dev2", ModuleID: "m1", Name: "DeviceNotFound", Message: "dev2"},
			},
			Warnings: []hubrest.BulkWarning{{DeviceID: "dev3", Code: "DeviceRegisteredWithoutTwin", Message: "why"}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("with the header %s (-want +got):\n%s", header, diff)
		}
	}
}

func TestABulkRequestThatIsWrongAsAWholeFails(t *testing.T) {
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("iothub-errorcode", "DeviceDefinedMultipleTimes")
		w.WriteHeader(400)
	})
	if r, err := c.Bulk(t.Context(), []hubrest.BulkEntry{{ID: "dev1"}, {ID: "dev1"}}); err == nil {
		t.Errorf("Bulk: %v", r)
	}
}

func TestKeyRotationReportsEachIdentity(t *testing.T) {
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(http.StatusMultiStatus)
		io.WriteString(w, `{"policyKey":"primaryKey","rotatedKeys":[{"id":"dev1","moduleId":null}],"errors":[{"id":"dev2","moduleId":"m1","errorCode":404010,"errorStatus":"no"}]}`)
	})
	got, err := c.RegenerateKeys(t.Context(), hubrest.PrimaryKey, []hubrest.Target{{DeviceID: "dev1"}, {DeviceID: "dev2", ModuleID: "m1"}})
	if err != nil {
		t.Fatal(err)
	}
	want := hubrest.KeyRotation{
		Rotated: []hubrest.Target{{DeviceID: "dev1"}},
		Errors:  []hubrest.BulkError{{DeviceID: "dev2", ModuleID: "m1", Code: 404010, Message: "no"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("RegenerateKeys (-want +got):\n%s", diff)
	}
}
