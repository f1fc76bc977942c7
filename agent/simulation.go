package agent

import (
	"slices"
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
)

// What a program that only plays devices needs, to play them as an Agent would behave.

// RebootMethods are the names of the direct methods that reboot a device.
func RebootMethods() []string { return slices.Clone(rebootMethods) }

// RebootAnswer is what a device answers that has rebooted, or is about to.
func RebootAnswer() mqttdevice.Response { return response(200, rebootAnswer) }

// RebootReport is the patch of the reported properties of a device that has rebooted at t.
func RebootReport(t time.Time) map[string]string {
	return map[string]string{"rebootTime": t.UTC().Format(rebootTimeFormat)}
}

// SimulateTelemetry returns what makes the n-th message of a device, or of a module of it, as
// [Telemetry.Template] has it. It may be called from any goroutine.
func SimulateTelemetry(text string) (func(device, module string, n uint64, now time.Time) (mqttdevice.Message, error), error) {
	t, err := parseTelemetry(text)
	if err != nil {
		return nil, err
	}
	return func(device, module string, n uint64, now time.Time) (mqttdevice.Message, error) {
		payload, err := expandTelemetry(t, sourceFields{device, module, now.UTC().Format(telemetryTimeFormat), int64(n)})
		return telemetryMessage(payload, now), err
	}, nil
}
