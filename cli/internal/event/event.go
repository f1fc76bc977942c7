// Package event prints events for people, from whichever side of a hub they come.
package event

import (
	"fmt"
	"time"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/cli/internal/output"
)

// Text is an event for people, on one line: when, who, what about, and what was
// sent. The event is JSON as "az iot hub monitor-events --properties all" prints it.
func Text(doc []byte) string {
	e := gjson.GetBytes(doc, "event")
	annotation := func(name string) gjson.Result { return e.Get("annotations." + name) }
	who := e.Get("origin").String()
	if module := e.Get("module").String(); module != "" {
		who += "/" + module
	}
	line := fmt.Sprintf("%s  %s  %s  %s", time.UnixMilli(annotation("iothub-enqueuedtime").Int()).Format(time.DateTime),
		output.OneLine(who), output.OneLine(annotation("iothub-message-source").String()), output.OneLine(payloadText(e)))
	e.Get("properties.application").ForEach(func(name, value gjson.Result) bool {
		line += "  " + output.OneLine(name.String()) + "=" + output.OneLine(value.String())
		return true
	})
	return line
}

func payloadText(e gjson.Result) string {
	payload := e.Get("payload")
	if e.Get("payloadEncoding").String() != "" {
		return "(base64) " + payload.String()
	}
	return payload.String() // JSON as it is
}
