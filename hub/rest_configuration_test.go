package hub_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hub"
)

func TestConfigurationsOverREST(t *testing.T) {
	h := startREST(t, hub.Options{})
	h.do(call{method: "PUT", path: "/devices/dev1", body: `{}`}).want(t, 200, "")
	const body = `{"id":"cfg1","schemaVersion":null,"labels":{"HostPlatform":"SomeValue"},"content":{"deviceContent":{"properties.desired.key":"value"},"moduleContent":{},"modulesContent":{}},` +
		`"targetCondition":"*","createdTimeUtc":"0001-01-01T00:00:00","lastUpdatedTimeUtc":"0001-01-01T00:00:00","priority":10,` +
		`"metrics":{"results":{},"queries":{"waiting":"SELECT deviceId FROM devices WHERE properties.reported.key != 'value'","odd":"select *"}},"etag":"*"}`
	doc := func(targeted, applied, etag string) string {
		return `{"id":"cfg1","schemaVersion":null,"labels":{"HostPlatform":"SomeValue"},"content":{"deviceContent":{"properties.desired.key":"value"}},` +
			`"targetCondition":"[*]","createdTimeUtc":"2026-03-14T09:26:53.5897932Z","lastUpdatedTimeUtc":"2026-03-14T09:26:53.5897932Z","priority":10,` +
			`"systemMetrics":{"results":{"appliedCount":` + applied + `,"targetedCount":` + targeted + `},"queries":{"appliedCount":"select deviceId from devices where configurations.[[cfg1]].status = 'Applied'","targetedCount":"select deviceId from devices"}},` +
			`"metrics":{"results":{"waiting":0},"queries":{"odd":"select [*]","waiting":"SELECT deviceId FROM devices WHERE properties.reported.key != 'value'"}},"etag":"` + etag + `"}`
	}
	same := func(a answer, want string) {
		t.Helper()
		if diff := cmp.Diff(strings.ReplaceAll(want, "[*]", "*"), a.want(t, 200, "").Body); diff != "" {
			t.Errorf("body (-want +got):\n%s", diff)
		}
	}
	a := h.do(call{method: "PUT", path: "/configurations/cfg1", body: body})
	if got := a.want(t, 200, "").Header.Get("ETag"); got != `"MQ=="` || a.text(t, "etag") != "MQ==" {
		t.Errorf("the etag of a new configuration is %s", got)
	}
	wantConfigured(t, h.Server, hub.ID{Device: "dev1"}, `{"key":"value"} {"cfg1":{"status":"Applied"}}`)
	same(h.do(call{method: "GET", path: "/configurations/cfg1"}), doc("1", "1", "MQ=="))
	same(h.do(call{method: "GET", path: "/configurations/?top=500&api-version=2021-04-12"}), "["+doc("1", "1", "MQ==")+"]")
	if got := h.do(call{method: "GET", path: "/twins/dev1"}).text(t, "configurations.cfg1.status"); got != "Applied" {
		t.Errorf("the twin says %s", got)
	}

	h.do(call{method: "PUT", path: "/configurations/cfg1", body: body}).wantError(t, 409, "ConfigurationAlreadyExists", "A configuration with ID 'cfg1' already exists.")
	h.do(call{method: "PUT", path: "/configurations/cfg1", body: strings.Replace(body, `"value"}`, `"other"}`, 1), header: map[string]string{"If-Match": `"MQ=="`}}).
		wantError(t, 400, "CannotModifyImmutableConfigurationContent", "the content of a configuration cannot be changed")
	// The Python SDK sends the etag without its quotes.
	same(h.do(call{method: "PUT", path: "/configurations/cfg1", body: body, header: map[string]string{"If-Match": `MQ==`}}), doc("1", "1", "Mg=="))
	h.do(call{method: "PUT", path: "/configurations/cfg1", body: body, header: map[string]string{"If-Match": `"MQ=="`}}).wantError(t, 412, "PreconditionFailed", "PreconditionFailed")
	h.do(call{method: "GET", path: "/configurations/none"}).wantError(t, 404, "ConfigurationNotFound", "none")
	h.do(call{method: "DELETE", path: "/configurations/cfg1", header: map[string]string{"If-Match": `"*"`}}).want(t, 204, "")
	h.do(call{method: "DELETE", path: "/configurations/cfg1"}).wantError(t, 404, "ConfigurationNotFound", "cfg1")
	h.do(call{method: "GET", path: "/configurations"}).want(t, 200, "[]")
	wantConfigured(t, h.Server, hub.ID{Device: "dev1"}, `{} `)
}

func TestOnlySoManyConfigurations(t *testing.T) {
	h := startREST(t, hub.Options{})
	for n := range 100 {
		device := deviceConfiguration(fmt.Sprint("device-", n), "", 1, map[string]string{"a": "1"})
		putConfiguration(t, h.Server, device, hub.Match{})
		edge := edgeDeployment(t, fmt.Sprint("edge-", n), "", 1, baseDeployment())
		putConfiguration(t, h.Server, edge, hub.Match{})
		if n < 99 {
			continue
		}
		device.ID, edge.ID = "device-more", "edge-more"
		for _, spec := range []hub.ConfigurationSpec{device, edge} {
			if _, err := h.PutConfiguration(spec, hub.Match{}); !errors.Is(err, hub.ErrTooManyConfigurations) {
				t.Errorf("%s: %v, want %v", spec.ID, err, hub.ErrTooManyConfigurations)
			}
		}
	}
	for query, want := range map[string]int64{"": 200, "top=500&": 200, "top=150&": 150, "top=0&": 200} {
		body := h.do(call{method: "GET", path: "/configurations?" + query + "api-version=2021-04-12"}).want(t, 200, "").Body
		if got := gjson.Get(body, "#").Int(); got != want {
			t.Errorf("GET /configurations?%s has %d, want %d", query, got, want)
		}
	}
}

func TestConfigurationQueriesAreTested(t *testing.T) {
	h := startREST(t, hub.Options{})
	for body, want := range map[string]string{
		`{"targetCondition":"tags.a = 1","customMetricQueries":{"m":"SELECT deviceId FROM devices"}}`: `{"targetConditionError":null,"customMetricQueryErrors":{}}`,
		`{"targetCondition":"","customMetricQueries":null}`:                                           `{"targetConditionError":null,"customMetricQueryErrors":{}}`,
		`{"targetCondition":"from devices.modules where moduleId = 'm'"}`:                             `{"targetConditionError":null,"customMetricQueryErrors":{}}`,
		`{"targetCondition":"tags.a =","customMetricQueries":{"m":"SELECT"}}`: `{"targetConditionError":"SQL query parse failed due to following errors: *",` +
			`"customMetricQueryErrors":{"m":"SQL query parse failed due to following errors: *"}}`,
	} {
		h.do(call{method: "POST", path: "/configurations/testQueries", body: body}).want(t, 200, want)
	}
}
