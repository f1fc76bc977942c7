package hubrest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

// methodMargin is what the way to the hub and back may add to the time-outs of a direct method.
const methodMargin = 15 * time.Second

// A Method is a direct method to be called on a device or module. See the article "Understand and invoke direct methods
// from IoT Hub".
type Method struct {
	Name string
	// Payload is JSON of up to 128 KiB: a json.RawMessage goes as it is, anything else as json.Marshal has it; nil is
	// null. A call without any payload, which the hub hands to the device as an empty body, cannot be made: devices
	// that read JSON fail on it.
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

// A NotJSONError is the answer of a device whose payload is not JSON. The hub hands it on as it is.
type NotJSONError struct {
	Status  int // as in MethodAnswer
	Payload []byte
}

// Error shows the beginning of the payload.
func (e *NotJSONError) Error() string {
	const most = 64
	text, more := e.Payload, ""
	if len(text) > most {
		text, more = text[:most], "..."
	}
	return fmt.Sprintf("it answered with status %d and what is not JSON: %q%s", e.Status, text, more)
}

// methodAnswer is what the hub makes of an answer. The payload may be anything.
var methodAnswer = regexp.MustCompile(`(?s)^\s*{\s*"status"\s*:\s*(-?[0-9]+)\s*,\s*"payload"\s*:(.*)}\s*$`)

// InvokeMethod calls a direct method and waits for the answer of the device, whatever its status. The call is sent
// once. It fails with ErrNotFound, ErrNotOnline, or ErrTimedOut when the device took too long (it may have acted), and
// with a [*NotJSONError] when it did answer, but not in JSON.
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
	var odd *NotJSONError
	_, err := c.do(ctx, request{
		what:    "call " + m.Name + " on " + t.noun(),
		method:  http.MethodPost,
		path:    append(t.path("twins"), "methods"),
		body:    body,
		repeat:  repeatUnsent,
		timeout: m.ConnectTimeout + m.ResponseTimeout + methodMargin,
		decode: func(body []byte, out any) error {
			err := json.Unmarshal(body, out)
			if found := methodAnswer.FindSubmatch(body); err != nil && found != nil {
				status, _ := strconv.Atoi(string(found[1])) // 0 if it is no status at all
				odd, err = &NotJSONError{Status: status, Payload: bytes.TrimSpace(found[2])}, nil
			}
			return err
		},
	}, &a)
	switch {
	case err != nil:
		return MethodAnswer{}, err
	case odd != nil:
		return MethodAnswer{}, fmt.Errorf("call %s on %s: %w", m.Name, t.noun(), odd)
	case a.Payload == nil:
		a.Payload = json.RawMessage("null")
	}
	return a, nil
}

// seconds rounds up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
