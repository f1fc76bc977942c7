package twinwatch

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

// event is one as the hub writes it.
func event(operation, payload string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"event":{"origin":"d","module":"m","properties":{"application":{"opType":%q,"operationTimestamp":"2026-01-02T03:04:05.67Z","iotdm-changed-by":"policy service"}},"payload":%s}}`, operation, payload))
}

func TestAfter(t *testing.T) {
	before := State{Version: 3, Tags: json.RawMessage(`{"site":"A"}`), Desired: json.RawMessage(`{"a":1,"$metadata":{},"$version":2}`)}
	for _, tt := range []struct {
		name, operation, payload string
		want                     State
		what                     int
	}{
		{"a patch of all sections", "updateTwin", `{"version":4,"tags":{"site":"B"},"properties":{"desired":{"a":null,"b":{"c":1},"$version":3},"reported":{"r":true}}}`,
			State{4, json.RawMessage(`{"site":"B"}`), json.RawMessage(`{"$metadata":{},"$version":2,"b":{"c":1}}`), json.RawMessage(`{"r":true}`)}, New},
		{"what was read already", "updateTwin", `{"version":3,"tags":{"site":"B"}}`, before, Old},
		{"a gap", "updateTwin", `{"version":6,"tags":{"site":"B"}}`, before, Unsure},
		{"another document", "replaceTwin", `{"version":9,"tags":{"x":1},"properties":{"desired":{"y":1}}}`,
			State{Version: 9, Tags: json.RawMessage(`{"x":1}`), Desired: json.RawMessage(`{"y":1}`)}, New},
		{"created anew", "createDeviceIdentity", `{"version":2}`, State{Version: 2}, New},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := Parse(event(tt.operation, tt.payload))
			now, what, err := e.After(before)
			if err != nil || what != tt.what {
				t.Fatalf("After: %d, %v, want %d", what, err, tt.what)
			}
			if diff := cmp.Diff(tt.want, now); diff != "" && what == New {
				t.Errorf("After (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParse(t *testing.T) {
	e := Parse(event("deleteModuleIdentity", `{"version":7}`))
	if !e.Gone() || e.On != (hubrest.Target{DeviceID: "d", ModuleID: "m"}) || e.By != "policy service" || e.Version != 7 {
		t.Errorf("Parse: %+v", e)
	}
	if want := time.Date(2026, 1, 2, 3, 4, 5, 670_000_000, time.UTC); !e.At.Equal(want) {
		t.Errorf("Parse: at %v, want %v", e.At, want)
	}
	for _, odd := range []string{``, `[]`, `{"event":7}`, `{"event":{"payload":"x"}}`} {
		if e := Parse(json.RawMessage(odd)); e.Gone() || e.Section("tags") != nil || e.Section("desired") != nil {
			t.Errorf("Parse(%q): %+v", odd, e)
		}
	}
}

func TestDiff(t *testing.T) {
	old := State{Tags: json.RawMessage(`{"a":1}`), Reported: json.RawMessage(`{"r":{"x":1}}`)}
	now := State{Tags: json.RawMessage(`{"a":2}`), Desired: json.RawMessage(`{"d":1}`), Reported: json.RawMessage(`{"r":{}}`)}
	var got []string
	for _, c := range old.Diff(now) {
		got = append(got, fmt.Sprintf("%s %s %s", c.Path, c.Old, c.New))
	}
	if diff := cmp.Diff([]string{"tags.a 1 2", "desired.d  1", "reported.r.x 1 "}, got); diff != "" {
		t.Errorf("Diff (-want +got):\n%s", diff)
	}
}
