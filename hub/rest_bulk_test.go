package hub_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/iotdm/iotdm/hub"
)

const allApplied = `{"isSuccessful":true,"errors":[],"warnings":[]}`

func TestImportModes(t *testing.T) {
	h := startREST(t, hub.Options{})
	bulk := func(entry string) answer {
		return h.do(call{method: "POST", path: "/devices", body: "[" + entry + "]"})
	}
	etag := func() string { return h.do(call{method: "GET", path: "/devices/dev1"}).text(t, "etag") }
	refused := func(entry string, code int, text string) {
		t.Helper()
		a := bulk(entry).want(t, 400, fmt.Sprintf(`{"isSuccessful":false,"errors":[{"deviceId":"dev1","errorCode":%d,"errorStatus":"%s","moduleId":null,"operation":null}],"warnings":[]}`, code, text))
		for _, name := range []string{"iothub-errorcode", "IotHubErrorCode"} {
			if got := a.Header.Get(name); got != "BulkRegistryOperationFailure" {
				t.Errorf("%s is %q", name, got)
			}
		}
	}

	refused(`{"id":"dev1","importMode":"update"}`, 404001, "dev1")
	refused(`{"id":"dev1","importMode":"updateIfMatchETag"}`, 404001, "dev1")
	refused(`{"id":"dev1","importMode":"updateTwin","tags":{"a":1}}`, 404001, "dev1")
	refused(`{"id":"dev1","importMode":"Delete"}`, 404001, "dev1")
	bulk(`{"id":"dev1","importMode":"create","status":"disabled","tags":{"floor":3},"properties":{"desired":{"interval":5,"$version":9,"$metadata":{}},"reported":{"on":true}}}`).
		want(t, 200, allApplied)
	created := h.do(call{method: "GET", path: "/twins/dev1"})
	for _, want := range []string{`"tags":{"floor":3}`, `"desired":{"interval":5,`, `"reported":{"on":true,`, `"status":"disabled"`, `"etag":"AAAAAAAAAAE="`} {
		if !strings.Contains(created.Body, want) {
			t.Errorf("created twin lacks %s: %s", want, created.Body)
		}
	}
	refused(`{"id":"dev1","importMode":"create"}`, 409001, "A device with ID 'dev1' is already registered.")

	first := etag()
	refused(`{"id":"dev1","importMode":"updateIfMatchETag","eTag":"MQ=="}`, 412001, "PreconditionFailed")
	bulk(`{"id":"dev1","importMode":"UpdateIfMatchETag","eTag":"`+first+`","statusReason":"x"}`).want(t, 200, allApplied)
	bulk(`{"id":"dev1","importMode":"update","etag":"MQ==","tags":{"door":1}}`).want(t, 200, allApplied)
	bulk(`{"id":"dev1","importMode":"createOrUpdate","ETag":"MQ=="}`).want(t, 200, allApplied)
	bulk(`{"id":"dev1"}`).want(t, 200, allApplied)
	refused(`{"id":"dev1","importMode":"createOrUpdateIfMatchETag","eTag":"`+first+`"}`, 412001, "PreconditionFailed")
	bulk(`{"id":"dev1","importMode":"createOrUpdateIfMatchETag","eTag":"\"`+etag()+`\""}`).want(t, 200, allApplied)
	if got, want := number(t, etag()), number(t, first)+5; got != want {
		t.Errorf("the identity's version is %d, want %d", got, want)
	}

	bulk(`{"id":"dev1","importMode":"updateTwin","tags":{"floor":null},"properties":{"desired":{"interval":6}}}`).want(t, 200, allApplied)
	twin := h.do(call{method: "GET", path: "/twins/dev1"})
	if !strings.Contains(twin.Body, `"tags":{"door":1}`) || !strings.Contains(twin.Body, `"interval":6`) {
		t.Errorf("updated twin: %s", twin.Body)
	}
	refused(`{"id":"dev1","importMode":"updateTwinIfMatchETag","twinETag":"AAAAAAAAAAE=","tags":{"x":1}}`, 412001, "ETag mismatch for device ID 'dev1'")
	bulk(`{"id":"dev1","importMode":"UpdateTwinIfMatchETag","twinETag":"`+twin.text(t, "etag")+`","tags":{"x":1}}`).want(t, 200, allApplied)
	refused(`{"id":"dev1","importMode":"updateTwin","tags":{"a.b":1}}`, 400004, "*")

	refused(`{"id":"dev1","importMode":"deleteIfMatchETag","eTag":"`+first+`"}`, 412001, "PreconditionFailed")
	// Azure IoT Explorer's spelling.
	bulk(`{"id":"dev1","importMode":"deleteIfMatchEtag","etag":"*"}`).want(t, 200, allApplied)
	bulk(`{"id":"dev1","importMode":"createOrUpdate"}`).want(t, 200, allApplied)
	bulk(`{"id":"dev1","importMode":"delete"}`).want(t, 200, allApplied)
	h.do(call{method: "GET", path: "/devices"}).want(t, 200, "[]")
}

func TestBulkAppliesEachEntryOnItsOwn(t *testing.T) {
	h := startREST(t, hub.Options{})
	h.do(call{method: "PUT", path: "/devices/b", body: `{}`}).want(t, 200, "")
	h.do(call{method: "POST", path: "/devices", body: `[{"id":"a","importMode":"create"},{"id":"b","importMode":"create"},
		{"id":"a","moduleId":"m","importMode":"create"},{"id":"c","moduleId":"m","importMode":"create"},
		{"id":"a","moduleId":"$edgeHub","importMode":"delete"},{"id":"bad id"}]`}).
		want(t, 400, `{"isSuccessful":false,"errors":[`+
			`{"deviceId":"b","errorCode":409001,"errorStatus":"A device with ID 'b' is already registered.","moduleId":null,"operation":null},`+
			`{"deviceId":"c","errorCode":404001,"errorStatus":"c","moduleId":"m","operation":null},`+
			`{"deviceId":"a","errorCode":401100,"errorStatus":"system modules cannot be modified or deleted","moduleId":"$edgeHub","operation":null},`+
			`{"deviceId":"bad id","errorCode":400004,"errorStatus":"device id *","moduleId":null,"operation":null}],"warnings":[]}`)
	h.do(call{method: "GET", path: "/devices/a/modules/m"}).want(t, 200, "")
}

func TestBulkRefusals(t *testing.T) {
	h := startREST(t, hub.Options{})
	many := strings.TrimSuffix(strings.Repeat(`{"id":"d"},`, 101), ",")
	for body, want := range map[string]string{
		`[]`:                                     "ArgumentInvalid",
		`{}`:                                     "ArgumentInvalid",
		`[{}]`:                                   "ArgumentNull",
		`[` + many + `]`:                         "ArgumentInvalid",
		`[{"id":"a"},{"id":"b"},{"id":"a"}]`:     "DeviceDefinedMultipleTimes",
		`[{"id":"a","importMode":"obliterate"}]`: "ArgumentInvalid",
		`[{"id":"a"}`:                            "IotHubFormatError",
	} {
		a := h.do(call{method: "POST", path: "/devices", body: body}).want(t, 400, "")
		if got := a.Header.Get("iothub-errorcode"); got != want {
			t.Errorf("%.60s: %s, want %s", body, got, want)
		}
	}
	h.do(call{method: "GET", path: "/devices"}).want(t, 200, "[]")
}

func TestBulkTakesAHundred(t *testing.T) {
	h := startREST(t, hub.Options{})
	var entries []string
	for n := range 100 {
		entries = append(entries, fmt.Sprintf(`{"id":"dev%d","tags":{"x":"%s"}}`, n, strings.Repeat("x", 4000)))
	}
	h.do(call{method: "POST", path: "/devices", body: "[" + strings.Join(entries, ",") + "]"}).want(t, 200, allApplied)
	h.do(call{method: "GET", path: "/statistics/devices"}).want(t, 200, `{"totalDeviceCount":100,"enabledDeviceCount":100,"disabledDeviceCount":0}`)
}

func TestRegenerateKeys(t *testing.T) {
	h := startREST(t, hub.Options{})
	body := `{"authentication":{"symmetricKey":{"primaryKey":"` + key1 + `","secondaryKey":"` + key2 + `"}}}`
	for _, path := range []string{"/devices/a", "/devices/a/modules/m"} {
		h.do(call{method: "PUT", path: path, body: body}).want(t, 200, "")
	}
	h.do(call{method: "PUT", path: "/devices/ca", body: `{"authentication":{"type":"certificateAuthority"}}`}).want(t, 200, "")
	keys := func(path string) [2]bool { // which are as they were
		a := h.do(call{method: "GET", path: path})
		return [2]bool{a.text(t, "authentication.symmetricKey.primaryKey") == key1, a.text(t, "authentication.symmetricKey.secondaryKey") == key2}
	}
	rotate := func(body string) answer {
		return h.do(call{method: "POST", path: "/devices/keys/regenerate", body: body})
	}
	rotate(`{"policyKey":"primaryKey","devices":[{"id":"a"}]}`).
		want(t, 200, `{"policyKey":"primaryKey","rotatedKeys":[{"id":"a","moduleId":null}],"errors":[]}`)
	if diff := cmp.Diff([2]bool{false, true}, keys("/devices/a")); diff != "" {
		t.Errorf("unchanged keys (-want +got):\n%s", diff)
	}
	rotate(`{"policyKey":"both","devices":[{"id":"a","moduleId":"m"},{"id":"ca"},{"id":"b"}]}`).
		want(t, 207, `{"policyKey":"both","rotatedKeys":[{"id":"a","moduleId":"m"}],"errors":[`+
			`{"id":"ca","moduleId":null,"errorCode":400003,"errorStatus":"the identity's authentication type is certificateAuthority, not sas"},`+
			`{"id":"b","moduleId":null,"errorCode":404001,"errorStatus":"b"}]}`)
	if diff := cmp.Diff([2]bool{}, keys("/devices/a/modules/m")); diff != "" {
		t.Errorf("unchanged keys (-want +got):\n%s", diff)
	}
	rotate(`{"policyKey":"secondaryKey","devices":[{"id":"b"}]}`).want(t, 400, `{"policyKey":"secondaryKey","rotatedKeys":[],"errors":[{"id":"b","moduleId":null,"errorCode":404001,"errorStatus":"b"}]}`)
	rotate(`{"policyKey":"third","devices":[{"id":"a"}]}`).wantError(t, 400, "ArgumentInvalid", "*")
	rotate(`{"policyKey":"both"}`).wantError(t, 400, "ArgumentInvalid", "*")
}
