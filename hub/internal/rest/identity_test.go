package rest_test

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

const (
	key1 = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	key2 = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
)

func quoted(etag string) map[string]string { return map[string]string{"If-Match": `"` + etag + `"`} }

func TestDeviceIdentity(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	body := `{"deviceId":"dev1","authentication":{"symmetricKey":{"primaryKey":"` + key1 + `","secondaryKey":"` + key2 + `"},"type":"sas"}}`
	created := h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: body})
	etag := created.Text(t, "etag")
	want := `{"deviceId":"dev1","generationId":"639090772135897932","etag":"` + etag + `","connectionState":"Disconnected",` +
		`"status":"enabled","statusReason":null,"connectionStateUpdatedTime":"0001-01-01T00:00:00Z","statusUpdatedTime":"0001-01-01T00:00:00Z",` +
		`"lastActivityTime":"0001-01-01T00:00:00Z","cloudToDeviceMessageCount":0,` +
		`"authentication":{"symmetricKey":{"primaryKey":"` + key1 + `","secondaryKey":"` + key2 + `"},` +
		`"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"type":"sas"},` +
		`"capabilities":{"iotEdge":false},"parentScopes":[]}`
	created.Want(t, 200, want)
	if got := created.Header.Get("ETag"); got != `"`+etag+`"` {
		t.Errorf("ETag is %s, want the quoted %s", got, etag)
	}
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1"}).Want(t, 200, want)
	h.Do(wiretest.Call{Method: "GET", Path: "/devices"}).Want(t, 200, "["+want+"]")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: body}).
		WantError(t, 409, "DeviceAlreadyExists", "A device with ID 'dev1' is already registered.")

	// What was given is sent back, with another status.
	disabled := strings.Replace(want, `"enabled","statusReason":null`, `"Disabled","statusReason":"<broken> & lost"`, 1)
	updated := h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: disabled, Header: quoted(etag)})
	next := updated.Text(t, "etag")
	want = strings.NewReplacer(etag, next, `"Disabled"`, `"disabled"`, `"statusUpdatedTime":"0001-01-01T00:00:00Z"`, `"statusUpdatedTime":"2026-03-14T09:26:53.5897932Z"`).Replace(disabled)
	updated.Want(t, 200, want)
	if number(t, next) != number(t, etag)+1 {
		t.Errorf("etag %s is followed by %s", etag, next)
	}
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: body, Header: quoted(etag)}).WantError(t, 412, "PreconditionFailed", "*")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: body, Header: map[string]string{"If-Match": `""`}}).Want(t, 409, "")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev2", Body: `{}`, Header: map[string]string{"If-Match": "*"}}).WantError(t, 404, "DeviceNotFound", "dev2")
	h.Do(wiretest.Call{Method: "DELETE", Path: "/devices/dev1", Header: quoted(etag)}).Want(t, 412, "")
	if a := h.Do(wiretest.Call{Method: "DELETE", Path: "/devices/dev1", Header: quoted(next)}).Want(t, 204, ""); a.Body != "" {
		t.Errorf("204 with the body %q", a.Body)
	}
	h.Do(wiretest.Call{Method: "DELETE", Path: "/devices/dev1"}).WantError(t, 404, "DeviceNotFound", "dev1")
	h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1"}).WantError(t, 404, "DeviceNotFound", "dev1")
	h.Do(wiretest.Call{Method: "PATCH", Path: "/devices/dev1"}).WantError(t, 405, "GenericMethodNotAllowed", "*")
}

func number(t *testing.T, etag string) int {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(etag)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCredentialsOfAnIdentity(t *testing.T) {
	sha1, sha256 := strings.Repeat("aB", 20), strings.Repeat("01", 32)
	const none = `"symmetricKey":{"primaryKey":null,"secondaryKey":null},"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null}`
	made := `"symmetricKey":{"primaryKey":"*","secondaryKey":"*"},"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"type":"sas"`
	selfSigned := `"symmetricKey":{"primaryKey":null,"secondaryKey":null},"x509Thumbprint":{"primaryThumbprint":"` + sha1 + `","secondaryThumbprint":"` + sha256 + `"},"type":"selfSigned"`
	h := wiretest.StartREST(t, node.Options{})
	for n, tt := range []struct{ name, authentication, want string }{
		{"absent", ``, made},
		{"null", `null`, made},
		{"only a type", `{"type":"sas"}`, made},
		{"empty keys, as Node sends", `{"symmetricKey":{"primaryKey":"","secondaryKey":""},"type":"sas"}`, made},
		{"null keys", `{"symmetricKey":{"primaryKey":null,"secondaryKey":null}}`, made},
		{"thumbprints without a type", `{"x509Thumbprint":{"primaryThumbprint":"` + sha1 + `","secondaryThumbprint":"` + sha256 + `"}}`, selfSigned},
		{"thumbprints and null keys", `{"symmetricKey":null,"x509Thumbprint":{"primaryThumbprint":"` + sha1 + `","secondaryThumbprint":"` + sha256 + `"},"type":"SelfSigned"}`, selfSigned},
		{"a CA", `{"type":"certificateAuthority"}`, none + `,"type":"certificateAuthority"`},
		{"none", `{"type":"none","symmetricKey":{"primaryKey":"` + key1 + `","secondaryKey":"` + key2 + `"}}`, none + `,"type":"none"`},
		{"one key", `{"symmetricKey":{"primaryKey":"` + key1 + `"}}`, ""},
		{"no base64", `{"symmetricKey":{"primaryKey":"` + key1 + `","secondaryKey":"!"}}`, ""},
		{"a key of 3 bytes", `{"symmetricKey":{"primaryKey":"` + key1 + `","secondaryKey":"AAAA"}}`, ""},
		{"a thumbprint of 39 digits", `{"x509Thumbprint":{"primaryThumbprint":"` + sha1[1:] + `"}}`, ""},
		{"selfSigned without a thumbprint", `{"type":"selfSigned"}`, ""},
		{"an unknown type", `{"type":"magic"}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := `{}`
			if tt.authentication != "" {
				body = `{"authentication":` + tt.authentication + `}`
			}
			for _, path := range []string{fmt.Sprintf("/devices/dev%d", n), fmt.Sprintf("/devices/dev/modules/mod%d", n)} {
				h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev", Body: `{}`})
				a := h.Do(wiretest.Call{Method: "PUT", Path: path, Body: body})
				if tt.want == "" {
					a.Want(t, 400, "")
					if got := a.Header.Get("iothub-errorcode"); got != "ArgumentInvalid" {
						t.Errorf("iothub-errorcode is %s", got)
					}
					continue
				}
				_, got, _ := strings.Cut(a.Body, `"authentication":{`)
				got, _, _ = strings.Cut(got, `},"capabilities"`)
				wiretest.Answer{Status: a.Status, Body: strings.TrimSuffix(got, "}}")}.Want(t, 200, tt.want)
			}
		})
	}
}

// An update with empty keys makes new ones, as the tests of the Azure CLI want
// it, and one without keys keeps them.
func TestUpdatesOfKeys(t *testing.T) {
	const keys = `{"authentication":{"type":"sas","symmetricKey":{"primaryKey":"` + key1 + `","secondaryKey":"` + key2 + `"}}}`
	const bulk = `[{"id":"dev1","moduleId":"%s","importMode":"update",%s]`
	h := wiretest.StartREST(t, node.Options{})
	for _, tt := range []struct {
		name, body string
		kept       bool
	}{
		{"empty keys", `{"authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}}`, false},
		{"the same keys", keys, true},
		{"null keys", `{"authentication":{"type":"sas","symmetricKey":{"primaryKey":null,"secondaryKey":null}}}`, true},
		{"a null symmetricKey", `{"authentication":{"type":"sas","symmetricKey":null}}`, true},
		{"no keys", `{"authentication":{"type":"sas"}}`, true},
		{"null", `{"authentication":null}`, true},
		{"nothing", `{}`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, module := range []string{"", "mod1"} {
				path := strings.TrimSuffix("/devices/dev1/modules/"+module, "/modules/")
				any := map[string]string{"If-Match": "*"}
				entry := fmt.Sprintf(bulk, module, tt.body[1:])
				for _, update := range []wiretest.Call{
					{Method: "PUT", Path: path, Body: tt.body, Header: any},
					{Method: "POST", Path: "/devices", Body: strings.Replace(entry, ",}", "}", 1)},
				} {
					if h.Do(wiretest.Call{Method: "PUT", Path: path, Body: keys, Header: any}).Status == 404 {
						h.Do(wiretest.Call{Method: "PUT", Path: path, Body: keys}).Want(t, 200, "")
					}
					h.Do(update).Want(t, 200, "")
					a := h.Do(wiretest.Call{Method: "GET", Path: path})
					primary, secondary := a.Text(t, "authentication.symmetricKey.primaryKey"), a.Text(t, "authentication.symmetricKey.secondaryKey")
					if primary == "" || (primary == key1) != tt.kept || (secondary == key2) != tt.kept {
						t.Errorf("%s %s: the keys are kept: %v and %v, want %v", update.Method, update.Path, primary == key1, secondary == key2, tt.kept)
					}
				}
			}
		})
	}
}

func TestIdentityRefusals(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	for name, tt := range map[string]struct{ path, body, want string }{
		"another id in the body":   {"/devices/dev1", `{"deviceId":"dev2"}`, "deviceId in the body is not the one of the path"},
		"an illegal character":     {"/devices/dev%20one", `{}`, "device id *"},
		"a slash":                  {"/devices/a%2Fb", `{}`, "device id *"},
		"129 characters":           {"/devices/" + strings.Repeat("d", 129), `{}`, "device id *"},
		"an unknown status":        {"/devices/dev1", `{"status":"asleep"}`, "status must be enabled or disabled"},
		"a status reason too long": {"/devices/dev1", `{"statusReason":"` + strings.Repeat("x", 129) + `"}`, "statusReason must be at most 128 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			a := h.Do(wiretest.Call{Method: "PUT", Path: tt.path, Body: tt.body})
			if a.Status != 400 || a.Header.Get("iothub-errorcode") != "ArgumentInvalid" {
				t.Errorf("%d %s", a.Status, a.Body)
			}
		})
	}
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/" + strings.Repeat("d", 128), Body: `{}`}).Want(t, 200, "")
}

func TestEveryLegalCharacterOfAnID(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	const id = `Az09-:.+%25_%23*%3F!(),=@;$'`
	plain := strings.NewReplacer("%25", "%", "%23", "#", "%3F", "?").Replace(id)
	a := h.Do(wiretest.Call{Method: "PUT", Path: "/devices/" + id, Body: `{}`}).Want(t, 200, "")
	if diff := cmp.Diff(plain, a.Text(t, "deviceId")); diff != "" {
		t.Errorf("deviceId (-want +got):\n%s", diff)
	}
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/" + id + "/modules/" + id, Body: `{}`}).Want(t, 200, "")
	if got := h.Do(wiretest.Call{Method: "GET", Path: "/twins/" + id + "/modules/" + id}).Text(t, "moduleId"); got != plain {
		t.Errorf("moduleId is %s, want %s", got, plain)
	}
}

func TestListShowsAtMostTop(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	for n := range 3 {
		h.Do(wiretest.Call{Method: "PUT", Path: fmt.Sprintf("/devices/dev%d", n), Body: `{}`}).Want(t, 200, "")
	}
	for query, want := range map[string]int{"": 3, "&top=2": 2, "&top=1": 1, "&top=0": 3, "&top=-1": 3, "&top=1001": 3, "&top=x": 3} {
		a := h.Do(wiretest.Call{Method: "GET", Path: "/devices?api-version=2021-04-12" + query})
		if got := strings.Count(a.Body, `"deviceId"`); got != want {
			t.Errorf("top %q shows %d devices, want %d", query, got, want)
		}
	}
}

func TestModuleIdentity(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1/modules"}).WantError(t, 404, "DeviceNotFound", "dev1")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1/modules/m1", Body: `{}`}).WantError(t, 404, "DeviceNotFound", "dev1")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1/modules"}).Want(t, 200, `[]`)
	created := h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1/modules/m1", Body: `{"moduleId":"m1","deviceId":"dev1","managedBy":"me"}`})
	etag := created.Text(t, "etag")
	want := `{"moduleId":"m1","managedBy":"me","deviceId":"dev1","generationId":"639090772135897932","etag":"` + etag + `",` +
		`"connectionState":"Disconnected","connectionStateUpdatedTime":"0001-01-01T00:00:00Z","lastActivityTime":"0001-01-01T00:00:00Z",` +
		`"cloudToDeviceMessageCount":0,"authentication":{"symmetricKey":{"primaryKey":"*","secondaryKey":"*"},` +
		`"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"type":"sas"}}`
	created.Want(t, 200, want)
	if got := created.Header.Get("ETag"); got != "" {
		t.Errorf("a module has the ETag header %s", got)
	}
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1/modules/m1"}).Want(t, 200, want)
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1/modules"}).Want(t, 200, "["+want+"]")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1/modules/m1", Body: `{}`}).WantError(t, 409, "ModuleAlreadyExistsOnDevice", "*")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1/modules/m1", Body: created.Body, Header: quoted(etag)}).Want(t, 200, strings.Replace(want, etag, "*", 1))
	h.Do(wiretest.Call{Method: "DELETE", Path: "/devices/dev1/modules/m1", Header: quoted(etag)}).Want(t, 412, "")
	h.Do(wiretest.Call{Method: "DELETE", Path: "/devices/dev1/modules/m1", Header: map[string]string{"If-Match": `"*"`}}).Want(t, 204, "")
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1/modules/m1"}).WantError(t, 404, "ModuleNotFound", "*")
	h.Do(wiretest.Call{Method: "GET", Path: "/twins/dev1/modules/m1"}).WantError(t, 404, "ModuleNotFound", "*")
}

func TestADeviceHasAtMostFiftyModules(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Want(t, 200, "")
	for n := range 50 {
		h.Do(wiretest.Call{Method: "PUT", Path: fmt.Sprintf("/devices/dev1/modules/m%d", n), Body: `{}`}).Want(t, 200, "")
	}
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1/modules/m50", Body: `{}`}).WantError(t, 413, "TooManyModulesOnDevice", "*")
}

func TestStatistics(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "GET", Path: "/statistics/devices"}).Want(t, 200, `{"totalDeviceCount":0,"enabledDeviceCount":0,"disabledDeviceCount":0}`)
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1/modules/m1", Body: `{}`}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev2", Body: `{"status":"disabled"}`}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "GET", Path: "/statistics/devices"}).Want(t, 200, `{"totalDeviceCount":2,"enabledDeviceCount":1,"disabledDeviceCount":1}`)
	h.Do(wiretest.Call{Method: "GET", Path: "/statistics/service"}).Want(t, 200, `{"connectedDeviceCount":0}`)
}
