package telemetry_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/agent/telemetry"
	"github.com/iotdm/iotdm/mqttdevice"
)

func TestTemplate(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.FixedZone("", 3600))
	for _, tt := range []struct {
		text string
		want mqttdevice.Message
		fail string // part of the error
	}{
		{"{{.DeviceID}} {{.ModuleID}} {{.Time}} {{.Sequence}}\n", mqttdevice.Message{Payload: []byte("d m 2026-01-02T02:04:05.678Z 7"), Created: now}, ""},
		{`{"n": {{pick 5}}, "t": {{rand 3 3}}}`, mqttdevice.Message{
			Payload: []byte(`{"n": 5, "t": 3.00}`), Created: now, ContentType: "application/json", ContentEncoding: "utf-8",
		}, ""},
		{"{{.Devise}}", mqttdevice.Message{}, "Devise"},
		{"{{", mqttdevice.Message{}, "telemetry template: "},
		{"{{range 300000}}x{{end}}", mqttdevice.Message{}, "the message has more than 256 KiB"},
		{"{{if .DeviceID}}{{index .DeviceID 9}}{{end}}", mqttdevice.Message{}, "out of range"}, // only of a message
	} {
		var m mqttdevice.Message
		made, err := telemetry.Parse(tt.text)
		if err == nil {
			m, err = made.Message("d", "m", 7, now)
		}
		if text := fmt.Sprint(err); tt.fail == "" && err != nil || !strings.Contains(text, tt.fail) {
			t.Errorf("%s fails with %v, want %q", tt.text, err, tt.fail)
		}
		if diff := cmp.Diff(tt.want, m); diff != "" {
			t.Errorf("%s makes (-want +got):\n%s", tt.text, diff)
		}
	}
}

func Example() {
	t, err := telemetry.Parse(`{"device": "{{.DeviceID}}", "n": {{.Sequence}}, "unit": "{{pick "C"}}"}`)
	if err != nil {
		fmt.Println(err)
		return
	}
	for n := range uint64(2) {
		m, err := t.Message("pump-7", "", n+1, time.Now())
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s, %s\n", m.Payload, m.ContentType)
	}
	// Output:
	// {"device": "pump-7", "n": 1, "unit": "C"}, application/json
	// {"device": "pump-7", "n": 2, "unit": "C"}, application/json
}
