package device

import (
	"testing"

	"github.com/iotdm/iotdm/mqttdevice"
)

func TestMessageText(t *testing.T) {
	tests := []struct {
		name string
		in   mqttdevice.CloudToDeviceMessage
		want string
	}{
		{"only text", mqttdevice.CloudToDeviceMessage{Payload: []byte("several\n\tlines"), To: "/devices/d1/messages/deviceBound"},
			"Message received: several\n\tlines"},
		{"properties in their order", mqttdevice.CloudToDeviceMessage{Payload: []byte("x"), ID: "m-1", Properties: map[string]string{"b": "2", "a": ""}},
			"Message received: x\n  message-id: m-1\n  a: \n  b: 2"},
		{"control characters and bytes are quoted", mqttdevice.CloudToDeviceMessage{Payload: []byte("\x1b[2J"), Properties: map[string]string{"\xff": "\r"}},
			`Message received: "\x1b[2J"` + "\n" + `  "\xff": "\r"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := messageText(tt.in); got != tt.want {
				t.Errorf("text %q, want %q", got, tt.want)
			}
		})
	}
}
