package fleet

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
)

// sendTimeout is how long a message may wait for the hub's acknowledgement.
const sendTimeout = 30 * time.Second

// send sends the next message, if there is a connection.
func (d *device) send(ctx context.Context, client *mqttdevice.Client) {
	d.messages++
	if !d.online.Load() {
		d.fleet.counts.skip()
		return
	}
	c := d.options.ConnectionString
	m, err := d.fleet.opt.Telemetry(c.DeviceID, c.ModuleID, d.messages)
	if err != nil {
		d.fleet.fail(fmt.Errorf("telemetry: %w", err))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	began := time.Now()
	err = client.Send(ctx, m)
	if d.fleet.stop.Err() == nil {
		d.fleet.counts.send(time.Since(began), err)
	}
}

// plainTelemetry makes a message that says where it belongs, so that a reader can tell what is missing.
func plainTelemetry(device, _ string, n uint64) (mqttdevice.Message, error) {
	payload := `{"deviceId":` + strconv.Quote(device) + `,"sequence":` + strconv.FormatUint(n, 10) + `}`
	return mqttdevice.Message{Payload: []byte(payload), ContentType: mqttdevice.JSONType, ContentEncoding: mqttdevice.JSONEncoding}, nil
}
