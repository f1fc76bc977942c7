package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// The link of a device may be one of another node. That is asked to call the
// method, once: what is on its way is never sent again, so that no device gets a
// call twice.

const invokeVerb = "invoke"

// An invocation is a direct method that another node is asked to call.
type invocation struct {
	ID      ID
	Name    string
	Payload []byte        // as it is, which JSON in JSON does not stay
	Timeout time.Duration // of the response
	Late    time.Duration // how much later a fault has the answer come
	Wait    time.Duration // how long the device may take until it takes the method
}

// An invoked is what came of it. Unless it is taken, nothing was sent.
type invoked struct {
	Taken   bool
	Status  int32
	Payload []byte
	NotJSON bool
}

// callAnywhere calls a direct method on the link of id, whichever node has that. If
// that is another one, it waits there until the device takes the method. It is
// not taken, without an error, if there is no link or the device does not take it.
func (s *Server) callAnywhere(ctx context.Context, id ID, call MethodCall, late, wait time.Duration) (MethodResult, bool, error) {
	if s.peers == nil || s.Link(id) != nil {
		return s.callHere(ctx, id, call, late)
	}
	node, ok := s.holder(id)
	if !ok || node == s.peers.Self() {
		return MethodResult{}, false, nil
	}
	return s.callElsewhere(ctx, node, id, call, late, max(wait, 0))
}

// callHere is callMethod. If the link ends since this node does, or another one has
// the connection of id already, the error is ErrPeerGone too.
func (s *Server) callHere(ctx context.Context, id ID, call MethodCall, late time.Duration) (MethodResult, bool, error) {
	result, taken, err := s.callMethod(ctx, id, call, late)
	if s.peers == nil || !taken || !errors.Is(err, ErrDeviceNotOnline) {
		return result, taken, err
	}
	gone := s.ctx.Err() != nil || s.Fresh(ctx) != nil
	if node, ok := s.holder(id); gone || ok && node != s.peers.Self() {
		err = fmt.Errorf("%w: %w", err, ErrPeerGone)
	}
	return result, taken, err
}

const (
	// wayPatience is how much longer a node may take to answer than the device.
	wayPatience = 2 * time.Second

	// askPause is until a node is asked again that was not there, or had no link.
	askPause = 50 * time.Millisecond
)

func (s *Server) callElsewhere(ctx context.Context, node uint64, id ID, call MethodCall, late, wait time.Duration) (MethodResult, bool, error) {
	limited, cancel := s.clock.WithTimeout(ctx, wait+call.ResponseTimeout+wayPatience, ErrGatewayTimeout)
	defer cancel()
	limited, end := context.WithCancelCause(limited)
	defer end(nil)
	lost := s.lost(node)
	defer context.AfterFunc(lost, func() { end(ErrDeviceNotOnline) })()
	defer context.AfterFunc(s.ctx, func() { end(ErrServiceUnavailable.With("%v", ErrClosing)) })()
	a, err := Ask[invocation, invoked](limited, s, node, invokeVerb, invocation{id, call.Name, call.Payload, call.ResponseTimeout, late, wait})
	var refusal *Error
	switch {
	case err == nil && a.Taken:
		return MethodResult{a.Status, a.Payload, a.NotJSON}, true, nil
	case err == nil, errors.Is(err, ErrNoPeer):
		// The node may not have read of the link yet that this one knows of.
		time.AfterFunc(askPause, func() { s.links.notify(id) })
		return MethodResult{}, false, nil
	case errors.As(err, &refusal):
		return MethodResult{}, true, refusal
	case ctx.Err() != nil:
		return MethodResult{}, true, ctx.Err()
	case lost.Err() != nil, errors.Is(err, ErrPeerGone):
		return MethodResult{}, true, fmt.Errorf("%w: %w", ErrDeviceNotOnline, ErrPeerGone)
	}
	// Whether the device got the call is not known.
	return MethodResult{}, true, cmp.Or(context.Cause(limited), error(ErrGatewayTimeout))
}

// answerInvoke calls a direct method for another node.
func (s *Server) answerInvoke(ctx context.Context, q invocation) (a invoked, err error) {
	call := MethodCall{Name: q.Name, Payload: q.Payload, ResponseTimeout: q.Timeout}
	try := func() (done bool, err error) {
		if s.Link(q.ID) == nil {
			return true, nil // who asks looks for it elsewhere
		}
		var r MethodResult
		r, a.Taken, err = s.callHere(ctx, q.ID, call, q.Late)
		a.Status, a.Payload, a.NotJSON = r.Status, r.Payload, r.NotJSON
		return a.Taken, err
	}
	if done, err := try(); done || err != nil {
		return a, invokeError(a, err)
	}
	err = s.await(ctx, q.ID, q.Wait, try)
	return a, invokeError(a, err)
}

// invokeError is what another node is told of an error. Before the method is
// taken there is only what the rules refuse: all else it finds out by itself.
func invokeError(a invoked, err error) error {
	var refusal *Error
	known := errors.As(err, &refusal)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrPeerGone):
		return ErrPeerGone
	case known && (a.Taken || !errors.Is(err, ErrDeviceNotOnline) && !errors.Is(err, ErrServiceUnavailable)):
		return refusal
	case a.Taken:
		return ErrPeerGone
	}
	return nil
}
