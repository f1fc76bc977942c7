package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/internal/wait"
)

// A MethodCall is a call of a direct method.
type MethodCall struct {
	Name            string
	Payload         json.RawMessage `json:",omitempty"` // what the device receives; nil is an empty body
	ResponseTimeout time.Duration   // how long the device may take: 5 s to 300 s; 0 is DefaultResponseTimeout
	ConnectTimeout  time.Duration   // how long to wait for the device to connect: 0 to 300 s
}

// A MethodResult is a device's answer to a direct method.
type MethodResult struct {
	Status  int32           // the device's own status, whatever it means
	Payload json.RawMessage // as the device sent it; "null" when it sent nothing

	// NotJSON says that Payload is not JSON, or not in UTF-8. The service hands
	// it on all the same, and its caller cannot read the answer
	// (Azure/azure-iot-sdk-node issue 736).
	NotJSON bool
}

// Limits of direct methods, from "Understand and invoke direct methods" and
// the service's error texts. The number of calls in flight is documented to
// have a limit, which is not documented itself.
const (
	DefaultResponseTimeout = 30 * time.Second
	minResponseTimeout     = 5 * time.Second
	MaxMethodTimeout       = 300 * time.Second
	maxMethodName          = 100
	MaxMethodPayload       = 128 << 10
	MaxMethodCalls         = 10 // in flight on one connection
)

// Validate says what is wrong with the call, if anything.
//
// Errors: ErrArgumentInvalid, ErrArgumentNull, ErrMessageTooLarge.
func (c MethodCall) Validate() error {
	if c.Name == "" {
		return ErrArgumentNull.With("methodName is required")
	}
	if len(c.Name) > maxMethodName {
		return ErrArgumentInvalid.With("methodName must be at most %d characters", maxMethodName)
	}
	for _, r := range c.Name {
		if r <= ' ' || r > '~' || strings.ContainsRune(`$()<>@,;:\"/[]?={}`, r) {
			return ErrArgumentInvalid.With("methodName must not contain %q", r)
		}
	}
	if c.ResponseTimeout < minResponseTimeout || c.ResponseTimeout > MaxMethodTimeout {
		return ErrArgumentInvalid.With("responseTimeoutInSeconds must be within [5; 300].")
	}
	if c.ConnectTimeout < 0 || c.ConnectTimeout > MaxMethodTimeout {
		return ErrArgumentInvalid.With("connectTimeoutInSeconds must be within [0; 300].")
	}
	if len(c.Payload) > MaxMethodPayload {
		return ErrMessageTooLarge.With("payload must be at most %d bytes", MaxMethodPayload)
	}
	return nil
}

// InvokeMethod calls a direct method on a device or module and returns its
// answer. The call is sent at most once. It ends early when ctx does.
//
// Errors: ErrArgumentInvalid, ErrArgumentNull, ErrDeviceNotFound,
// ErrModuleNotFound, ErrDeviceNotOnline (not connected, or not subscribed to
// direct methods, within the connect timeout; or gone before it answered),
// ErrTooManyMethodCalls, ErrBadDeviceResponse, ErrGatewayTimeout. If it is not known
// whether the device got the call because the node of its connection has gone, or
// another node has that now, the error is ErrDeviceNotOnline and ErrPeerGone.
func (s *Server) InvokeMethod(ctx context.Context, id ID, call MethodCall) (result MethodResult, err error) {
	s.metrics.calling.Inc()
	defer func() {
		s.metrics.calling.Dec()
		s.metrics.methodCall(err)
	}()
	if s.journal != nil {
		s.noteCall(id, call)
		defer func() { s.noteAnswer(id, call, result, err) }()
	}
	call.ResponseTimeout = cmp.Or(call.ResponseTimeout, DefaultResponseTimeout)
	if err := call.Validate(); err != nil {
		return MethodResult{}, err
	}
	var late time.Duration // how much later a fault has the answer come
	if f := s.strike(fault.Method, id, nil); f != nil {
		if f.Refusal != nil {
			return MethodResult{}, f.Refusal
		}
		if f.Drop {
			return MethodResult{}, s.loseCall(ctx, id, call)
		}
		late = f.Latency
	}
	// What is connected exists and is not disabled: a change that says
	// otherwise ends the connection before it is acknowledged.
	if result, taken, err := s.callAnywhere(ctx, id, call, late, 0); taken || err != nil {
		return result, err
	}
	if s.peers != nil { // it may have moved, or be new
		if err := s.Fresh(ctx); err != nil {
			return MethodResult{}, err
		}
		if result, taken, err := s.callAnywhere(ctx, id, call, late, 0); taken || err != nil {
			return result, err
		}
	}
	if err := s.Callable(id); err != nil {
		return MethodResult{}, err
	}
	until := s.Now().Add(call.ConnectTimeout)
	err = s.await(ctx, id, call.ConnectTimeout, func() (taken bool, err error) {
		result, taken, err = s.callAnywhere(ctx, id, call, late, until.Sub(s.Now()))
		return taken, err
	})
	return result, err
}

// loseCall is a call that is lost on its way to the device.
func (s *Server) loseCall(ctx context.Context, id ID, call MethodCall) error {
	if err := s.Callable(id); err != nil {
		return err
	}
	limited, cancel := s.clock.WithTimeout(ctx, call.ResponseTimeout, ErrGatewayTimeout)
	defer cancel()
	<-limited.Done()
	return cmp.Or(ctx.Err(), context.Cause(limited))
}

// AwaitMethod returns when id is connected and takes a direct method, as far as
// Takes knows.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound, ErrDeviceNotOnline if that is
// not so in time, ErrServiceUnavailable when the hub closes, the error of ctx.
func (s *Server) AwaitMethod(ctx context.Context, id ID, name string, timeout time.Duration) error {
	if err := s.Callable(id); err != nil {
		if s.peers == nil {
			return err
		}
		if err := cmp.Or(s.Fresh(ctx), s.Callable(id)); err != nil {
			return err
		}
	}
	return s.await(ctx, id, timeout, func() (bool, error) { return s.Takes(id, name), nil })
}

// Takes reports whether a direct method can be called on id now: its link takes
// that, or is one of another node, which knows.
func (s *Server) Takes(id ID, method string) bool {
	if l := s.Link(id); l != nil {
		return l.TakesMethod(method)
	}
	return s.peers != nil && s.connected(id)
}

// await calls try now and after every change of id's link, until it is done or
// fails, or time runs out.
func (s *Server) await(ctx context.Context, id ID, timeout time.Duration, try func() (done bool, err error)) error {
	notOnline := *ErrDeviceNotOnline
	notOnline.Timeout = timeout
	if timeout == 0 {
		return &notOnline
	}
	changed, stop := s.links.watch(id)
	defer stop()
	timer := s.clock.NewTimer(timeout)
	defer timer.Stop()
	era := s.gate.era()
	for {
		if done, err := try(); done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-timer.C:
			return &notOnline
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return ErrServiceUnavailable.With("%v", ErrClosing)
		case <-era:
			return ErrServiceUnavailable.With("%v", ErrReset)
		}
	}
}

// Callable says why no method can be called on the identity, if so: it does not
// exist, or its device is disabled, which the service shows as not found.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound.
func (s *Server) Callable(id ID) error {
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

// callMethod calls a direct method on the link of id, and has the answer come so
// much later. It is not taken, without an error, if there is none or the peer does
// not take it.
func (s *Server) callMethod(ctx context.Context, id ID, call MethodCall, late time.Duration) (result MethodResult, taken bool, err error) {
	l := s.Link(id)
	if l == nil {
		return MethodResult{}, false, nil
	}
	limited, cancel := s.clock.WithTimeout(ctx, call.ResponseTimeout, ErrGatewayTimeout)
	defer cancel()
	answer, taken, err := l.Call(limited, call.Name, call.Payload)
	if taken && err == nil && late > 0 {
		err = wait.For(limited, late)
	}
	switch {
	case err != nil && ctx.Err() != nil && errors.Is(err, context.Cause(limited)):
		return MethodResult{}, taken, ctx.Err()
	case !taken || err != nil:
		return MethodResult{}, taken, err
	}
	result, err = answer.result()
	if result.NotJSON {
		s.often.Warn("a direct method's answer is not JSON, which its caller may not be able to read", slog.String(words.LogID, id.String()), slog.String(words.LogMethod, call.Name))
	}
	return result, true, err
}

// A MethodAnswer is what a device sent to a direct method, as it came.
type MethodAnswer struct {
	Status  int32
	Payload []byte
}

// result checks the answer.
func (a MethodAnswer) result() (MethodResult, error) {
	switch {
	case len(a.Payload) > MaxMethodPayload:
		return MethodResult{}, ErrBadDeviceResponse.With("the device's answer is larger than %d bytes", MaxMethodPayload)
	case len(a.Payload) == 0:
		return MethodResult{Status: a.Status, Payload: json.RawMessage("null")}, nil
	}
	return MethodResult{Status: a.Status, Payload: a.Payload, NotJSON: !json.Valid(a.Payload) || !utf8.Valid(a.Payload)}, nil
}
