package hub

import "testing"

func TestMatchAction(t *testing.T) {
	for _, tt := range []struct {
		pattern, action string
		want            bool
	}{
		{"*", "twins/read", true},
		{"*/read", "twins/read", true},
		{"*/read", "directMethods/invoke/action", false},
		{"twins/*", "twins/write", true},
		{"twins/*", "twinsX/write", false},
		{"TWINS/READ", "twins/read", true},
		{"twins/read", "twins/readmore", false},
		{"a*b", "ab", true},
		{"ab*ba", "aba", false},
		{"*queue*", "cloudToDeviceMessages/queue/purge/action", true},
		{"*queue*send", "cloudToDeviceMessages/queue/purge/action", false},
		{"", "twins/read", false},
	} {
		if got := matchAction(tt.pattern, tt.action); got != tt.want {
			t.Errorf("matchAction(%q, %q) = %t", tt.pattern, tt.action, got)
		}
	}
}
