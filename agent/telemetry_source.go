package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"text/template"
	"time"

	"github.com/iotdm/iotdm/agent/outbox"
	"github.com/iotdm/iotdm/mqttdevice"
)

// A Telemetry is a source of messages that an agent sends by itself. The zero value sends none.
type Telemetry struct {
	// Interval is the time between two messages; the first goes at once. Zero is one minute if there
	// is a Command or a Template, and no telemetry if there is neither.
	Interval time.Duration

	// Command prints the message: all of standard output without the white space around it. It gets
	// {"deviceId", "time", "sequence"} on standard input. When it fails, prints nothing, or takes longer
	// than its Timeout, or the Interval if that is zero, there is no message this time.
	Command Command

	// Template is the message as a text/template, with .DeviceID, .ModuleID, .Time (RFC 3339, UTC),
	// .Sequence (from 1 on) and the functions "rand LOW HIGH", a number of two decimals below HIGH, and
	// "pick A B ...", one of them. Empty means DefaultTemplate unless there is a Command.
	Template string
}

// DefaultTemplate is what a simulated device sends.
const DefaultTemplate = `{"deviceId": "{{.DeviceID}}", "sequence": {{.Sequence}}, "time": "{{.Time}}", ` +
	`"temperature": {{rand 18 26}}, "humidity": {{rand 40 70}}}`

func (t Telemetry) isZero() bool {
	return t.Interval == 0 && t.Command.isZero() && t.Template == ""
}

const (
	defaultTelemetryInterval = time.Minute
	maxTelemetry             = 256 << 10 // what a hub takes as a message
)

// A source makes messages.
type source struct {
	interval time.Duration
	command  Command
	env      []string // of the command
	template *template.Template
	fields   sourceFields
}

// sourceFields are what a template and a command get.
type sourceFields struct {
	DeviceID string `json:"deviceId"`
	ModuleID string `json:"moduleId,omitempty"`
	Time     string `json:"time"`
	Sequence int64  `json:"sequence"`
}

func (a *Agent) newSource() (*source, error) {
	opt, device := a.opt.Telemetry, a.opt.Device.ConnectionString
	s := &source{interval: opt.Interval, command: opt.Command, env: a.commandEnv(),
		fields: sourceFields{DeviceID: device.DeviceID, ModuleID: device.ModuleID}}
	if s.interval == 0 {
		s.interval = defaultTelemetryInterval
	}
	if s.interval < 0 {
		return nil, fmt.Errorf("a telemetry interval of %v is less than nothing", s.interval)
	}
	if !s.command.isZero() {
		if opt.Template != "" {
			return nil, errors.New("telemetry comes from a command or from a template, not from both")
		}
		s.command = s.command.withTimeout(s.interval)
		if err := s.command.check(); err != nil {
			return nil, fmt.Errorf("telemetry: %w", err)
		}
		return s, nil
	}
	text := opt.Template
	if text == "" {
		text = DefaultTemplate
	}
	var err error
	s.template, err = template.New("telemetry").Option("missingkey=error").Funcs(template.FuncMap{
		"rand": func(low, high float64) string {
			return fmt.Sprintf("%.2f", math.Floor(100*(low+rand.Float64()*(high-low)))/100)
		},
		"pick": func(first any, more ...any) any { return append([]any{first}, more...)[rand.IntN(1+len(more))] },
	}).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("telemetry template: %w", err)
	}
	// A field that is misspelt shows now, not in the first message.
	if _, err := s.expand(); err != nil {
		return nil, err
	}
	return s, nil
}

// message makes the next message.
func (s *source) message(ctx context.Context, now time.Time) (mqttdevice.Message, error) {
	s.fields.Time = now.UTC().Format("2006-01-02T15:04:05.000Z")
	s.fields.Sequence++
	payload, err := s.payload(ctx)
	if err != nil {
		return mqttdevice.Message{}, err
	}
	m := mqttdevice.Message{Payload: payload, Created: now}
	if json.Valid(payload) {
		m.ContentType, m.ContentEncoding = outbox.JSONType, outbox.JSONEncoding
	}
	return m, nil
}

func (s *source) payload(ctx context.Context) ([]byte, error) {
	if s.template != nil {
		return s.expand()
	}
	in, err := json.Marshal(s.fields)
	if err != nil {
		return nil, err
	}
	r := s.command.run(ctx, in, s.env, maxTelemetry)
	if r.err != nil {
		return nil, errors.New(r.text())
	}
	payload := bytes.TrimSpace(r.output)
	if len(payload) == 0 {
		return nil, errors.New("the command printed nothing")
	}
	return payload, nil
}

// expand executes the template with a bound.
func (s *source) expand() ([]byte, error) {
	out := &boundedBuffer{limit: maxTelemetry, full: func() error {
		return fmt.Errorf("the message has more than %s", byteCount(maxTelemetry))
	}}
	if err := s.template.Execute(out, s.fields); err != nil {
		return nil, fmt.Errorf("telemetry template: %w", err)
	}
	return bytes.TrimSpace(out.kept.Bytes()), nil
}
