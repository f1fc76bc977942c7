package rest_test

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// whatever is the condition that something exists.
var whatever = map[string]string{"If-Match": "*"}

// What the IoT Edge daemon does with the modules of its device: it creates one,
// gives it keys of its own making, reads and deletes it.
func TestADeviceManagesItsModules(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	own := h.DeviceToken(hub.ID{Device: "dev1"})
	const version = "?api-version=2017-11-08-preview"
	do := func(method, path, body string, header map[string]string) wiretest.Answer {
		return h.Do(wiretest.Call{Method: method, Path: path + version, Body: body, Token: own, Header: header})
	}
	do("GET", "/devices/dev1/modules", "", nil).Want(t, 200, `[]`)
	do("PUT", "/devices/dev1/modules/m1", `{"moduleId":"m1","deviceId":"dev1","managedBy":"me"}`, nil).Want(t, 200, "")
	do("PUT", "/devices/dev1/modules/m1", `{"moduleId":"m1","deviceId":"dev1"}`, nil).WantError(t, 409, "ModuleAlreadyExistsOnDevice", "*")
	do("PUT", "/devices/dev1/modules/m1", `{"moduleId":"m1","deviceId":"dev2"}`, whatever).WantError(t, 400, "ArgumentInvalid", "*")
	do("PUT", "/devices/dev1/modules/m2", `{"moduleId":"m2","deviceId":"dev1"}`, whatever).WantError(t, 404, "ModuleNotFound", "*")
	key := "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	auth := `"authentication":{"symmetricKey":{"primaryKey":"` + key + `","secondaryKey":"` + key + `"},"type":"sas"}`
	a := do("PUT", "/devices/dev1/modules/m1", `{"moduleId":"m1","deviceId":"dev1",`+auth+`}`, whatever)
	a.Want(t, 200, "")
	want := []string{"me", key}
	if diff := cmp.Diff(want, []string{a.Text(t, "managedBy"), a.Text(t, "authentication.symmetricKey.secondaryKey")}); diff != "" {
		t.Errorf("what the device's update left (-want +got):\n%s", diff)
	}
	// A service says what it wants of managedBy.
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1/modules/m1", Body: `{` + auth + `}`, Header: whatever}).Want(t, 200, "")
	if got := do("GET", "/devices/dev1/modules/m1", "", nil).Field(t, "managedBy"); got != nil {
		t.Errorf("managedBy is %v, want null", got)
	}
	do("DELETE", "/devices/dev1/modules/m1", "", whatever).Want(t, 204, "")
	for n := range hub.MaxModulesPerDevice {
		do("PUT", "/devices/dev1/modules/m"+strings.Repeat("x", n+1), `{}`, nil).Want(t, 200, "")
	}
	do("PUT", "/devices/dev1/modules/more", `{}`, nil).WantError(t, 413, "TooManyModulesOnDevice", "*")
}

// The device gives its system modules credentials, and services don't.
func TestADevicesSystemModules(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/edge", Body: `{"capabilities":{"iotEdge":true}}`}).Want(t, 200, "")
	own, plain := h.DeviceToken(hub.ID{Device: "edge"}), h.DeviceToken(hub.ID{Device: "dev1"})
	const path = "/devices/edge/modules/$edgeAgent"
	key := "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	body := `{"managedBy":"me","status":"disabled","authentication":{"symmetricKey":{"primaryKey":"` + key + `","secondaryKey":"` + key + `"}}}`
	h.Do(wiretest.Call{Method: "PUT", Path: path, Body: body, Header: whatever}).WantError(t, 401, "SystemModuleModifyUnauthorizedAccess", "*")
	a := h.Do(wiretest.Call{Method: "PUT", Path: path, Body: body, Header: whatever, Token: own})
	a.Want(t, 200, "")
	if diff := cmp.Diff([]string{"IotEdge", key}, []string{a.Text(t, "managedBy"), a.Text(t, "authentication.symmetricKey.primaryKey")}); diff != "" {
		t.Errorf("the system module (-want +got):\n%s", diff)
	}
	for _, c := range []wiretest.Call{
		{Method: "PUT", Path: path, Body: body, Token: own},
		{Method: "DELETE", Path: path, Header: whatever, Token: own},
		{Method: "PUT", Path: "/devices/dev1/modules/$edgeAgent", Body: `{}`, Token: plain},
	} {
		h.Do(c).WantError(t, 401, "SystemModuleModifyUnauthorizedAccess", "*")
	}
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1/modules/$edgeAgent", Body: `{}`, Header: whatever, Token: plain}).WantError(t, 404, "ModuleNotFound", "*")
	h.Do(wiretest.Call{Method: "PUT", Path: path, Body: `{"authentication":{"symmetricKey":{"primaryKey":"short"}}}`, Header: whatever, Token: own}).WantError(t, 400, "ArgumentInvalid", "*")
}

// A device with a certificate manages its modules with it.
func TestADeviceManagesItsModulesWithItsCertificate(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	ofDevice, ofModule := wiretest.Issue("x", nil, wiretest.Now.Add(time.Hour)), wiretest.Issue("x", nil, wiretest.Now.Add(time.Hour))
	devicePrint, modulePrint := wiretest.Thumbprint(ofDevice), wiretest.Thumbprint(ofModule)
	byPrint := func(print *string) hub.IdentitySpec {
		return hub.IdentitySpec{Auth: hub.Authentication{X509: hub.X509Thumbprint{Primary: print}}}
	}
	wiretest.Create(t, h.Node, hub.ID{Device: "dev1"}, byPrint(&devicePrint))
	wiretest.Create(t, h.Node, hub.ID{Device: "dev1", Module: "m1"}, byPrint(&modulePrint))
	h.Module("dev2", "m1")
	for name, tt := range map[string]struct {
		certificate *tls.Certificate
		token       string
		own         int // the answer to the list of dev1's modules
	}{
		"the device's":                   {&ofDevice, "-", 200},
		"the module's":                   {&ofModule, "-", 401},
		"none":                           {nil, "-", 401},
		"the device's, under a token":    {&ofDevice, h.DeviceToken(hub.ID{Device: "dev2"}), 401},
		"the device's, under a policy's": {&ofDevice, h.Token("service"), 401},
		"any, under the owner's token":   {&ofModule, "", 200},
	} {
		t.Run(name, func(t *testing.T) {
			config := h.ClientTLS()
			config.ServerName, config.Time = h.HostName, h.Now
			if tt.certificate != nil {
				config.Certificates = []tls.Certificate{*tt.certificate}
			}
			with := *h
			transport := &http.Transport{TLSClientConfig: config}
			defer transport.CloseIdleConnections()
			with.Client = &http.Client{Transport: transport}
			with.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1/modules", Token: tt.token}).Want(t, tt.own, "")
			if tt.token == "-" {
				with.Do(wiretest.Call{Method: "GET", Path: "/devices/dev2/modules", Token: tt.token}).Want(t, 401, "")
				with.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1", Token: tt.token}).Want(t, 401, "")
			}
		})
	}
}
