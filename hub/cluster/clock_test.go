package cluster

import (
	"testing"
	"time"
)

func TestClocksApart(t *testing.T) {
	before := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	after := before.Add(2 * time.Second)
	for _, tt := range []struct {
		name string
		at   time.Time
		want time.Duration
	}{
		{"between", before.Add(time.Second), 0},
		{"a little behind", before.Add(-maxApart), 0},
		{"a little ahead", after.Add(maxApart), 0},
		{"NATS is behind", before.Add(-time.Hour), time.Hour},
		{"NATS is ahead", after.Add(time.Hour), -time.Hour},
	} {
		if got := apart(before, after, tt.at); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
