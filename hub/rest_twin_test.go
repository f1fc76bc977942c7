package hub_test

import (
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub"
)

const stamp = `"$lastUpdated":"2026-03-14T09:26:53.5897932Z"`

func TestDeviceTwin(t *testing.T) {
	h := startREST(t, hub.Options{})
	h.do(call{method: "GET", path: "/twins/dev1"}).wantError(t, 404, "DeviceNotFound", "dev1")
	etag := h.do(call{method: "PUT", path: "/devices/dev1", body: `{}`}).text(t, "etag")
	head := func(twinETag, version string) string {
		return `{"deviceId":"dev1","etag":"` + twinETag + `","deviceEtag":"` + etag + `","status":"enabled","statusUpdateTime":"0001-01-01T00:00:00Z",` +
			`"connectionState":"Disconnected","lastActivityTime":"0001-01-01T00:00:00Z","cloudToDeviceMessageCount":0,"authenticationType":"sas",` +
			`"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"modelId":"","version":` + version
	}
	fresh := `{"$metadata":{` + stamp + `},"$version":1}`
	const tail = `},"capabilities":{"iotEdge":false}}`
	a := h.do(call{method: "GET", path: "/twins/dev1"}).want(t, 200, head("AAAAAAAAAAE=", "2")+`,"properties":{"desired":`+fresh+`,"reported":`+fresh+tail)
	if got := a.Header.Get("ETag"); got != "" {
		t.Errorf("a twin has the ETag header %s", got)
	}

	stamp2 := `{` + stamp + `,"$lastUpdatedVersion":2`
	first := head("AAAAAAAAAAI=", "3") + `,"tags":{"<&>":1.50},"properties":{"desired":{"user":"A","$metadata":` + stamp2 + `,"user":` + stamp2 + `}},"$version":2},"reported":` + fresh + tail
	body := `{"tags":{"<&>":1.50},"properties":{"desired":{"user":"A","gone":null}}}`
	h.do(call{method: "PATCH", path: "/twins/dev1", body: body, header: map[string]string{"If-Match": `"*"`}}).want(t, 200, first)

	// The whole twin sent back changes nothing but the counters.
	again := h.do(call{method: "PATCH", path: "/twins/dev1", body: first, header: quoted("AAAAAAAAAAI=")}).want(t, 200, "")
	if got := again.text(t, "etag"); got != "AAAAAAAAAAM=" {
		t.Errorf("etag is %s", got)
	}
	h.do(call{method: "PATCH", path: "/twins/dev1", body: first, header: quoted("AAAAAAAAAAI=")}).
		wantError(t, 412, "PreconditionFailed", "ETag mismatch for device ID 'dev1'")

	// The service ignores a tag without its quotes.
	h.do(call{method: "PATCH", path: "/twins/dev1", body: `{"tags":null}`, header: map[string]string{"If-Match": "AAAAAAAAAAI="}}).want(t, 200, "")

	replaced := h.do(call{method: "PUT", path: "/twins/dev1", body: `{"properties":{"desired":{"b":{"c":[1,2]}}}}`}).want(t, 200, "")
	if strings.Contains(replaced.Body, "tags") || !strings.Contains(replaced.Body, `"desired":{"b":{"c":[1,2]},"$metadata"`) {
		t.Errorf("replaced: %s", replaced.Body)
	}
	h.do(call{method: "GET", path: "/twins/dev1"}).want(t, 200, replaced.Body)
}

func TestTwinRefusals(t *testing.T) {
	h := startREST(t, hub.Options{})
	h.do(call{method: "PUT", path: "/devices/dev1", body: `{}`}).want(t, 200, "")
	for name, tt := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"no body":                {``, 400, "ArgumentNull"},
		"not JSON":               {`{"tags":`, 400, "IotHubFormatError"},
		"an array":               {`[]`, 400, "ArgumentInvalid"},
		"tags are a number":      {`{"tags":1}`, 400, "ArgumentInvalid"},
		"desired is an array":    {`{"properties":{"desired":[]}}`, 400, "ArgumentInvalid"},
		"properties are a text":  {`{"properties":"x"}`, 400, "ArgumentInvalid"},
		"a name with a dot":      {`{"properties":{"desired":{"a.b":1}}}`, 400, "ArgumentInvalid"},
		"a name with a dollar":   {`{"properties":{"desired":{"$a":1}}}`, 400, "ArgumentInvalid"},
		"tags of more than 8 K":  {`{"tags":{"a":"` + strings.Repeat("x", 4000) + `","b":"` + strings.Repeat("x", 4000) + `","c":"` + strings.Repeat("x", 400) + `"}}`, 403, "DeviceModelMaxPropertiesExceeded"},
		"a value of more than 4": {`{"tags":{"a":"` + strings.Repeat("x", 4097) + `"}}`, 400, "ArgumentInvalid"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"PATCH", "PUT"} {
				a := h.do(call{method: method, path: "/twins/dev1", body: tt.body})
				if a.Status != tt.status || a.Header.Get("iothub-errorcode") != tt.code {
					t.Errorf("%s: %d %s, want %d %s", method, a.Status, a.Body, tt.status, tt.code)
				}
			}
		})
	}
	if got := h.do(call{method: "GET", path: "/twins/dev1"}).text(t, "etag"); got != "AAAAAAAAAAE=" {
		t.Errorf("a refused write moved the etag to %s", got)
	}
}

func TestModuleTwin(t *testing.T) {
	h := startREST(t, hub.Options{})
	h.do(call{method: "PUT", path: "/devices/dev1", body: `{}`}).want(t, 200, "")
	h.do(call{method: "GET", path: "/twins/dev1/modules/m1"}).wantError(t, 404, "ModuleNotFound", "*")
	etag := h.do(call{method: "PUT", path: "/devices/dev1/modules/m1", body: `{}`}).text(t, "etag")
	never := `{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00Z"},"$version":1}`
	h.do(call{method: "GET", path: "/twins/dev1/modules/m1"}).want(t, 200, `{"deviceId":"dev1","moduleId":"m1","etag":"AAAAAAAAAAE=","deviceEtag":"`+etag+`",`+
		`"status":"enabled","statusUpdateTime":"0001-01-01T00:00:00Z","connectionState":"Disconnected","lastActivityTime":"0001-01-01T00:00:00Z",`+
		`"cloudToDeviceMessageCount":0,"authenticationType":"sas","x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},`+
		`"modelId":"","version":2,"properties":{"desired":`+never+`,"reported":`+never+`}}`)
	h.do(call{method: "PATCH", path: "/twins/dev1/modules/m1", body: `{"properties":{"desired":{"a":1}}}`}).want(t, 200, "")
	if got := h.do(call{method: "GET", path: "/twins/dev1"}).text(t, "etag"); got != "AAAAAAAAAAE=" {
		t.Errorf("a module's patch moved its device's etag to %s", got)
	}
}
