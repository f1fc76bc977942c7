package command

import (
	"testing"
	"time"
	_ "time/tzdata" // for the night in which a clock is set
)

func TestParseTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 28, 21, 30, 0, 0, berlin) // in the night that follows the clock is set to summer time
	for _, tt := range []struct{ text, want string }{
		{"2026-12-24T06:00:00Z", "2026-12-24T06:00:00Z"},
		{"2026-12-24T06:00:00+01:00", "2026-12-24T06:00:00+01:00"},
		{"22:00", "2026-03-28T22:00:00+01:00"},
		{"21:30", "2026-03-29T21:30:00+02:00"},
		{"6:05", "2026-03-29T06:05:00+02:00"},
		{"+2h", "2026-03-28T23:30:00+01:00"},
		{"90m", "2026-03-28T23:00:00+01:00"},
		{"+0s", "2026-03-28T21:30:00+01:00"},
		{"2026-03-28T20:29:59Z", "--at 2026-03-28T20:29:59Z is over"},
		{"-2h", `--at "-2h" is neither a time such as 2026-12-24T06:00:00Z or 22:00 nor a duration such as +2h`},
		{"24:00", `--at "24:00" is neither a time such as 2026-12-24T06:00:00Z or 22:00 nor a duration such as +2h`},
		{"tomorrow", `--at "tomorrow" is neither a time such as 2026-12-24T06:00:00Z or 22:00 nor a duration such as +2h`},
	} {
		t.Run(tt.text, func(t *testing.T) {
			at, err := ParseTime("--at", tt.text, now)
			got := at.Format(time.RFC3339)
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("ParseTime(%q) = %s, want %s", tt.text, got, tt.want)
			}
		})
	}
}
