package dps_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/dps"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// needs says who may use a route: policies with the right, and principals with all of
// the actions. It is written from "How to control access to the provisioning service"
// and its article about Microsoft Entra ID, not from the route table.
type needs struct {
	right   hub.Right
	actions string
}

var rightsOfRoutes = map[string]needs{
	"PUT /enrollments/{id}":                       {hub.EnrollmentWrite, "enrollments/write"},
	"GET /enrollments/{id}":                       {hub.EnrollmentRead, "enrollments/read"},
	"DELETE /enrollments/{id}":                    {hub.EnrollmentWrite, "enrollments/delete"},
	"POST /enrollments":                           {hub.EnrollmentWrite, "enrollments/write enrollments/delete"},
	"POST /enrollments/query":                     {hub.EnrollmentRead, "enrollments/read"},
	"POST /enrollments/{id}/attestationmechanism": {hub.EnrollmentRead, "attestationmechanism/details/action"},

	"PUT /enrollmentGroups/{id}":                       {hub.EnrollmentWrite, "enrollmentGroups/write"},
	"GET /enrollmentGroups/{id}":                       {hub.EnrollmentRead, "enrollmentGroups/read"},
	"DELETE /enrollmentGroups/{id}":                    {hub.EnrollmentWrite, "enrollmentGroups/delete"},
	"POST /enrollmentGroups":                           {hub.EnrollmentWrite, "enrollmentGroups/write enrollmentGroups/delete"},
	"POST /enrollmentGroups/query":                     {hub.EnrollmentRead, "enrollmentGroups/read"},
	"POST /enrollmentGroups/{id}/attestationmechanism": {hub.EnrollmentRead, "attestationmechanism/details/action"},

	"GET /registrations/{id}":        {hub.RegistrationStatusRead, "registrationStates/read"},
	"DELETE /registrations/{id}":     {hub.RegistrationStatusWrite, "registrationStates/delete"},
	"POST /registrations/{id}/query": {hub.RegistrationStatusRead, "registrationStates/read"},
}

func TestEveryRouteHasItsRights(t *testing.T) {
	want, got := slices.Sorted(maps.Keys(rightsOfRoutes)), slices.Sorted(maps.Keys(dps.Routes()))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

// allRights are those of the hub and of the provisioning service.
var allRights = []hub.Right{
	hub.RegistryRead, hub.RegistryWrite, hub.ServiceConnect, hub.DeviceConnect,
	hub.ServiceConfig, hub.EnrollmentRead, hub.EnrollmentWrite, hub.RegistrationStatusRead, hub.RegistrationStatusWrite,
}

// Policies of one right each, and those that every hub has, may do what their rights
// say and learn nothing else, not even whether an enrollment exists. No policy of the
// provisioning service opens the hub's own API, and none of the hub's the other.
func TestPoliciesMayDoWhatTheyMay(t *testing.T) {
	var policies []hub.Policy
	for _, right := range allRights {
		policies = append(policies, hub.Policy{Name: "only" + string(right), Rights: []hub.Right{right}, PrimaryKey: sas.NewKey(), SecondaryKey: sas.NewKey()})
	}
	h := wiretest.StartREST(t, node.Options{Policies: policies})
	owner := h.Token(node.ProvisioningPolicy)
	h.Do(wiretest.Call{Method: "PUT", Path: "/enrollments/there", Token: owner, Body: `{"attestation":{"type":"symmetricKey"}}`}).Want(t, 200, "")
	for _, p := range h.Policies() {
		t.Run(p.Name, func(t *testing.T) {
			token := wiretest.Sign(t, "localhost", p.Name, p.PrimaryKey, wiretest.Now.Add(time.Hour))
			for route, n := range rightsOfRoutes {
				allowed := slices.Contains(p.Rights, n.right)
				var refusals []string
				for _, id := range []string{"there", "absent"} {
					method, path, _ := strings.Cut(strings.ReplaceAll(route, "{id}", id), " ")
					if allowed && method == "DELETE" && id == "there" {
						continue
					}
					a := h.Do(wiretest.Call{Method: method, Path: path, Token: token})
					if (a.Status != 401) != allowed {
						t.Errorf("%s: %d %s, allowed should be %t", route, a.Status, a.Body, allowed)
					}
					if !allowed {
						a.Want(t, 401, `{"errorCode":401002,"trackingId":"*","message":"Unauthorized","timestampUtc":"2026-03-14T09:26:53.5897932Z"}`)
						refusals = append(refusals, a.Body[:strings.Index(a.Body, "trackingId")])
					}
				}
				if len(slices.Compact(refusals)) > 1 {
					t.Errorf("%s: the refusal shows whether the enrollment exists: %q", route, refusals)
				}
			}
			for path, right := range map[string]hub.Right{"/devices": hub.RegistryRead, "/twins/d1": hub.ServiceConnect} {
				a := h.Do(wiretest.Call{Method: "GET", Path: path, Token: token})
				if (a.Status != 401) != slices.Contains(p.Rights, right) {
					t.Errorf("the hub's %s: %d", path, a.Status)
				}
			}
		})
	}
}

// A principal needs the actions of the provisioning service. Those of a hub, whatever
// they are, are none.
func TestPrincipalsMayDoWhatTheirActionsSay(t *testing.T) {
	for route, n := range rightsOfRoutes {
		need := dps.Routes()[route]
		var own []string
		for action := range strings.FieldsSeq(n.actions) {
			own = append(own, "Microsoft.Devices/provisioningServices/"+action)
		}
		for name, tt := range map[string]struct {
			actions []string
			want    bool
		}{
			"its own":            {own, true},
			"all but the last":   {own[:len(own)-1], false},
			"all of the service": {[]string{"Microsoft.Devices/provisioningServices/*"}, true},
			"reading":            {[]string{"Microsoft.Devices/provisioningServices/*/read"}, strings.HasSuffix(n.actions, "/read")},
			"all of a hub":       {[]string{"Microsoft.Devices/IotHubs/*"}, false},
			"none":               {[]string{}, false},
		} {
			if err := (hub.Caller{Actions: tt.actions}).May(need, "it"); (err == nil) != tt.want {
				t.Errorf("%s with %s, %v: %v", route, name, tt.actions, err)
			}
		}
	}
}

func TestCredentialsThatAreNotGoodEnough(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	var key sas.Key
	for _, p := range h.Policies() {
		if p.Name == node.ProvisioningPolicy {
			key = p.PrimaryKey
		}
	}
	sign := func(audience, policy string, key sas.Key, in time.Duration) string {
		return wiretest.Sign(t, audience, policy, key, wiretest.Now.Add(in))
	}
	for name, tt := range map[string]struct {
		token string
		want  int
	}{
		"the owner's":                        {sign("localhost", node.ProvisioningPolicy, key, time.Hour), 404},
		"for enrollments alone":              {sign("localhost/enrollments", node.ProvisioningPolicy, key, time.Hour), 404},
		"the owner's, expired":               {sign("localhost", node.ProvisioningPolicy, key, -time.Hour), 401},
		"for another service":                {sign("other.azure-devices-provisioning.net", node.ProvisioningPolicy, key, time.Hour), 401},
		"of another key":                     {sign("localhost", node.ProvisioningPolicy, sas.NewKey(), time.Hour), 401},
		"of a policy that is not there":      {sign("localhost", "nosuch", key, time.Hour), 401},
		"of a device":                        {sign("localhost/enrollments/e", "registration", key, time.Hour), 401},
		"none":                               {"-", 401},
		"a bearer token, where none is good": {"Bearer x", 401},
	} {
		t.Run(name, func(t *testing.T) {
			h.Do(wiretest.Call{Method: "GET", Path: "/enrollments/e", Token: tt.token}).Want(t, tt.want, "")
		})
	}
}
