package hub

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// A MethodCall is a call of a direct method.
type MethodCall struct {
	Name            string
	Payload         json.RawMessage // what the device receives; nil is null
	ResponseTimeout time.Duration   // how long the device may take: 5 s to 300 s
	ConnectTimeout  time.Duration   // how long to wait for the device to connect: 0 to 300 s
}

// A MethodResult is a device's answer to a direct method.
type MethodResult struct {
	Status  int32           // the device's own status, whatever it means
	Payload json.RawMessage // JSON, "null" when the device sent nothing
}

// Limits of direct methods, from "Understand and invoke direct methods" and
// the service's error texts. The number of calls in flight is documented to
// have a limit, which is not documented itself.
const (
	DefaultResponseTimeout = 30 * time.Second
	minResponseTimeout     = 5 * time.Second
	maxMethodTimeout       = 300 * time.Second
	maxMethodName          = 100
	maxMethodPayload       = 128 << 10
	maxMethodCalls         = 10 // in flight on one connection
)

func (c MethodCall) validate() error {
	if c.Name == "" {
		return ErrArgumentNull.with("methodName is required")
	}
	if len(c.Name) > maxMethodName {
		return ErrArgumentInvalid.with("methodName must be at most %d characters", maxMethodName)
	}
	for _, r := range c.Name {
		if r <= ' ' || r > '~' || strings.ContainsRune(`$()<>@,;:\"/[]?={}`, r) {
			return ErrArgumentInvalid.with("methodName must not contain %q", r)
		}
	}
	if c.ResponseTimeout < minResponseTimeout || c.ResponseTimeout > maxMethodTimeout {
		return ErrArgumentInvalid.with("responseTimeoutInSeconds must be within [5; 300].")
	}
	if c.ConnectTimeout < 0 || c.ConnectTimeout > maxMethodTimeout {
		return ErrArgumentInvalid.with("connectTimeoutInSeconds must be within [0; 300].")
	}
	if len(c.Payload) > maxMethodPayload {
		return ErrMessageTooLarge.with("payload must be at most %d bytes", maxMethodPayload)
	}
	return nil
}

// InvokeMethod calls a direct method on a device or module and returns its
// answer. The call is sent at most once. It ends early when ctx does.
//
// Errors: ErrArgumentInvalid, ErrArgumentNull, ErrDeviceNotFound,
// ErrModuleNotFound, ErrDeviceNotOnline (not connected, or not subscribed to
// direct methods, within the connect timeout; or gone before it answered),
// ErrTooManyMethodCalls, ErrBadDeviceResponse, ErrGatewayTimeout.
func (s *Server) InvokeMethod(ctx context.Context, id ID, call MethodCall) (result MethodResult, err error) {
	defer func() { s.metrics.methodCall(err) }()
	if err := call.validate(); err != nil {
		return MethodResult{}, err
	}
	// What is connected exists and is not disabled: a change that says
	// otherwise ends the connection before it is acknowledged.
	c := s.connection(id)
	rid := strconv.FormatUint(s.links.rid.Add(1), 16)
	topic := topicOfMethod(call.Name, rid)
	patience := call.ConnectTimeout
	for {
		if c != nil {
			result, sent, err := s.callMethod(ctx, c, rid, topic, call)
			if sent || err != nil {
				return result, err
			}
		}
		if err := s.callable(id); err != nil {
			return MethodResult{}, err
		}
		began := time.Now()
		if c, err = s.awaitMethod(ctx, id, topic, patience); err != nil {
			return MethodResult{}, err
		}
		patience = max(patience-time.Since(began), 0)
	}
}

// callable reports whether a method may be called on the identity: it exists,
// and its device is not disabled, which the service shows as not found.
func (s *Server) callable(id ID) error {
	device, err := s.readIdentity(ID{Device: id.Device})
	if err != nil {
		return err
	}
	if device.Status == StatusDisabled {
		return ID{Device: id.Device}.notFound()
	}
	if id.Module == "" {
		return nil
	}
	_, err = s.readIdentity(id)
	return err
}

// topicOfMethod is the topic of a direct method, or of any call of it without a
// rid.
func topicOfMethod(name, rid string) string { return methodTopic + name + "/?$rid=" + rid }

// awaitMethod returns the connection of id once it has subscribed to the topic
// of a direct method. That is the whole topic that will be sent: a filter may
// take one call and not another.
func (s *Server) awaitMethod(ctx context.Context, id ID, topic string, timeout time.Duration) (*conn, error) {
	notOnline := *ErrDeviceNotOnline
	notOnline.Timeout = timeout
	if timeout == 0 {
		return nil, &notOnline
	}
	changed, stop := s.links.watch(id)
	defer stop()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		if c := s.connection(id); c != nil && c.takes(topic) {
			return c, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, &notOnline
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.ctx.Done():
			return nil, ErrServiceUnavailable.with("the hub is closing")
		}
	}
}

// callMethod calls a direct method on c. It is not sent, without an error, if c
// does not take it, or not any more.
func (s *Server) callMethod(ctx context.Context, c *conn, rid, topic string, call MethodCall) (result MethodResult, sent bool, err error) {
	answer, err := c.expect(rid)
	if err != nil {
		return MethodResult{}, false, err
	}
	defer c.forget(rid)
	payload := call.Payload
	if len(payload) == 0 {
		payload = json.RawMessage("null")
	}
	if !c.sendMethod(rid, topic, payload) {
		return MethodResult{}, false, nil
	}
	timer := time.NewTimer(call.ResponseTimeout)
	defer timer.Stop()
	select {
	case a := <-answer:
		return a.result, true, a.err
	case <-c.gone:
		// The answer may have been the last thing the device sent.
		select {
		case a := <-answer:
			return a.result, true, a.err
		default:
			return MethodResult{}, true, ErrDeviceNotOnline.with("Device unavailable")
		}
	case <-timer.C:
		return MethodResult{}, true, ErrGatewayTimeout
	case <-ctx.Done():
		return MethodResult{}, true, ctx.Err()
	}
}

// A methodAnswer is what a device sent to a direct method.
type methodAnswer struct {
	result MethodResult
	err    error
}

// newMethodAnswer checks a device's answer: an integer as status, and JSON or
// nothing as payload.
func newMethodAnswer(status string, payload []byte) methodAnswer {
	n, err := strconv.ParseInt(status, 10, 32)
	if err != nil {
		return methodAnswer{err: ErrBadDeviceResponse.with("the device's status %q is not an integer", clip(status))}
	}
	if len(payload) > maxMethodPayload {
		return methodAnswer{err: ErrBadDeviceResponse.with("the device's answer is larger than %d bytes", maxMethodPayload)}
	}
	if len(payload) == 0 {
		payload = []byte("null")
	}
	if !json.Valid(payload) {
		return methodAnswer{err: ErrBadDeviceResponse.with("the device's answer is not JSON")}
	}
	return methodAnswer{result: MethodResult{Status: int32(n), Payload: payload}}
}
