package hub

import (
	"strings"
	"testing"
	"time"
)

func TestAServerOfNATSIsAwayOrBehind(t *testing.T) {
	for want, s := range map[string]clusterServer{
		"leads":                          {Leads: true, Current: true},
		"follows":                        {Current: true},
		"is behind by 7":                 {Lag: 7},
		"is away, last heard of 12s ago": {Away: true, Lag: 7, heard: 12300 * time.Millisecond},
		"is away":                        {Away: true, Lag: 7},
		"follows, nats-server 2.15.2, syncs always": {Current: true, Version: "2.15.2", SyncAlways: new(true)},
	} {
		var text strings.Builder
		s.Name = "nats-1"
		if err := (clusterState{Servers: []clusterServer{s}}).print(&text); err != nil {
			t.Fatal(err)
		}
		if line := "  server nats-1               " + want + "\n"; !strings.Contains(text.String(), line) {
			t.Errorf("%+v: the line %q is missing in\n%s", s, line, &text)
		}
	}
}
