package rest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func TestConfigurationsOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Want(t, 200, "")
	const body = `{"id":"cfg1","schemaVersion":null,"labels":{"HostPlatform":"SomeValue"},"content":{"deviceContent":{"properties.desired.key":"value"},"moduleContent":{},"modulesContent":{}},` +
		`"targetCondition":"*","createdTimeUtc":"0001-01-01T00:00:00","lastUpdatedTimeUtc":"0001-01-01T00:00:00","priority":10,` +
		`"metrics":{"results":{},"queries":{"waiting":"SELECT deviceId FROM devices WHERE properties.reported.key != 'value'","odd":"select *"}},"etag":"*"}`
	doc := func(targeted, applied, etag string) string {
		return `{"id":"cfg1","schemaVersion":null,"labels":{"HostPlatform":"SomeValue"},"content":{"deviceContent":{"properties.desired.key":"value"}},` +
			`"targetCondition":"[*]","createdTimeUtc":"2026-03-14T09:26:53.5897932Z","lastUpdatedTimeUtc":"2026-03-14T09:26:53.5897932Z","priority":10,` +
			`"systemMetrics":{"results":{"appliedCount":` + applied + `,"targetedCount":` + targeted + `},"queries":{"appliedCount":"select deviceId from devices where configurations.[[cfg1]].status = 'Applied'","targetedCount":"select deviceId from devices"}},` +
			`"metrics":{"results":{"waiting":0},"queries":{"odd":"select [*]","waiting":"SELECT deviceId FROM devices WHERE properties.reported.key != 'value'"}},"etag":"` + etag + `"}`
	}
	same := func(a wiretest.Answer, want string) {
		t.Helper()
		if diff := cmp.Diff(strings.ReplaceAll(want, "[*]", "*"), a.Want(t, 200, "").Body); diff != "" {
			t.Errorf("body (-want +got):\n%s", diff)
		}
	}
	a := h.Do(wiretest.Call{Method: "PUT", Path: "/configurations/cfg1", Body: body})
	if got := a.Want(t, 200, "").Header.Get("ETag"); got != `"MQ=="` || a.Text(t, "etag") != "MQ==" {
		t.Errorf("the etag of a new configuration is %s", got)
	}
	wiretest.WantConfigured(t, h.Node, hub.ID{Device: "dev1"}, `{"key":"value"} {"cfg1":{"status":"Applied"}}`)
	same(h.Do(wiretest.Call{Method: "GET", Path: "/configurations/cfg1"}), doc("1", "1", "MQ=="))
	same(h.Do(wiretest.Call{Method: "GET", Path: "/configurations/?top=500&api-version=2021-04-12"}), "["+doc("1", "1", "MQ==")+"]")
	if got := h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1"}).Text(t, "configurations.cfg1.status"); got != "Applied" {
		t.Errorf("the twin says %s", got)
	}

	h.Do(wiretest.Call{Method: "PUT", Path: "/configurations/cfg1", Body: body}).WantError(t, 409, "ConfigurationAlreadyExists", "A configuration with ID 'cfg1' already exists.")
	h.Do(wiretest.Call{Method: "PUT", Path: "/configurations/cfg1", Body: strings.Replace(body, `"value"}`, `"other"}`, 1), Header: map[string]string{"If-Match": `"MQ=="`}}).
		WantError(t, 400, "CannotModifyImmutableConfigurationContent", "the content of a configuration cannot be changed")
	// The Python SDK sends the etag without its quotes.
	same(h.Do(wiretest.Call{Method: "PUT", Path: "/configurations/cfg1", Body: body, Header: map[string]string{"If-Match": `MQ==`}}), doc("1", "1", "Mg=="))
	h.Do(wiretest.Call{Method: "PUT", Path: "/configurations/cfg1", Body: body, Header: map[string]string{"If-Match": `"MQ=="`}}).WantError(t, 412, "PreconditionFailed", "PreconditionFailed")
	h.Do(wiretest.Call{Method: "GET", Path: "/configurations/none"}).WantError(t, 404, "ConfigurationNotFound", "none")
	h.Do(wiretest.Call{Method: "DELETE", Path: "/configurations/cfg1", Header: map[string]string{"If-Match": `"*"`}}).Want(t, 204, "")
	h.Do(wiretest.Call{Method: "DELETE", Path: "/configurations/cfg1"}).WantError(t, 404, "ConfigurationNotFound", "cfg1")
	h.Do(wiretest.Call{Method: "GET", Path: "/configurations"}).Want(t, 200, "[]")
	wiretest.WantConfigured(t, h.Node, hub.ID{Device: "dev1"}, `{} `)
}

// As the tests of the Node SDK have it: without metrics or a target, and with
// the content deeply equal when it comes back.
func TestConfigurationsOfAllPropertiesOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	for _, entity := range []string{"module", "device"} {
		content := `{"` + entity + `Content":{"properties.desired":{"prop1":"foo"}}}`
		path := "/configurations/node_e2e_" + entity
		h.Do(wiretest.Call{Method: "PUT", Path: path, Body: `{"id":"node_e2e_` + entity + `","content":` + content + `,"targetCondition":"","priority":20}`}).Want(t, 200, "")
		found := h.Do(wiretest.Call{Method: "GET", Path: path}).Want(t, 200, "").Body
		if diff := cmp.Diff(content, gjson.Get(found, "content").Raw); diff != "" {
			t.Errorf("content (-want +got):\n%s", diff)
		}
		changed := strings.Replace(found, `"priority":20`, `"priority":99`, 1)
		h.Do(wiretest.Call{Method: "PUT", Path: path, Body: changed, Header: map[string]string{"If-Match": `"` + gjson.Get(found, "etag").Str + `"`}}).Want(t, 200, "")
		if got := gjson.Get(h.Do(wiretest.Call{Method: "GET", Path: path}).Body, "priority").Int(); got != 99 {
			t.Errorf("priority %d, want 99", got)
		}
	}
	h.Do(wiretest.Call{Method: "PUT", Path: "/configurations/cfg", Body: `{"content":{"deviceContent":{"properties.desired":null}},"targetCondition":""}`}).
		WantError(t, 400, "InvalidConfigurationContent", "properties.desired must be an object")
}

func TestOnlySoManyConfigurations(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	for n := range 100 {
		device := wiretest.DeviceConfiguration(fmt.Sprint("device-", n), "", 1, map[string]string{"a": "1"})
		wiretest.PutConfiguration(t, h.Node, device, hub.Match{})
		edge := wiretest.EdgeDeployment(t, fmt.Sprint("edge-", n), "", 1, wiretest.BaseDeployment())
		wiretest.PutConfiguration(t, h.Node, edge, hub.Match{})
		if n < 99 {
			continue
		}
		device.ID, edge.ID = "device-more", "edge-more"
		for _, spec := range []configurations.Spec{device, edge} {
			if _, err := h.Configurations.Put(spec, hub.Match{}); !errors.Is(err, hub.ErrTooManyConfigurations) {
				t.Errorf("%s: %v, want %v", spec.ID, err, hub.ErrTooManyConfigurations)
			}
		}
	}
	for query, want := range map[string]int64{"": 200, "top=500&": 200, "top=150&": 150, "top=0&": 200} {
		body := h.Do(wiretest.Call{Method: "GET", Path: "/configurations?" + query + "api-version=2021-04-12"}).Want(t, 200, "").Body
		if got := gjson.Get(body, "#").Int(); got != want {
			t.Errorf("GET /configurations?%s has %d, want %d", query, got, want)
		}
	}
}

func TestConfigurationQueriesAreTested(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	for body, want := range map[string]string{
		`{"targetCondition":"tags.a = 1","customMetricQueries":{"m":"SELECT deviceId FROM devices"}}`:         `{"targetConditionError":null,"customMetricQueryErrors":{}}`,
		`{"targetCondition":"","customMetricQueries":null}`:                                                   `{"targetConditionError":null,"customMetricQueryErrors":{}}`,
		`{"targetCondition":"tags.my-tag = 1","customMetricQueries":{"m":"SELECT tags.my-tag FROM devices"}}`: `{"targetConditionError":null,"customMetricQueryErrors":{}}`,
		`{"targetCondition":"tags.a = 1 -- one"}`:                                                             `{"targetConditionError":"SQL query parse failed due to following errors: *","customMetricQueryErrors":{}}`,
		`{"targetCondition":"from devices.modules where moduleId = 'm'"}`:                                     `{"targetConditionError":null,"customMetricQueryErrors":{}}`,
		`{"targetCondition":"tags.a =","customMetricQueries":{"m":"SELECT"}}`: `{"targetConditionError":"SQL query parse failed due to following errors: *",` +
			`"customMetricQueryErrors":{"m":"SQL query parse failed due to following errors: *"}}`,
	} {
		h.Do(wiretest.Call{Method: "POST", Path: "/configurations/testQueries", Body: body}).Want(t, 200, want)
	}
}
