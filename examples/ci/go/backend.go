package thermostat

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/iotdm/iotdm/hubamqp"
)

// WarnWhenHot is the back end: it reads the telemetry of all devices until ctx
// ends, and sends a message to those that are too hot.
func WarnWhenHot(ctx context.Context, hub *hubamqp.Client, limit float64) error {
	return hub.Events(ctx, hubamqp.EventQuery{Follow: true}, func(e hubamqp.Event) error {
		var measured struct{ Temperature float64 }
		if err := json.Unmarshal(e.Body, &measured); err != nil || measured.Temperature <= limit {
			return err
		}
		return hub.Send(ctx, hubamqp.Target{DeviceID: e.DeviceID}, hubamqp.Message{Body: fmt.Appendf(nil, "%v is too hot", measured.Temperature)})
	})
}
