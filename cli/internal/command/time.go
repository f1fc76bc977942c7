package command

import (
	"time"

	"github.com/iotdm/iotdm/cli/internal/fail"
)

// ParseTime reads when something is to happen: an instant as RFC 3339 writes
// it, a time of day such as 22:00, which is the next one where this program
// runs, or a duration from now such as +2h. What names the flag in errors. A time
// that is over is refused: it would be now, which nobody said.
func ParseTime(what, text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		if t.Before(now) {
			return t, fail.Usagef("%s %s is over", what, text)
		}
		return t, nil
	}
	if clock, err := time.Parse("15:04", text); err == nil {
		t := atClock(now, 0, clock)
		if !t.After(now) {
			t = atClock(now, 1, clock)
		}
		return t, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(d), nil
	}
	return time.Time{}, fail.Usagef("%s %q is neither a time such as 2026-12-24T06:00:00Z or 22:00 nor a duration such as +2h", what, text)
}

// atClock is a time of day some days after that of now. Not every day has 24 hours.
func atClock(now time.Time, days int, clock time.Time) time.Time {
	year, month, day := now.Date()
	return time.Date(year, month, day+days, clock.Hour(), clock.Minute(), 0, 0, now.Location())
}
