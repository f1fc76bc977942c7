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
