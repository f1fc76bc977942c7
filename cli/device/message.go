package device

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/mqttdevice"
)

// messageText is a cloud-to-device message for people: the payload, and a line
// for each property. Who sends it is not to control the terminal.
func messageText(m mqttdevice.CloudToDeviceMessage) string {
	var b strings.Builder
	b.WriteString("Message received: " + output.Printable(string(m.Payload)))
	property := func(name, value string) {
		fmt.Fprintf(&b, "\n  %s: %s", output.Printable(name), output.Printable(value))
	}
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
