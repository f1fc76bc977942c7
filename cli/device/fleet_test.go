package device

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/fleet"
)

func TestSummaryOfAFleet(t *testing.T) {
	before := fleet.Stats{Seconds: 10, Methods: map[string]uint64{"200": 100}, Telemetry: 1000, Connects: 9000}
	for _, tt := range []struct {
		name string
		now  fleet.Stats
		want []string
	}{
		{"all is well", fleet.Stats{Seconds: 12, Devices: 10, Connected: 10, Methods: map[string]uint64{"200": 100}, Telemetry: 1000, Connects: 9000},
			[]string{"10 of 10 connected", "100 methods (0/s), 1000 messages (0/s)"}},
		{"all there is to say", fleet.Stats{
			Seconds: 12, Devices: 10_000, Waiting: 1, Connecting: 2, Connected: 3, Lost: 4, Away: 5, Connects: 9500,
			Methods: map[string]uint64{"200": 200, "500": 7, "503": 1}, Patches: 20, Telemetry: 1500,
			Disconnects: map[fleet.Kind]uint64{fleet.HubClosed: 4, fleet.Silent: 4, fleet.Network: 5},
		}, []string{
			"3 of 10000 connected, 1 not started, 2 connecting, 4 to try again, 5 away, 250 connects/s",
			"208 methods (54/s), 8 not with 200, 20 patches (10/s), 1500 messages (250/s)",
			"lost 13 (network 5, hubClosed 4, silent 4); not connected 0",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, summary(before, tt.now)); diff != "" {
				t.Errorf("summary (-want +got):\n%s", diff)
			}
		})
	}
}

func TestShare(t *testing.T) {
	for text, want := range map[string]share{"0": 0, "0.05": 0.05, "5%": 0.05, "100%": 1, "1": 1} {
		var got share
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "1.1", "101%", "-0.1", "NaN", "x"} {
		var got share
		if err := got.Set(text); err == nil {
			t.Errorf("%q is %v, want an error", text, got)
		}
	}
}
