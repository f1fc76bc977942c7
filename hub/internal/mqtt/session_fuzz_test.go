package mqtt

import (
	"slices"
	"testing"
)

// The subscriptions of a session are read as they were stored, and what else is
// stored is read again as it was read, or refused.
func FuzzSession(f *testing.F) {
	f.Add([]byte(nil), "$iothub/methods/POST/#", byte(1))
	f.Add(encodeSession([]subscription{{"devices/d1/messages/devicebound/#", 1}, {"$iothub/twin/res/#", 0}}), "", byte(0))
	f.Add([]byte{sessionFormat, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}, "\xff", byte(0xff))
	f.Fuzz(func(t *testing.T, stored []byte, filter string, qos byte) {
		want := []subscription{{filter, qos}, {"b", 0}}
		data := encodeSession(want)
		got, err := decodeSession(data)
		if err != nil || !slices.Equal(want, got) {
			t.Errorf("session is read as %v, %v, want %v", got, err, want)
		}
		if got, err := decodeSession(stored); err == nil {
			if again, err := decodeSession(encodeSession(got)); err != nil || !slices.Equal(got, again) {
				t.Errorf("session from %q is read again as %v, %v, want %v", stored, again, err, got)
			}
		}
	})
}
