package cli

import "testing"

func TestNewerRebootTime(t *testing.T) {
	for _, tt := range []struct {
		name, before, now string
		want              bool
	}{
		{"nothing is reported", ``, ``, false},
		{"the first time", ``, `"2026-01-01T00:00:00Z"`, true},
		{"the same", `"2026-01-01T00:00:00Z"`, `"2026-01-01T00:00:00Z"`, false},
		{"the same instant in another spelling", `"2026-01-01T00:00:00Z"`, `"2026-01-01T01:00:00+01:00"`, false},
		{"later", `"2026-01-01T00:00:00Z"`, `"2026-01-01T00:00:00.000001Z"`, true},
		{"earlier", `"2026-01-01T00:00:00Z"`, `"2025-12-31T23:59:59Z"`, false},
		{"removed", `"2026-01-01T00:00:00Z"`, ``, false},
		{"the tutorial's device, which has no zone", `"2026-01-01 02:59:59.1"`, `"2026-01-01 02:00:01.2"`, true},
		{"from the tutorial's device to ours", `"2026-01-01 02:59:59.1"`, `"2026-01-01T00:00:00Z"`, true},
		{"a number", `1700000000`, `1700000100`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := newerRebootTime(tt.before, tt.now); got != tt.want {
				t.Errorf("newerRebootTime(%s, %s) = %v, want %v", tt.before, tt.now, got, tt.want)
			}
		})
	}
}
