package hubrest

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// methodMargin is what the way to the hub and back may add to the time-outs of a direct method.
const methodMargin = 15 * time.Second

// A Method is a direct method to be called on a device or module. See the article "Understand and invoke direct methods
// from IoT Hub".
type Method struct {
	Name string
	// Payload is JSON of up to 128 KiB: a json.RawMessage goes as it is, anything else as json.Marshal has it; nil is
	// null.
	Payload any
	// ResponseTimeout is how long the device may take to answer, 5 s to 300 s. 0: 30 s. Both times are rounded up to
	// whole seconds.
	ResponseTimeout time.Duration
	// ConnectTimeout is how long the hub waits for a device that isn't connected, up to 300 s. 0: the device must be
	// online now.
	ConnectTimeout time.Duration
}

// A MethodAnswer is what the device answered.
type MethodAnswer struct {
	Status  int             `json:"status"`  // the device's own; 200 by custom when it went well
	Payload json.RawMessage `json:"payload"` // as the device wrote it; null when it wrote none
}

// InvokeMethod calls a direct method and waits for the answer of the device, whatever its status. The call is sent
// once. It fails with ErrNotFound, ErrNotOnline, or ErrTimedOut when the device took too long (it may have acted).
func (c *Client) InvokeMethod(ctx context.Context, t Target, m Method) (MethodAnswer, error) {
	if m.ResponseTimeout == 0 {
		m.ResponseTimeout = 30 * time.Second
	}
	body := struct {
		MethodName      string `json:"methodName"`
		Payload         any    `json:"payload"`
		ResponseTimeout int    `json:"responseTimeoutInSeconds"`
		ConnectTimeout  int    `json:"connectTimeoutInSeconds"`
	}{m.Name, m.Payload, seconds(m.ResponseTimeout), seconds(m.ConnectTimeout)}
	var a MethodAnswer
	_, err := c.do(ctx, request{
		what:    "call " + m.Name + " on " + t.noun(),
		method:  http.MethodPost,
		path:    append(t.path("twins"), "methods"),
		body:    body,
		repeat:  repeatUnsent,
		timeout: m.ConnectTimeout + m.ResponseTimeout + methodMargin,
	}, &a)
	if err == nil && a.Payload == nil {
		a.Payload = json.RawMessage("null")
	}
	return a, err
}

// seconds rounds up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
