package rest_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/rest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// needs says who may use a route: shared access policies with one of these
// combinations of rights, and principals with all of these actions. It is
// written from "Control access to IoT Hub", not from the route table.
type needs struct{ rights, actions string }

// An operation is listed as METHOD and path, rights ("a+b" both, "a|b" either)
// and actions.
var rightsOfRoutes = map[string]needs{
	"GET /devices":                                                       {"RegistryRead", "devices/read"},
	"GET /devices/{device}":                                              {"RegistryRead", "devices/read"},
	"GET /devices/{device}/modules":                                      {"RegistryRead", "devices/read"},
	"GET /devices/{device}/modules/{module}":                             {"RegistryRead", "devices/read"},
	"PUT /devices/{device}":                                              {"RegistryWrite", "devices/write"},
	"PUT /devices/{device}/modules/{module}":                             {"RegistryWrite", "devices/write"},
	"DELETE /devices/{device}":                                           {"RegistryWrite", "devices/delete"},
	"DELETE /devices/{device}/modules/{module}":                          {"RegistryWrite", "devices/delete"},
	"POST /devices":                                                      {"RegistryWrite", "devices/write devices/delete"},
	"POST /devices/keys/regenerate":                                      {"RegistryWrite", "devices/write"},
	"GET /statistics/devices":                                            {"RegistryRead", "statistics/read"},
	"GET /statistics/service":                                            {"ServiceConnect", "statistics/read"},
	"GET /twins/{device}":                                                {"ServiceConnect", "twins/read"},
	"PATCH /twins/{device}":                                              {"ServiceConnect", "twins/write"},
	"PUT /twins/{device}":                                                {"ServiceConnect", "twins/write"},
	"GET /twins/{device}/modules/{module}":                               {"ServiceConnect", "twins/read"},
	"PATCH /twins/{device}/modules/{module}":                             {"ServiceConnect", "twins/write"},
	"PUT /twins/{device}/modules/{module}":                               {"ServiceConnect", "twins/write"},
	"POST /twins/{device}/methods":                                       {"ServiceConnect", "directMethods/invoke/action"},
	"POST /twins/{device}/modules/{module}/methods":                      {"ServiceConnect", "directMethods/invoke/action"},
	"POST /devices/query":                                                {"ServiceConnect|RegistryRead", "twins/read"},
	"GET /digitaltwins/{device}":                                         {"ServiceConnect", "twins/read"},
	"PATCH /digitaltwins/{device}":                                       {"ServiceConnect", "twins/write"},
	"POST /digitaltwins/{device}/commands/{name}":                        {"ServiceConnect", "directMethods/invoke/action"},
	"POST /digitaltwins/{device}/components/{component}/commands/{name}": {"ServiceConnect", "directMethods/invoke/action"},
	"POST /devices/{device}/messages/deviceBound":                        {"ServiceConnect", "cloudToDeviceMessages/send/action"},
	"DELETE /devices/{device}/commands":                                  {"ServiceConnect", "cloudToDeviceMessages/queue/purge/action"},
	"GET /messages/serviceBound/feedback":                                {"ServiceConnect", "cloudToDeviceMessages/feedback/action"},
	"DELETE /messages/serviceBound/feedback/{name}":                      {"ServiceConnect", "cloudToDeviceMessages/feedback/action"},
	"POST /messages/serviceBound/feedback/{name}/abandon":                {"ServiceConnect", "cloudToDeviceMessages/feedback/action"},
	"GET /iotdm/events":                                                  {"ServiceConnect", "events/read"},
	"GET /iotdm/nodes":                                                   {"RegistryRead|ServiceConnect", "statistics/read"},
	"GET /iotdm/traffic":                                                 {"RegistryRead|ServiceConnect", "statistics/read"},
	"GET /iotdm/refusals":                                                {"RegistryRead|ServiceConnect", "devices/read"},
	"GET /iotdm/devices/{device}/connection":                             {"RegistryRead|ServiceConnect", "devices/read"},
	"GET /iotdm/devices/{device}/modules/{module}/connection":            {"RegistryRead|ServiceConnect", "devices/read"},
	"GET /iotdm/certificates":                                            {"RegistryRead", "certificates/read"},
	"PUT /iotdm/certificates/{name}":                                     {"RegistryWrite", "certificates/write"},
	"POST /iotdm/certificates/{name}/verify":                             {"RegistryWrite", "certificates/write"},
	"DELETE /iotdm/certificates/{name}":                                  {"RegistryWrite", "certificates/delete"},
	"POST /iotdm/control/reset":                                          {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"GET /iotdm/control/snapshots":                                       {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"PUT /iotdm/control/snapshots/{name}":                                {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"POST /iotdm/control/snapshots/{name}/load":                          {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"DELETE /iotdm/control/snapshots/{name}":                             {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"GET /iotdm/control/clock":                                           {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"POST /iotdm/control/clock":                                          {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"DELETE /iotdm/control/clock":                                        {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"GET /iotdm/control/faults":                                          {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"POST /iotdm/control/faults":                                         {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"DELETE /iotdm/control/faults":                                       {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"DELETE /iotdm/control/faults/{name}":                                {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"GET /iotdm/control/journal":                                         {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"DELETE /iotdm/control/journal":                                      {"RegistryRead+RegistryWrite+ServiceConnect+DeviceConnect", "iotdm/control/action"},
	"PUT /jobs/v2/{name}":                                                {"RegistryRead+RegistryWrite|ServiceConnect", "jobs/write"},
	"POST /jobs/v2/{name}/cancel":                                        {"RegistryRead+RegistryWrite|ServiceConnect", "jobs/delete"},
	"GET /jobs/v2/{name}":                                                {"RegistryRead+RegistryWrite|ServiceConnect", "jobs/read"},
	"GET /jobs/v2/query":                                                 {"RegistryRead+RegistryWrite|ServiceConnect", "jobs/read"},
	"GET /jobs":                                                          {"RegistryRead+RegistryWrite", "jobs/read"},
	"GET /jobs/{name}":                                                   {"RegistryRead+RegistryWrite", "jobs/read"},
	"POST /jobs/create":                                                  {"RegistryRead+RegistryWrite", "jobs/write"},
	"DELETE /jobs/{name}":                                                {"RegistryRead+RegistryWrite", "jobs/delete"},
	"GET /configurations":                                                {"RegistryRead|ServiceConnect", "configurations/read"},
	"GET /configurations/{name}":                                         {"RegistryRead|ServiceConnect", "configurations/read"},
	"PUT /configurations/{name}":                                         {"RegistryWrite|ServiceConnect", "configurations/write"},
	"DELETE /configurations/{name}":                                      {"RegistryWrite|ServiceConnect", "configurations/delete"},
	"POST /configurations/testQueries":                                   {"RegistryRead|ServiceConnect", "configurations/testQueries/action"},
	"POST /devices/{device}/applyConfigurationContent":                   {"RegistryWrite|ServiceConnect", "configurations/applyToEdgeDevice/action"},
}

// routesOfDevices are those that a device or module calls with its own
// credential, or with a policy that has DeviceConnect, and how they answer an
// empty request when nothing waits.
var routesOfDevices = map[string]int{
	"POST /devices/{device}/messages/events":                     204,
	"POST /devices/{device}/modules/{module}/messages/events":    204,
	"GET /devices/{device}/messages/deviceBound":                 204,
	"DELETE /devices/{device}/messages/deviceBound/{name}":       412,
	"POST /devices/{device}/messages/deviceBound/{name}/abandon": 412,
	"POST /devices/{device}/files":                               403,
	"POST /devices/{device}/files/notifications":                 403,
	"POST /devices/{device}/files/notifications/{name}":          403,
}

// routesOfOwners are those of rightsOfRoutes that a device may call, too, with
// its own credential and for its own modules.
var routesOfOwners = []string{
	"GET /devices/{device}/modules",
	"GET /devices/{device}/modules/{module}",
	"PUT /devices/{device}/modules/{module}",
	"DELETE /devices/{device}/modules/{module}",
}

func (n needs) allowPolicy(rights []hub.Right) bool {
	for either := range strings.SplitSeq(n.rights, "|") {
		all := true
		for right := range strings.SplitSeq(either, "+") {
			all = all && slices.Contains(rights, hub.Right(right))
		}
		if all {
			return true
		}
	}
	return false
}

// rolesGrant are the actions of the roles, as "Control access to IoT Hub by
// using Microsoft Entra ID" lists them.
var rolesGrant = map[string]func(action string) bool{
	contributor: func(string) bool { return true },
	reader:      func(a string) bool { return strings.HasSuffix(a, "/read") || a == "fileUpload/notifications/action" },
	registrar:   func(a string) bool { return strings.HasPrefix(a, "devices/") },
	twinEditor:  func(a string) bool { return strings.HasPrefix(a, "twins/") },
	purger: func(a string) bool {
		return a == "cloudToDeviceMessages/queue/purge/action" || strings.HasPrefix(a, "statistics/")
	},
	nobody: func(string) bool { return false },
}

func (n needs) allowPrincipal(grants func(string) bool) bool {
	for action := range strings.FieldsSeq(n.actions) {
		if !grants(action) {
			return false
		}
	}
	return true
}

// fill puts a device, and names that exist nowhere, into the path of a route.
func fill(route, device string) (method, path string) {
	method, path, _ = strings.Cut(route, " ")
	return method, strings.NewReplacer("{device}", device, "{module}", "mod1", "{name}", "name1", "{component}", "c1").Replace(path)
}

func TestEveryRouteHasItsRights(t *testing.T) {
	want := slices.Concat(slices.Collect(maps.Keys(rightsOfRoutes)), slices.Collect(maps.Keys(routesOfDevices)))
	got := rest.Routes()
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

// A rightsHub has a device and a module that exist, and all kinds of callers.
type rightsHub struct {
	*wiretest.RESTHub
	authority *authority
	custom    hub.Policy // RegistryWrite only
}

func startRights(t *testing.T) rightsHub {
	h := rightsHub{authority: newAuthority(t), custom: hub.Policy{
		Name: "writeOnly", Rights: []hub.Right{hub.RegistryWrite}, PrimaryKey: sas.NewKey(), SecondaryKey: sas.NewKey(),
	}}
	// By a seed, since a reset is among what they may.
	seed, err := node.ParseSeed([]byte(`{"devices": [{"deviceId": "dev1", "modules": [{"moduleId": "mod1"}]}, {"deviceId": "dev2"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	h.RESTHub = wiretest.StartREST(t, node.Options{Entra: h.authority.options(), Policies: []hub.Policy{h.custom}, Seed: seed})
	return h
}

func TestPoliciesAndPrincipalsMayDoWhatTheyMay(t *testing.T) {
	h := startRights(t)
	check := func(t *testing.T, route, token, refusal string, allowed bool) {
		t.Helper()
		var answers []string
		for _, device := range []string{"dev1", "dev9"} { // one of them exists
			method, path := fill(route, device)
			if allowed && device == "dev1" && method == "DELETE" {
				continue
			}
			a := h.Do(wiretest.Call{Method: method, Path: path, Token: token})
			if (a.Status != 401) != allowed {
				t.Errorf("%s: %d %s, allowed should be %t", route, a.Status, a.Body, allowed)
			}
			if !allowed && a.Header.Get("iothub-errorcode") != refusal {
				t.Errorf("%s: %s, want %s", route, a.Header.Get("iothub-errorcode"), refusal)
			}
			answers = append(answers, withoutIDs(strings.ReplaceAll(a.Body, "dev1", "dev9")))
		}
		if !allowed {
			if diff := cmp.Diff(answers[0], answers[1]); diff != "" {
				t.Errorf("%s: the refusal shows whether the device exists:\n%s", route, diff)
			}
		}
	}
	for _, p := range append(h.Policies(), h.custom) {
		t.Run(p.Name, func(t *testing.T) {
			token := wiretest.Sign(t, "localhost", p.Name, p.PrimaryKey, wiretest.Now.Add(time.Hour))
			for route, n := range rightsOfRoutes {
				check(t, route, token, "IotHubUnauthorizedAccess", n.allowPolicy(p.Rights))
			}
			if _, err := h.PurgeMessages("dev1"); err != nil {
				t.Fatal(err)
			}
			for route, want := range routesOfDevices {
				method, path := fill(route, "dev1")
				if !slices.Contains(p.Rights, hub.DeviceConnect) {
					want = 401
				}
				h.Do(wiretest.Call{Method: method, Path: path, Token: token}).Want(t, want, "")
			}
		})
	}
	for principal, grants := range rolesGrant {
		t.Run(principal, func(t *testing.T) {
			token := h.authority.bearer(claims(principal))
			for route, n := range rightsOfRoutes {
				check(t, route, token, "IotHubUnauthorized", n.allowPrincipal(grants))
			}
			for route := range routesOfDevices { // devices cannot use Entra ID
				check(t, route, token, "IotHubUnauthorizedAccess", false)
			}
		})
	}
}

// withoutIDs removes from an error body what differs from answer to answer.
func withoutIDs(body string) string { return trackingID.ReplaceAllString(body, "") }

var trackingID = regexp.MustCompile(`[0-9a-f]{32}`)

func TestTokensThatAreNotGoodEnough(t *testing.T) {
	h := startRights(t)
	owner := h.Policies()[slices.IndexFunc(h.Policies(), func(p hub.Policy) bool { return p.Name == "iothubowner" })]
	expiry := wiretest.Now.Add(time.Hour)
	good := h.Token("iothubowner")
	keyOf := func(path string) sas.Key {
		return sas.Key(h.Do(wiretest.Call{Method: "GET", Path: path}).Text(t, "authentication.symmetricKey.primaryKey"))
	}
	device, module := keyOf("/devices/dev1"), keyOf("/devices/dev1/modules/mod1")
	fields := strings.Split(strings.TrimPrefix(good, "SharedAccessSignature "), "&")
	reordered := "SharedAccessSignature " + strings.Join([]string{fields[3], fields[1], fields[2], fields[0]}, "&")
	tests := map[string]struct {
		token string
		want  bool // for every route of the service
	}{
		"the owner's":                       {good, true},
		"the secondary key":                 {wiretest.Sign(t, "localhost", owner.Name, owner.SecondaryKey, expiry), true},
		"re-ordered":                        {reordered, true},
		"the policy's name in another case": {wiretest.Sign(t, "localhost", "IotHubOwner", owner.PrimaryKey, expiry), true},
		"the host in another case":          {wiretest.Sign(t, "LOCALHOST", owner.Name, owner.PrimaryKey, expiry), true},
		"the host with its port":            {wiretest.Sign(t, "localhost:8443", owner.Name, owner.PrimaryKey, expiry), true},
		"expired within the skew":           {wiretest.Sign(t, "localhost", owner.Name, owner.PrimaryKey, wiretest.Now.Add(-4*time.Minute)), true},
		"expired":                           {wiretest.Sign(t, "localhost", owner.Name, owner.PrimaryKey, wiretest.Now.Add(-6*time.Minute)), false},
		"none":                              {"-", false},
		"cut":                               {good[:len(good)-20], false},
		"cut to the scheme":                 {"SharedAccessSignature", false},
		"without its scheme":                {strings.TrimPrefix(good, "SharedAccessSignature "), false},
		"of a foreign key":                  {wiretest.Sign(t, "localhost", owner.Name, sas.NewKey(), expiry), false},
		"of another policy's key":           {wiretest.Sign(t, "localhost", owner.Name, h.custom.PrimaryKey, expiry), false},
		"of a policy that is not there":     {wiretest.Sign(t, "localhost", "nosuch", owner.PrimaryKey, expiry), false},
		"for another hub":                   {wiretest.Sign(t, "other.azure-devices.net", owner.Name, owner.PrimaryKey, expiry), false},
		"for another device":                {wiretest.Sign(t, "localhost/devices/dev2", owner.Name, owner.PrimaryKey, expiry), false},
		"with a changed expiry":             {strings.Replace(good, fmt.Sprint(expiry.Unix()), fmt.Sprint(expiry.Unix()+1), 1), false},
		"of a device key":                   {wiretest.Sign(t, "localhost/devices/dev1", "", device, expiry), false},
		"of a device key, for the hub":      {wiretest.Sign(t, "localhost", "", device, expiry), false},
		"of a device key, under a policy":   {wiretest.Sign(t, "localhost", owner.Name, device, expiry), false},
		"of a module key":                   {wiretest.Sign(t, "localhost/devices/dev1/modules/mod1", "", module, expiry), false},
		"of a module key, for the hub":      {wiretest.Sign(t, "localhost", "", module, expiry), false},
		"basic authentication":              {"Basic aW90aHVib3duZXI6c2VjcmV0", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for route := range rightsOfRoutes {
				method, path := fill(route, "dev9")
				a := h.Do(wiretest.Call{Method: method, Path: path, Token: tt.token})
				if (a.Status != 401) != tt.want {
					t.Errorf("%s: %d %s, accepted should be %t", route, a.Status, a.Body, tt.want)
				}
			}
		})
	}
	// A token for a part of the hub is good for that part, by segments.
	for path, want := range map[string]bool{
		"/devices": true, "/devices/dev1": true, "/devices%2Fdev1": true, "/devices/dev1/modules/mod1": true, "/twins/dev1": false, "/statistics/devices": false,
	} {
		a := h.Do(wiretest.Call{Method: "GET", Path: path, Token: wiretest.Sign(t, "localhost/devices", owner.Name, owner.PrimaryKey, expiry)})
		if (a.Status == 200) != want {
			t.Errorf("a token for /devices on %s: %d", path, a.Status)
		}
	}
	for path, want := range map[string]bool{"/devices/dev2": true, "/devices/dev2/modules": true, "/devices/dev22": false, "/devices/dev1": false, "/devices": false} {
		a := h.Do(wiretest.Call{Method: "GET", Path: path, Token: wiretest.Sign(t, "localhost/devices/dev2", owner.Name, owner.PrimaryKey, expiry)})
		if (a.Status == 200) != want {
			t.Errorf("a token for /devices/dev2 on %s: %d", path, a.Status)
		}
	}
}

func TestDevicesCallTheirRoutesWithTheirOwnCredential(t *testing.T) {
	h := startRights(t)
	key := sas.Key(h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1"}).Text(t, "authentication.symmetricKey.primaryKey"))
	own := wiretest.Sign(t, "localhost/devices/dev1", "", key, wiretest.Now.Add(time.Hour))
	for route, allowed := range routesOfDevices {
		for device, want := range map[string]int{"dev1": allowed, "dev2": 401, "dev9": 401} {
			method, path := fill(route, device)
			h.Do(wiretest.Call{Method: method, Path: path, Token: own, Body: `{"blobName":"x"}`}).Want(t, want, "")
		}
	}
	h.Do(wiretest.Call{Method: "POST", Path: "/devices/dev1/files", Token: own}).WantError(t, 403, "OperationNotAvailableInCurrentTier", "file uploads are not available on this hub")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{"status":"disabled"}`, Header: map[string]string{"If-Match": "*"}}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "POST", Path: "/devices/dev1/files", Token: own}).WantError(t, 401, "IotHubUnauthorizedAccess", "Unauthorized")
}

// A device's own key is good for its own modules, and for nothing else that
// services do.
func TestDevicesManageTheirOwnModulesOnly(t *testing.T) {
	h := startRights(t)
	h.Module("dev2", "mod1")
	dev1, module := hub.ID{Device: "dev1"}, hub.ID{Device: "dev1", Module: "mod1"}
	for name, tt := range map[string]struct {
		token string
		own   bool // it is good for the modules of dev1
	}{
		"the device's":                               {h.DeviceToken(dev1), true},
		"the device's, for the module":               {signed(t, h, dev1, "localhost/devices/dev1/modules/mod1"), true},
		"the device's, for another module":           {signed(t, h, dev1, "localhost/devices/dev1/modules/mod2"), false},
		"the device's, for another device":           {signed(t, h, dev1, "localhost/devices/dev2"), false},
		"the device's, for the hub":                  {signed(t, h, dev1, "localhost"), true},
		"the device's, for another hub":              {signed(t, h, dev1, "other.azure-devices.net/devices/dev1"), false},
		"the device's, without devices":              {signed(t, h, dev1, "localhost/dev1"), true},
		"the device's, encoded twice":                {signed(t, h, dev1, "localhost%2Fdevices%2Fdev1"), true},
		"the device's, expired":                      {wiretest.Sign(t, "localhost/devices/dev1", "", h.Device("dev1").SharedAccessKey, wiretest.Now.Add(-6*time.Minute)), false},
		"the device's, under a policy's name":        {wiretest.Sign(t, "localhost/devices/dev1", "registryReadWrite", h.Device("dev1").SharedAccessKey, wiretest.Now.Add(time.Hour)), false},
		"the module's":                               {h.DeviceToken(module), false},
		"the module's, for the device":               {signed(t, h, module, "localhost/devices/dev1"), false},
		"a policy's that lets devices connect":       {h.Token("device"), false},
		"a policy's for the device, without devices": {wiretest.Sign(t, "localhost/dev1", "iothubowner", h.Policy("iothubowner").SharedAccessKey, wiretest.Now.Add(time.Hour)), false},
	} {
		t.Run(name, func(t *testing.T) {
			for route := range rightsOfRoutes {
				owners := slices.Contains(routesOfOwners, route)
				refused := map[string]string{}
				for _, device := range []string{"dev1", "dev2", "dev9"} {
					method, path := fill(route, device)
					if method == "DELETE" && owners && tt.own && device == "dev1" {
						continue // tried below
					}
					allowed := owners && tt.own && device == "dev1"
					if strings.HasSuffix(path, "/modules") && strings.Contains(name, "for the module") {
						allowed = false // it is for less
					}
					a := h.Do(wiretest.Call{Method: method, Path: path, Token: tt.token, Body: `{}`, Header: map[string]string{"If-Match": "*"}})
					if (a.Status != 401) != allowed {
						t.Errorf("%s of %s: %d %s, allowed should be %t", route, device, a.Status, a.Body, allowed)
					}
					refused[device] = withoutIDs(a.Body)
				}
				if refused["dev2"] != refused["dev9"] {
					t.Errorf("%s: the refusal shows whether the device exists: %s, %s", route, refused["dev2"], refused["dev9"])
				}
			}
		})
	}
	own := h.DeviceToken(dev1)
	h.Do(wiretest.Call{Method: "DELETE", Path: "/devices/dev1/modules/mod1", Token: own}).Want(t, 204, "")
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1/modules/mod1", Token: own}).WantError(t, 404, "ModuleNotFound", "device dev1 has no module mod1")
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev2/modules/mod1"}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "PATCH", Path: "/devices/dev1/modules/mod1", Token: own}).Want(t, 401, "")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{"status":"disabled"}`, Header: map[string]string{"If-Match": "*"}}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1/modules", Token: own}).WantError(t, 401, "IotHubUnauthorizedAccess", "Unauthorized")
}

// signed returns a token for audience with the key of an identity.
func signed(t *testing.T, h rightsHub, id hub.ID, audience string) string {
	cs := h.Device(id.Device)
	if id.Module != "" {
		cs = h.Module(id.Device, id.Module)
	}
	return wiretest.Sign(t, audience, "", cs.SharedAccessKey, wiretest.Now.Add(time.Hour))
}

// A caller that may not do everything learns nothing of a path that is not
// there, and nothing of the methods of one where it may not use them all.
func TestUnknownRoutesAnswerOnlyThoseWhoMayEverything(t *testing.T) {
	h := startRights(t)
	for _, tt := range []struct {
		policy, method, path string
		want                 int
	}{
		{"iothubowner", "GET", "/nowhere", 404},
		{"service", "GET", "/nowhere", 401},
		{"registryReadWrite", "GET", "/nowhere", 401},
		{"device", "GET", "/nowhere", 401},
		{"iothubowner", "PATCH", "/devices/dev1", 405},
		{"registryReadWrite", "PATCH", "/devices/dev1", 405},
		{"registryRead", "PATCH", "/devices/dev1", 401},
		{"service", "PATCH", "/devices/dev1", 401},
		{"service", "POST", "/twins/dev1", 405},
		{"registryReadWrite", "POST", "/twins/dev1", 401},
		{"iothubowner", "GET", "/devices/dev1/files", 405},
		{"service", "GET", "/devices/dev1/files", 401},
		{"iothubowner", "HEAD", "/devices/dev1", 405},
		{"iothubowner", "FROB", "/devices/dev1", 405},
	} {
		if a := h.Do(wiretest.Call{Method: tt.method, Path: tt.path, Token: h.Token(tt.policy)}); a.Status != tt.want {
			t.Errorf("%s: %s %s is %d, want %d", tt.policy, tt.method, tt.path, a.Status, tt.want)
		}
	}
}
