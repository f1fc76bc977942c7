package rest_test

import (
	"encoding/base64"
	"testing"

	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// What a test in any language does that has no SDK at hand.
func TestControlsTakeThePolicyAndItsKey(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{TestControls: true})
	const clock = "/iotdm/control/clock"
	basic := func(policy, key string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(policy+":"+key))
	}
	keys := map[string]string{}
	for _, p := range h.Policies() {
		keys[p.Name] = string(p.PrimaryKey)
		if p.Name == "iothubowner" {
			keys["secondary"] = string(p.SecondaryKey)
		}
	}
	for name, tt := range map[string]struct {
		path, token string
		want        int
	}{
		"the owner":                         {clock, basic("iothubowner", keys["iothubowner"]), 200},
		"the owner in capitals":             {clock, basic("IoTHubOwner", keys["iothubowner"]), 200},
		"the owner's other key":             {clock, basic("iothubowner", keys["secondary"]), 200},
		"a key that is not the owner's":     {clock, basic("iothubowner", keys["service"]), 401},
		"no key":                            {clock, basic("iothubowner", ""), 401},
		"a policy that there is not":        {clock, basic("nobody", keys["iothubowner"]), 401},
		"a policy that may not do all":      {clock, basic("service", keys["service"]), 401},
		"no base64":                         {clock, "Basic ***", 401},
		"a route that is no control":        {"/devices/dev1?api-version=2021-04-12", basic("iothubowner", keys["iothubowner"]), 401},
		"a control with a version of Azure": {clock + "?api-version=2021-04-12", basic("iothubowner", keys["iothubowner"]), 200},
	} {
		t.Run(name, func(t *testing.T) {
			h.DoRaw(wiretest.Call{Method: "GET", Path: tt.path, Token: tt.token}).Want(t, tt.want, "")
		})
	}
}
