// Package thermostat is a device and a back end under test; see docs/CI.md.
package thermostat

import (
	"context"
	"encoding/json"

	"github.com/iotdm/iotdm/mqttdevice"
)

// A Thermostat keeps a target, which a direct method or a desired property
// sets, and takes warnings.
type Thermostat struct {
	*mqttdevice.Client
	Warnings chan string
}

// New connects a thermostat.
func New(ctx context.Context, opt mqttdevice.Options) (*Thermostat, error) {
	client, err := mqttdevice.New(opt)
	if err != nil {
		return nil, err
	}
	t := &Thermostat{Client: client, Warnings: make(chan string, 10)}
	client.HandleMethod("setTarget", func(ctx context.Context, m mqttdevice.Method) mqttdevice.Response {
		if err := t.setTarget(ctx, m.Payload); err != nil {
			return mqttdevice.Response{Status: 500, Payload: err.Error()}
		}
		return mqttdevice.Response{Status: 200}
	})
	client.HandleDesired(func(ctx context.Context, d mqttdevice.Desired) { t.setTarget(ctx, d.Patch) })
	client.HandleMessage(func(_ context.Context, m mqttdevice.CloudToDeviceMessage) error {
		t.Warnings <- string(m.Payload)
		return nil
	})
	return t, client.Connect(ctx)
}

func (t *Thermostat) setTarget(ctx context.Context, text json.RawMessage) error {
	var wanted struct {
		Target float64 `json:"target"`
	}
	if err := json.Unmarshal(text, &wanted); err != nil {
		return err
	}
	_, err := t.PatchReported(ctx, wanted)
	return err
}

// Measure sends a temperature.
func (t *Thermostat) Measure(ctx context.Context, temperature float64) error {
	payload, err := json.Marshal(map[string]float64{"temperature": temperature})
	if err != nil {
		return err
	}
	return t.Send(ctx, mqttdevice.Message{Payload: payload, ContentType: mqttdevice.JSONType, ContentEncoding: mqttdevice.JSONEncoding})
}
