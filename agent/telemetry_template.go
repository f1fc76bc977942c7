package agent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"text/template"
	"time"

	"github.com/iotdm/iotdm/agent/outbox"
	"github.com/iotdm/iotdm/mqttdevice"
)

const telemetryTimeFormat = "2006-01-02T15:04:05.000Z"

// parseTelemetry reads the template of a Telemetry.
func parseTelemetry(text string) (*template.Template, error) {
	t, err := template.New("telemetry").Option("missingkey=error").Funcs(template.FuncMap{
		"rand": func(low, high float64) string {
			return fmt.Sprintf("%.2f", math.Floor(100*(low+rand.Float64()*(high-low)))/100)
		},
		"pick": func(first any, more ...any) any { return append([]any{first}, more...)[rand.IntN(1+len(more))] },
	}).Parse(cmp.Or(text, DefaultTemplate))
	if err != nil {
		return nil, fmt.Errorf("telemetry template: %w", err)
	}
	// A field that is misspelt shows now, not in the first message.
	_, err = expandTelemetry(t, sourceFields{})
	return t, err
}

// expandTelemetry executes the template with a bound.
func expandTelemetry(t *template.Template, fields sourceFields) ([]byte, error) {
	out := &boundedBuffer{limit: maxTelemetry, full: func() error {
		return fmt.Errorf("the message has more than %s", byteCount(maxTelemetry))
	}}
	if err := t.Execute(out, fields); err != nil {
		return nil, fmt.Errorf("telemetry template: %w", err)
	}
	return bytes.TrimSpace(out.kept.Bytes()), nil
}

// telemetryMessage says what the payload is, if that shows.
func telemetryMessage(payload []byte, now time.Time) mqttdevice.Message {
	m := mqttdevice.Message{Payload: payload, Created: now}
	if json.Valid(payload) {
		m.ContentType, m.ContentEncoding = outbox.JSONType, outbox.JSONEncoding
	}
	return m
}
