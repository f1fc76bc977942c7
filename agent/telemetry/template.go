// Package telemetry makes the messages of devices that have no sensors, from a template.
//
//	t, err := telemetry.Parse(`{"temperature": {{rand 18 26}}, "at": "{{.Time}}"}`)
//	...
//	m, err := t.Message("pump-7", "", 1, time.Now())
//	...
//	err = client.Send(ctx, m)
package telemetry

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"text/template"
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
)

// Default is the template of readings that a thermometer could have made.
const Default = `{"deviceId": "{{.DeviceID}}", "sequence": {{.Sequence}}, "time": "{{.Time}}", ` +
	`"temperature": {{rand 18 26}}, "humidity": {{rand 40 70}}}`

// TimeFormat is how a template has the time: RFC 3339 with milliseconds, in UTC.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// MaxBytes is the size of a payload at most: what a hub takes as a message.
const MaxBytes = 256 << 10

// A Template makes messages. It may be used by several goroutines.
type Template struct{ t *template.Template }

// fields are what a template knows.
type fields struct {
	DeviceID, ModuleID, Time string
	Sequence                 uint64
}

// Parse reads a text/template with .DeviceID, .ModuleID, .Time (see [TimeFormat]), .Sequence (from 1 on)
// and the functions "rand LOW HIGH", a number of two decimals below HIGH, and "pick A B ...", one of
// them. An empty text is [Default]. A field that is misspelt is an error here already.
func Parse(text string) (*Template, error) {
	t, err := template.New("telemetry").Option("missingkey=error").Funcs(template.FuncMap{
		"rand": func(low, high float64) string {
			return fmt.Sprintf("%.2f", math.Floor(100*(low+rand.Float64()*(high-low)))/100)
		},
		"pick": func(first any, more ...any) any { return append([]any{first}, more...)[rand.IntN(1+len(more))] },
	}).Parse(cmp.Or(text, Default))
	if err != nil {
		return nil, fmt.Errorf("telemetry template: %w", err)
	}
	made := &Template{t}
	_, err = made.payload(fields{})
	return made, err
}

// Message makes the n-th message, from 1 on, of a device, or of a module of it. It fails if the template
// does, or makes more than [MaxBytes] of it.
func (t *Template) Message(device, module string, n uint64, now time.Time) (mqttdevice.Message, error) {
	payload, err := t.payload(fields{device, module, now.UTC().Format(TimeFormat), n})
	if err != nil {
		return mqttdevice.Message{}, err
	}
	return Of(payload, now), nil
}

func (t *Template) payload(f fields) ([]byte, error) {
	var out bounded
	if err := t.t.Execute(&out, f); err != nil {
		return nil, fmt.Errorf("telemetry template: %w", err)
	}
	return bytes.TrimSpace(out.kept), nil
}

// Of is the message with the payload that was created at now. It says that this is JSON if it is.
func Of(payload []byte, now time.Time) mqttdevice.Message {
	m := mqttdevice.Message{Payload: payload, Created: now}
	if json.Valid(payload) {
		m.ContentType, m.ContentEncoding = mqttdevice.JSONType, mqttdevice.JSONEncoding
	}
	return m
}

// A bounded takes as much as a message may have.
type bounded struct{ kept []byte }

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.kept)+len(p) > MaxBytes {
		return 0, errors.New("the message has more than 256 KiB")
	}
	b.kept = append(b.kept, p...)
	return len(p), nil
}
