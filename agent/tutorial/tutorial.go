// Package tutorial has what the device of the tutorial "Get started with device management" answers and
// reports when it is rebooted, for all that plays that device: package agent, which also does what it
// says, and package fleet.
//
//	for _, name := range tutorial.Methods() {
//		client.HandleMethod(name, func(ctx context.Context, _ mqttdevice.Method) mqttdevice.Response {
//			if _, err := client.PatchReported(ctx, tutorial.Report(time.Now())); err != nil {
//				return tutorial.Response(500, tutorial.Unreported)
//			}
//			return tutorial.Response(200, tutorial.Answer)
//		})
//	}
package tutorial

import (
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
)

// Methods are the names of the direct methods that reboot a device: the tutorial's, and that of its
// editions in other languages.
func Methods() []string { return []string{"rebootDevice", "reboot"} }

// Texts of answers. The tutorial has the first only.
const (
	Answer     = "This is the response from the device"              // 200: it has rebooted, or is about to
	Busy       = "The device is already rebooting"                   // 409
	Unreported = "The device rebooted but could not report the time" // 500
)

// Response is an answer in the tutorial's form: {"Response": text}.
func Response(status int, text string) mqttdevice.Response {
	return mqttdevice.Response{Status: status, Payload: map[string]string{"Response": text}}
}

// TimeFormat is RFC 3339. Two reboots that follow each other at once still differ.
const TimeFormat = "2006-01-02T15:04:05.000000Z07:00"

// Report is the patch of the reported properties of a device that has rebooted at t: rebootTime.
func Report(t time.Time) map[string]string {
	return map[string]string{"rebootTime": t.UTC().Format(TimeFormat)}
}
