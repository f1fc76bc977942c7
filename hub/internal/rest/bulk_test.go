package rest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

const allApplied = `{"isSuccessful":true,"errors":[],"warnings":[]}`

func TestImportModes(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	bulk := func(entry string) wiretest.Answer {
		return h.Do(wiretest.Call{Method: "POST", Path: "/devices", Body: "[" + entry + "]"})
	}
	etag := func() string { return h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1"}).Text(t, "etag") }
	refused := func(entry string, code int, text string) {
		t.Helper()
		a := bulk(entry).Want(t, 400, fmt.Sprintf(`{"isSuccessful":false,"errors":[{"deviceId":"dev1","errorCode":%d,"errorStatus":"%s","moduleId":null,"operation":null}],"warnings":[]}`, code, text))
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
		Want(t, 200, allApplied)
	created := h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1"})
	for _, want := range []string{`"tags":{"floor":3}`, `"desired":{"interval":5,`, `"reported":{"on":true,`, `"status":"disabled"`, `"etag":"AAAAAAAAAAE="`} {
		if !strings.Contains(created.Body, want) {
			t.Errorf("created twin lacks %s: %s", want, created.Body)
		}
	}
	refused(`{"id":"dev1","importMode":"create"}`, 409001, "A device with ID 'dev1' is already registered.")

	first := etag()
	refused(`{"id":"dev1","importMode":"updateIfMatchETag","eTag":"MQ=="}`, 412001, "PreconditionFailed")
	bulk(`{"id":"dev1","importMode":"UpdateIfMatchETag","eTag":"`+first+`","statusReason":"x"}`).Want(t, 200, allApplied)
	bulk(`{"id":"dev1","importMode":"update","etag":"MQ==","tags":{"door":1}}`).Want(t, 200, allApplied)
	bulk(`{"id":"dev1","importMode":"createOrUpdate","ETag":"MQ=="}`).Want(t, 200, allApplied)
	bulk(`{"id":"dev1"}`).Want(t, 200, allApplied)
	refused(`{"id":"dev1","importMode":"createOrUpdateIfMatchETag","eTag":"`+first+`"}`, 412001, "PreconditionFailed")
	bulk(`{"id":"dev1","importMode":"createOrUpdateIfMatchETag","eTag":"\"`+etag()+`\""}`).Want(t, 200, allApplied)
	if got, want := number(t, etag()), number(t, first)+5; got != want {
		t.Errorf("the identity's version is %d, want %d", got, want)
	}

	bulk(`{"id":"dev1","importMode":"updateTwin","tags":{"floor":null},"properties":{"desired":{"interval":6}}}`).Want(t, 200, allApplied)
	twin := h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1"})
	if !strings.Contains(twin.Body, `"tags":{"door":1}`) || !strings.Contains(twin.Body, `"interval":6`) {
		t.Errorf("updated twin: %s", twin.Body)
	}
	refused(`{"id":"dev1","importMode":"updateTwinIfMatchETag","twinETag":"AAAAAAAAAAE=","tags":{"x":1}}`, 412001, "ETag mismatch for device ID 'dev1'")
	bulk(`{"id":"dev1","importMode":"UpdateTwinIfMatchETag","twinETag":"`+twin.Text(t, "etag")+`","tags":{"x":1}}`).Want(t, 200, allApplied)
	refused(`{"id":"dev1","importMode":"updateTwin","tags":{"a.b":1}}`, 400004, "*")
	refused(`{"id":"dev1","importMode":"updateTwin","tags":{"a#b":1}}`, 400004, "Property or Tag name has invalid characters. Error in Property/Tag a#b. Must not contain Control Characters, '.', '$', '#', or ' '.")
	// SDKs have null here for what is not set: it clears nothing.
	bulk(`{"id":"dev1","importMode":"updateTwin","properties":{"desired":null}}`).Want(t, 200, allApplied)
	if twin := h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1"}); !strings.Contains(twin.Body, `"interval":6`) {
		t.Errorf("the twin after an update by null: %s", twin.Body)
	}

	refused(`{"id":"dev1","importMode":"deleteIfMatchETag","eTag":"`+first+`"}`, 412001, "PreconditionFailed")
	// Azure IoT Explorer's spelling.
	bulk(`{"id":"dev1","importMode":"deleteIfMatchEtag","etag":"*"}`).Want(t, 200, allApplied)
	bulk(`{"id":"dev1","importMode":"createOrUpdate"}`).Want(t, 200, allApplied)
	bulk(`{"id":"dev1","importMode":"delete"}`).Want(t, 200, allApplied)
	h.Do(wiretest.Call{Method: "GET", Path: "/devices"}).Want(t, 200, "[]")
}

func TestBulkAppliesEachEntryOnItsOwn(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/b", Body: `{}`}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "POST", Path: "/devices", Body: `[{"id":"a","importMode":"create"},{"id":"b","importMode":"create"},
		{"id":"a","moduleId":"m","importMode":"create"},{"id":"c","moduleId":"m","importMode":"create"},
		{"id":"a","moduleId":"$edgeHub","importMode":"delete"},{"id":"bad id"}]`}).
		Want(t, 400, `{"isSuccessful":false,"errors":[`+
			`{"deviceId":"b","errorCode":409001,"errorStatus":"A device with ID 'b' is already registered.","moduleId":null,"operation":null},`+
			`{"deviceId":"c","errorCode":404001,"errorStatus":"c","moduleId":"m","operation":null},`+
			`{"deviceId":"a","errorCode":401100,"errorStatus":"system modules cannot be modified or deleted","moduleId":"$edgeHub","operation":null},`+
			`{"deviceId":"bad id","errorCode":400004,"errorStatus":"device id *","moduleId":null,"operation":null}],"warnings":[]}`)
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/a/modules/m"}).Want(t, 200, "")
}

func TestBulkRefusals(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
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
		a := h.Do(wiretest.Call{Method: "POST", Path: "/devices", Body: body}).Want(t, 400, "")
		if got := a.Header.Get("iothub-errorcode"); got != want {
			t.Errorf("%.60s: %s, want %s", body, got, want)
		}
	}
	h.Do(wiretest.Call{Method: "GET", Path: "/devices"}).Want(t, 200, "[]")
}

func TestBulkTakesAHundred(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	var entries []string
	for n := range 100 {
		entries = append(entries, fmt.Sprintf(`{"id":"dev%d","tags":{"x":"%s"}}`, n, strings.Repeat("x", 4000)))
	}
	h.Do(wiretest.Call{Method: "POST", Path: "/devices", Body: "[" + strings.Join(entries, ",") + "]"}).Want(t, 200, allApplied)
	h.Do(wiretest.Call{Method: "GET", Path: "/statistics/devices"}).Want(t, 200, `{"totalDeviceCount":100,"enabledDeviceCount":100,"disabledDeviceCount":0}`)
}

func TestRegenerateKeys(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	body := `{"authentication":{"symmetricKey":{"primaryKey":"` + key1 + `","secondaryKey":"` + key2 + `"}}}`
	for _, path := range []string{"/devices/a", "/devices/a/modules/m"} {
		h.Do(wiretest.Call{Method: "PUT", Path: path, Body: body}).Want(t, 200, "")
	}
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/ca", Body: `{"authentication":{"type":"certificateAuthority"}}`}).Want(t, 200, "")
	keys := func(path string) [2]bool { // which are as they were
		a := h.Do(wiretest.Call{Method: "GET", Path: path})
		return [2]bool{a.Text(t, "authentication.symmetricKey.primaryKey") == key1, a.Text(t, "authentication.symmetricKey.secondaryKey") == key2}
	}
	printed := func(path string) string { // both keys as an answer has them
		a := h.Do(wiretest.Call{Method: "GET", Path: path})
		return fmt.Sprintf(`"primaryKey":%q,"secondaryKey":%q`, a.Text(t, "authentication.symmetricKey.primaryKey"), a.Text(t, "authentication.symmetricKey.secondaryKey"))
	}
	rotate := func(body string) wiretest.Answer {
		return h.Do(wiretest.Call{Method: "POST", Path: "/devices/keys/regenerate", Body: body})
	}
	a := rotate(`{"policyKey":"primaryKey","devices":[{"id":"a"}]}`)
	a.Want(t, 200, `{"policyKey":"primaryKey","rotatedKeys":[{"id":"a","moduleId":null,`+printed("/devices/a")+`}],"errors":[]}`)
	if diff := cmp.Diff([2]bool{false, true}, keys("/devices/a")); diff != "" {
		t.Errorf("unchanged keys (-want +got):\n%s", diff)
	}
	a = rotate(`{"policyKey":"both","devices":[{"id":"a","moduleId":"m"},{"id":"ca"},{"id":"b"}]}`)
	a.Want(t, 207, `{"policyKey":"both","rotatedKeys":[{"id":"a","moduleId":"m",`+printed("/devices/a/modules/m")+`}],"errors":[`+
		`{"id":"ca","moduleId":null,"errorCode":400003,"errorStatus":"the identity's authentication type is certificateAuthority, not sas"},`+
		`{"id":"b","moduleId":null,"errorCode":404001,"errorStatus":"b"}]}`)
	if diff := cmp.Diff([2]bool{}, keys("/devices/a/modules/m")); diff != "" {
		t.Errorf("unchanged keys (-want +got):\n%s", diff)
	}
	rotate(`{"policyKey":"secondaryKey","devices":[{"id":"b"}]}`).Want(t, 400, `{"policyKey":"secondaryKey","rotatedKeys":[],"errors":[{"id":"b","moduleId":null,"errorCode":404001,"errorStatus":"b"}]}`)
	rotate(`{"policyKey":"third","devices":[{"id":"a"}]}`).WantError(t, 400, "ArgumentInvalid", "*")
	rotate(`{"policyKey":"both"}`).WantError(t, 400, "ArgumentInvalid", "*")
}
