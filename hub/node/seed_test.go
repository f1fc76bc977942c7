package node_test

import (
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub/node"
)

// A seed enters a twin by the rules for every twin.
func TestASeedThatNoTwinTakes(t *testing.T) {
	const chars = "Must not contain Control Characters, '.', '$', '#', or ' '."
	for _, tt := range []struct{ seed, device, want string }{
		{`{"devices":[{"deviceId":"d1","tags":{"a#b":1}}]}`, `device "d1"`, chars},
		{`{"devices":[{"deviceId":"d1","desired":{"a":{"#":1}}}]}`, `device "d1"`, chars},
		{`{"devices":[{"deviceId":"d1","modules":[{"moduleId":"m1","desired":{"a b":1}}]}]}`, `module "m1" of device "d1"`, chars},
	} {
		_, err := node.ParseSeed([]byte(tt.seed))
		if err == nil || !strings.HasPrefix(err.Error(), tt.device) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one of %s with %s", tt.seed, err, tt.device, tt.want)
		}
	}
}
