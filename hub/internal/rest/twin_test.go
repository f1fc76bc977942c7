package rest_test

import (
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

const stamp = `"$lastUpdated":"2026-03-14T09:26:53.5897932Z"`

func TestDeviceTwin(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1"}).WantError(t, 404, "DeviceNotFound", "dev1")
	etag := h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Text(t, "etag")
	head := func(twinETag, version string) string {
		return `{"deviceId":"dev1","etag":"` + twinETag + `","deviceEtag":"` + etag + `","status":"enabled","statusUpdateTime":"0001-01-01T00:00:00Z",` +
			`"connectionState":"Disconnected","lastActivityTime":"0001-01-01T00:00:00Z","cloudToDeviceMessageCount":0,"authenticationType":"sas",` +
			`"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"modelId":"","version":` + version
	}
	fresh := `{"$metadata":{` + stamp + `},"$version":1}`
	const tail = `},"capabilities":{"iotEdge":false}}`
	a := h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1"}).Want(t, 200, head("AAAAAAAAAAE=", "2")+`,"properties":{"desired":`+fresh+`,"reported":`+fresh+tail)
	if got := a.Header.Get("ETag"); got != "" {
		t.Errorf("a twin has the ETag header %s", got)
	}

	stamp2 := `{` + stamp + `,"$lastUpdatedVersion":2`
	first := head("AAAAAAAAAAI=", "3") + `,"tags":{"<&>":1.50},"properties":{"desired":{"user":"A","$metadata":` + stamp2 + `,"user":` + stamp2 + `}},"$version":2},"reported":` + fresh + tail
	body := `{"tags":{"<&>":1.50},"properties":{"desired":{"user":"A","gone":null}}}`
	h.Do(wiretest.Call{Method: "PATCH", Path: "/twins/dev1", Body: body, Header: map[string]string{"If-Match": `"*"`}}).Want(t, 200, first)

	// The whole twin sent back changes nothing but the counters.
	again := h.Do(wiretest.Call{Method: "PATCH", Path: "/twins/dev1", Body: first, Header: quoted("AAAAAAAAAAI=")}).Want(t, 200, "")
	if got := again.Text(t, "etag"); got != "AAAAAAAAAAM=" {
		t.Errorf("etag is %s", got)
	}
	h.Do(wiretest.Call{Method: "PATCH", Path: "/twins/dev1", Body: first, Header: quoted("AAAAAAAAAAI=")}).
		WantError(t, 412, "PreconditionFailed", "ETag mismatch for device ID 'dev1'")

	// The service ignores a tag without its quotes.
	h.Do(wiretest.Call{Method: "PATCH", Path: "/twins/dev1", Body: `{"tags":null}`, Header: map[string]string{"If-Match": "AAAAAAAAAAI="}}).Want(t, 200, "")

	replaced := h.Do(wiretest.Call{Method: "PUT", Path: "/twins/dev1", Body: `{"properties":{"desired":{"b":{"c":[1,2]}}}}`}).Want(t, 200, "")
	if strings.Contains(replaced.Body, "tags") || !strings.Contains(replaced.Body, `"desired":{"b":{"c":[1,2]},"$metadata"`) {
		t.Errorf("replaced: %s", replaced.Body)
	}
	h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1"}).Want(t, 200, replaced.Body)
}

func TestTwinRefusals(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Want(t, 200, "")
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
		"a name with a hash":     {`{"properties":{"desired":{"a#b":1}}}`, 400, "ArgumentInvalid"},
		"a tag with a hash":      {`{"tags":{"a":{"#":1}}}`, 400, "ArgumentInvalid"},
		"a member it has not":    {`{"tag":{"a":1}}`, 400, "ArgumentInvalid"},
		"a section at the root":  {`{"desired":{"a":1},"reported":{}}`, 400, "ArgumentInvalid"},
		"tags of more than 8 K":  {`{"tags":{"a":"` + strings.Repeat("x", 4000) + `","b":"` + strings.Repeat("x", 4000) + `","c":"` + strings.Repeat("x", 400) + `"}}`, 403, "DeviceModelMaxPropertiesExceeded"},
		"a value of more than 4": {`{"tags":{"a":"` + strings.Repeat("x", 4097) + `"}}`, 400, "ArgumentInvalid"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"PATCH", "PUT"} {
				a := h.Do(wiretest.Call{Method: method, Path: "/twins/dev1", Body: tt.body})
				if a.Status != tt.status || a.Header.Get("iothub-errorcode") != tt.code {
					t.Errorf("%s: %d %s, want %d %s", method, a.Status, a.Body, tt.status, tt.code)
				}
			}
		})
	}
	if got := h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1"}).Text(t, "etag"); got != "AAAAAAAAAAE=" {
		t.Errorf("a refused write moved the etag to %s", got)
	}
}

// Null clears the desired properties, as two live tests of the Node SDK have it,
// and means nothing elsewhere: the Java SDK sends it for what is not set.
func TestNullInATwin(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{Clock: clock.New()})
	d, m := wiretest.DialTLS(t, h.Hub), wiretest.DialTLS(t, h.Hub)
	d.Connect(h.Device("dev1"))
	m.Connect(h.Module("dev1", "m1"))
	for path, peer := range map[string]struct {
		*wiretest.Client
		id hub.ID
	}{"/twins/dev1": {d, hub.ID{Device: "dev1"}}, "/twins/dev1/modules/m1": {m, hub.ID{Device: "dev1", Module: "m1"}}} {
		d := peer.Client
		d.Subscribe(0, "$iothub/twin/PATCH/properties/desired/#")
		topic := func(version string) string { return "$iothub/twin/PATCH/properties/desired/?$version=" + version }
		write := func(method, body string) string {
			t.Helper()
			h.Do(wiretest.Call{Method: method, Path: path, Body: body, Header: map[string]string{"If-Match": "*"}}).Want(t, 200, "")
			v, err := h.Twin(peer.id)
			doc, _ := v.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			return string(doc)
		}
		write("PATCH", `{"tags":{"t":1},"properties":{"desired":{"a":1,"b":{"c":2}}}}`)
		d.WantPublish(topic("2"), `{"a":1,"b":{"c":2},"$version":2}`)
		for _, body := range []string{`{"tags":null}`, `{"properties":null}`, `{"tags":null,"properties":{}}`, `null`, `{}`} {
			if got := write("PATCH", body); !strings.Contains(got, `"tags":{"t":1},"properties":{"desired":{"a":1,"b":{"c":2},"$metadata"`) {
				t.Errorf("%s: after %s the twin is %s", path, body, got)
			}
		}
		if got := write("PATCH", `{"properties":{"desired":null}}`); !strings.Contains(got, `"tags":{"t":1},"properties":{"desired":{"$metadata":{"$lastUpdated":`) || !strings.Contains(got, `"$version":3}`) {
			t.Errorf("%s: cleared, the twin is %s", path, got)
		}
		d.WantPublish(topic("3"), `{"a":null,"b":null,"$version":3}`)
		write("PUT", `{"tags":null,"properties":{"desired":{"a":{"b":1,"c":2},"d":3}}}`)
		d.WantPublish(topic("4"), `{"a":{"b":1,"c":2},"d":3,"$version":4}`)
		write("PUT", `{"tags":null,"properties":{"desired":{"a":{"c":2}}}}`)
		d.WantPublish(topic("5"), `{"a":{"b":null,"c":2},"d":null,"$version":5}`)
		write("PUT", `{"tags":null,"properties":{"desired":null}}`)
		d.WantPublish(topic("6"), `{"a":null,"$version":6}`)
		for _, body := range []string{`{"tags":{"a":1,"my-tag":null}}`, `{"properties":{"desired":{"x":{"my-tag":null}}}}`} {
			where := ""
			if strings.Contains(body, "x") {
				where = " (x.my-tag)"
			}
			h.Do(wiretest.Call{Method: "PUT", Path: path, Body: body}).
				WantError(t, 400, "ArgumentInvalid", "Value of Property or Tag cannot be null. Error in Property/Tag my-tag"+where)
		}
	}
}

// SDKs send back what they have, and their types for it differ.
func TestATwinOfWhichSomethingIsKnown(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1/modules/m1", Body: `{}`}).Want(t, 200, "")
	for _, path := range []string{"/twins/dev1", "/twins/dev1/modules/m1"} {
		whole := h.Do(wiretest.Call{Method: "GET", Path: path}).Body
		for _, body := range []string{
			whole, `{"deviceId":"dev1","etag":"AAAAAAAAAAE="}`, `{"Tags":{"a":1}}`, `{"x":1,"PROPERTIES":{}}`, `{"generationId":null}`, `{}`,
		} {
			for _, method := range []string{"PATCH", "PUT"} {
				h.Do(wiretest.Call{Method: method, Path: path, Body: body}).Want(t, 200, "")
			}
		}
		for _, body := range []string{`{"tag":{"a":1}}`, `{"":{}}`, `{"propertys":{"desired":{}},"reported":1}`} {
			for _, method := range []string{"PATCH", "PUT"} {
				h.Do(wiretest.Call{Method: method, Path: path, Body: body}).
					WantError(t, 400, "ArgumentInvalid", "the twin has neither tags nor properties; only those can be changed")
			}
		}
	}
}

func TestModuleTwin(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1/modules/m1"}).WantError(t, 404, "ModuleNotFound", "*")
	etag := h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1/modules/m1", Body: `{}`}).Text(t, "etag")
	never := `{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00Z"},"$version":1}`
	h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1/modules/m1"}).Want(t, 200, `{"deviceId":"dev1","moduleId":"m1","etag":"AAAAAAAAAAE=","deviceEtag":"`+etag+`",`+
		`"status":"enabled","statusUpdateTime":"0001-01-01T00:00:00Z","connectionState":"Disconnected","lastActivityTime":"0001-01-01T00:00:00Z",`+
		`"cloudToDeviceMessageCount":0,"authenticationType":"sas","x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},`+
		`"modelId":"","version":2,"properties":{"desired":`+never+`,"reported":`+never+`}}`)
	h.Do(wiretest.Call{Method: "PATCH", Path: "/twins/dev1/modules/m1", Body: `{"properties":{"desired":{"a":1}}}`}).Want(t, 200, "")
	if got := h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1"}).Text(t, "etag"); got != "AAAAAAAAAAE=" {
		t.Errorf("a module's patch moved its device's etag to %s", got)
	}
}
