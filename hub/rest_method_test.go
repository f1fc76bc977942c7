package hub_test

import (
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub"
)

// wantNested checks a refusal in the envelope of direct methods.
func (a answer) wantNested(t testing.TB, status int, name string, code, message, info string) {
	t.Helper()
	a.want(t, status, "")
	tracking := strings.ReplaceAll(a.Header.Get("x-ms-request-id"), "-", "")
	want := `{"errorCode":` + code + `,"trackingId":"` + tracking + `-G:0-TimeStamp:03/14/2026 09:26:53","message":"` + message +
		`","info":` + info + `,"timestampUtc":"2026-03-14T09:26:53.5897932Z"}`
	if got := a.text(t, "Message"); got != want {
		t.Errorf("Message is %s\nwant       %s", got, want)
	}
	if got := a.text(t, "ExceptionMessage"); got != "" {
		t.Errorf("ExceptionMessage is %s", got)
	}
	if got := a.Header.Get("iothub-errorcode"); got != name {
		t.Errorf("iothub-errorcode is %s, want %s", got, name)
	}
}

const offline = "The operation failed because the requested device isn't online or hasn't registered the direct method callback. To learn more, see https://aka.ms/iothub404103"

func TestMethodsThatReachNoDevice(t *testing.T) {
	h := startREST(t, hub.Options{})
	h.do(call{method: "PUT", path: "/devices/dev1", body: `{}`}).want(t, 200, "")
	h.do(call{method: "PUT", path: "/devices/dev2", body: `{"status":"disabled"}`}).want(t, 200, "")
	for name, tt := range map[string]struct {
		path, body         string
		status             int
		header, code, text string
		info               string
	}{
		"an offline device":    {"dev1", `{"methodName":"m"}`, 404, "DeviceNotOnline", "404103", offline, `{"timeout":"00:00:00"}`},
		"an unknown device":    {"dev3", `{"methodName":"m"}`, 404, "DeviceNotFound", "404001", "dev3", "null"},
		"a disabled device":    {"dev2", `{"methodName":"m"}`, 404, "DeviceNotFound", "404001", "dev2", "null"},
		"an unknown module":    {"dev1/modules/m1", `{"methodName":"m"}`, 404, "ModuleNotFound", "404010", "device dev1 has no module m1", "null"},
		"no name":              {"dev1", `{"payload":1}`, 400, "ArgumentNull", "400005", "methodName is required", "null"},
		"no body":              {"dev1", ``, 400, "ArgumentNull", "400005", "BadRequest", "null"},
		"a name with a slash":  {"dev1", `{"methodName":"a/b"}`, 400, "ArgumentInvalid", "400004", "methodName must not contain '/'", "null"},
		"a response timeout":   {"dev1", `{"methodName":"m","responseTimeoutInSeconds":4}`, 400, "ArgumentInvalid", "400004", "responseTimeoutInSeconds must be within [5; 300].", "null"},
		"no response timeout":  {"dev1", `{"methodName":"m","responseTimeoutInSeconds":0}`, 400, "ArgumentInvalid", "400004", "responseTimeoutInSeconds must be within [5; 300].", "null"},
		"a connect timeout":    {"dev1", `{"methodName":"m","connectTimeoutInSeconds":301}`, 400, "ArgumentInvalid", "400004", "connectTimeoutInSeconds must be within [0; 300].", "null"},
		"no time at all":       {"dev1", `{"methodName":"m","connectTimeoutInSeconds":9223372036854775807}`, 400, "ArgumentInvalid", "400004", "connectTimeoutInSeconds must be within [0; 300].", "null"},
		"a payload over 128 K": {"dev1", `{"methodName":"m","payload":"` + strings.Repeat("x", 128<<10) + `"}`, 413, "MessageTooLarge", "413001", "payload must be at most 131072 bytes", "null"},
	} {
		t.Run(name, func(t *testing.T) {
			h.do(call{method: "POST", path: "/twins/" + tt.path + "/methods", body: tt.body}).wantNested(t, tt.status, tt.header, tt.code, tt.text, tt.info)
		})
	}
	h.do(call{method: "POST", path: "/twins/dev1/methods", body: `{"methodName":"m"}`, token: "-"}).
		wantNested(t, 401, "IotHubUnauthorizedAccess", "401002", "Unauthorized", "null")
}
