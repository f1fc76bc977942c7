package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/iotdm/iotdm/agent/telemetry"
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

	// Template is the message as [telemetry.Parse] reads it. Empty means [telemetry.Default] unless there
	// is a Command.
	Template string
}

func (t Telemetry) isZero() bool {
	return t.Interval == 0 && t.Command.isZero() && t.Template == ""
}

const defaultTelemetryInterval = time.Minute

// A source makes messages.
type source struct {
	interval time.Duration
	command  Command
	env      func() []string     // of the command
	device   func() string       // which the agent is now
	template *telemetry.Template // nil: the command
	last     sourceInput
}

// A sourceInput is what a command gets.
type sourceInput struct {
	DeviceID string `json:"deviceId"`
	ModuleID string `json:"moduleId,omitempty"`
	Time     string `json:"time"`
	Sequence uint64 `json:"sequence"`
}

func (a *Agent) newSource() (*source, error) {
	opt, device := a.opt.Telemetry, a.opt.Device.ConnectionString
	s := &source{interval: opt.Interval, command: opt.Command, device: a.status.deviceID,
		env:  func() []string { return a.commandEnv() },
		last: sourceInput{ModuleID: device.ModuleID}}
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
	var err error
	if s.template, err = telemetry.Parse(opt.Template); err != nil {
		return nil, err
	}
	return s, nil
}

// message makes the next message.
func (s *source) message(ctx context.Context, now time.Time) (mqttdevice.Message, error) {
	s.last.Sequence++
	s.last.DeviceID = s.device()
	if s.template != nil {
		return s.template.Message(s.last.DeviceID, s.last.ModuleID, s.last.Sequence, now)
	}
	s.last.Time = now.UTC().Format(telemetry.TimeFormat)
	payload, err := s.print(ctx)
	if err != nil {
		return mqttdevice.Message{}, err
	}
	return telemetry.Of(payload, now), nil
}

// print lets the command print a payload.
func (s *source) print(ctx context.Context) ([]byte, error) {
	in, err := json.Marshal(s.last)
	if err != nil {
		return nil, err
	}
	r := s.command.run(ctx, in, s.env(), telemetry.MaxBytes)
	if r.err != nil {
		return nil, errors.New(r.text())
	}
	payload := bytes.TrimSpace(r.output)
	if len(payload) == 0 {
		return nil, errors.New("the command printed nothing")
	}
	return payload, nil
}
