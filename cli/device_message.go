package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/iotdm/iotdm/mqttdevice"
)

// messageText is a cloud-to-device message for people: the payload, and a line
// for each property. Who sends it is not to control the terminal.
func messageText(m mqttdevice.CloudToDeviceMessage) string {
	var b strings.Builder
	b.WriteString("Message received: " + printable(string(m.Payload)))
	property := func(name, value string) { fmt.Fprintf(&b, "\n  %s: %s", printable(name), printable(value)) }
	for _, p := range [...]struct{ name, value string }{
		{"message-id", m.ID},
		{"correlation-id", m.CorrelationID},
		{"user-id", m.UserID},
		{"content-type", m.ContentType},
		{"content-encoding", m.ContentEncoding},
	} {
		if p.value != "" {
			property(p.name, p.value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Properties)) {
		property(name, m.Properties[name])
	}
	return b.String()
}

// printable is text as it is, or quoted if it is no text or has control
// characters other than line breaks and tabs.
func printable(text string) string {
	odd := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }
	if !utf8.ValidString(text) || strings.ContainsFunc(text, odd) {
		return strconv.Quote(text)
	}
	return text
}
