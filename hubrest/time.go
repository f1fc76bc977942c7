package hubrest

import (
	"fmt"
	"strconv"
	"time"
)

// Time is an instant in the hub's answers. The zero Time means never.
type Time struct{ time.Time }

// UnmarshalJSON reads every spelling that IoT Hub has used: RFC 3339 with up to nine digits of a second, with a zone
// or without (which is UTC), the dates of old error texts, and null or empty text for never.
func (t *Time) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*t = Time{}
		return nil
	}
	s, err := strconv.Unquote(string(b))
	if err != nil {
		return fmt.Errorf("time %.40s: not a string", b)
	}
	if s == "" {
		*t = Time{}
		return nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "01/02/2006 15:04:05"} {
		if v, err := time.Parse(layout, s); err == nil {
			*t = Time{v.UTC()}
			return nil
		}
	}
	return fmt.Errorf("time %.40q: unknown spelling", s)
}
