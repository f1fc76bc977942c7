package hub_test

import (
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub"
)

// What may be an id of a device, module or job, by "Understand the identity
// registry in your IoT hub" and the pattern that the SDKs enforce.
func TestValidNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "A": true, "0": true, "-": true, ".": true, "..": true, "%": true, "+": true, "#": true, "*": true, "?": true, "$": true,
		"a-:.+%_#*?!(),=@;$'z": true, "%2F": true, "a%20b": true, "$edgeAgent": true, "devices": true, "?api-version=1": true,
		strings.Repeat("x", 128): true, strings.Repeat("%", 128): true,

		"": false, " ": false, "a b": false, "a/b": false, `a\b`: false, "a&b": false, "a\"b": false, "a<b": false, "a>b": false, "a|b": false,
		"a[b": false, "a]b": false, "a{b": false, "a}b": false, "a^b": false, "a`b": false, "a~b": false, "a\n": false, "\na": false, "a\x00": false,
		"a\x7f": false, "ä": false, "aé": false, "\u212a": false, "a\xff": false, "\u00a0": false, strings.Repeat("x", 129): false,
	} {
		if got := hub.ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %v, want %v", name, got, want)
		}
		if err := (hub.ID{Device: name}).Validate(); (err == nil) != want {
			t.Errorf("device %q: %v, want an error: %v", name, err, !want)
		}
		if err := (hub.ID{Device: "d", Module: name}).Validate(); (err == nil) != want && name != "" {
			t.Errorf("module %q: %v, want an error: %v", name, err, !want)
		}
	}
}
