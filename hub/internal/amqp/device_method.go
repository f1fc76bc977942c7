package amqp

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// The application properties of a direct method and of its answer. Clients look
// them up in this case exactly.
const (
	methodName   = "IoThub-methodname"
	methodStatus = "IoThub-status"
)

// A device may have methodCredit answers under way, which are small: no more
// are expected than calls in flight.
const (
	methodCredit  = 2 * hub.MaxMethodCalls
	maxMethodSize = hub.MaxMethodPayload + encodingRoom
)

// A pendingCall is a direct method that waits for the device's answer.
type pendingCall struct {
	id     wire.UUID
	pair   *pair
	answer chan<- methodAnswer
}

// A methodAnswer is what a device sent to a direct method.
type methodAnswer struct {
	hub.MethodAnswer
	err error
}

// takeMethods sets up a link of direct methods.
func (d *device) takeMethods(l *engine.Link) {
	if l.Role == wire.Sender {
		l.Inlet = methodInlet{d, l}
		l.Credit, l.MaxMessageSize = methodCredit, maxMethodSize
		return
	}
	l.Outlet = methodOutlet{silent{d, l}}
	l.MaxMessageSize = maxMethodSize
}

// methodOutlet sends direct methods.
type methodOutlet struct{ silent }

// Ready implements engine.Outlet.
func (o methodOutlet) Ready() { o.d.conn.door.hub.Ready(o.d) }

// methodInlet takes the answers.
type methodInlet struct {
	d *device
	l *engine.Link
}

// Detached implements engine.Inlet.
func (i methodInlet) Detached() { i.d.left(i.l) }

// Receive implements engine.Inlet. An answer that nobody waits for is taken all
// the same: its caller has gone.
func (i methodInlet) Receive(m *engine.Delivery) {
	id, a, err := readMethodAnswer(m.Payload)
	if err != nil {
		m.Reject(err)
		return
	}
	i.d.answer(id, a)
	m.Accept()
}

// readMethodAnswer reads a device's answer to a direct method. Its correlation
// id is that of the method, as a uuid or as text.
func readMethodAnswer(payload []byte) (id wire.UUID, a methodAnswer, _ *wire.Error) {
	m, err := wire.DecodeMessage(payload)
	if err != nil {
		return id, a, refuse(condDecode, "%v", err)
	}
	if id, err = methodID(m); err != nil {
		return id, a, refuse(condArgument, "%v", err)
	}
	status, ok := integer(m.ApplicationProperties.Get(methodStatus))
	if !ok || status != int64(int32(status)) {
		a.err = hub.ErrBadDeviceResponse.With("the device's answer has no integer as %s", methodStatus)
		return id, a, nil
	}
	a.MethodAnswer = hub.MethodAnswer{Status: int32(status), Payload: slices.Clone(bodyOf(m))}
	return id, a, nil
}

func methodID(m *wire.Message) (id wire.UUID, _ error) {
	if m.Properties != nil {
		switch v := m.Properties.CorrelationID.(type) {
		case wire.UUID:
			return v, nil
		case string:
			parsed, ok := parseUUID(v)
			if ok {
				return parsed, nil
			}
		case []byte:
			if len(v) == len(id) {
				return wire.UUID(v), nil
			}
		}
	}
	return id, errMethodID
}

// TakesMethod implements hub.Link.
func (d *device) TakesMethod(string) bool { return d.methodPair() != nil }

// methodPair returns the pair on which a method can be sent, the newest if there
// are several, or nil.
func (d *device) methodPair() *pair {
	for _, p := range slices.Backward(d.whole(nodeDeviceMethods)) {
		if p.out.CanSend() {
			return p.pair
		}
	}
	return nil
}

// A wholePair is a pair as it was when both of its links were attached.
type wholePair struct {
	*pair
	out *engine.Link
}

// whole returns the pairs of a node whose links are both attached.
func (d *device) whole(n node) (list []wholePair) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason != nil {
		return nil
	}
	for _, p := range d.pairs {
		if p.node == n && p.complete() {
			list = append(list, wholePair{p, p.out})
		}
	}
	return list
}

// Call implements hub.Link.
func (d *device) Call(ctx context.Context, name string, payload json.RawMessage) (_ hub.MethodAnswer, taken bool, err error) {
	id := wire.UUID(words.NewRequestID())
	answers := make(chan methodAnswer, 1)
	if err := d.expect(pendingCall{id: id, answer: answers}); err != nil {
		return hub.MethodAnswer{}, false, err
	}
	defer d.forget(id)
	if !d.sendMethod(id, name, payload) {
		return hub.MethodAnswer{}, false, nil
	}
	select {
	case a := <-answers:
		return a.MethodAnswer, true, a.err
	case <-d.gone:
		// The answer may have been the last thing the device sent.
		select {
		case a := <-answers:
			return a.MethodAnswer, true, a.err
		default:
			return hub.MethodAnswer{}, true, errUnavailable
		}
	case <-ctx.Done():
		return hub.MethodAnswer{}, true, context.Cause(ctx)
	}
}

var errUnavailable = hub.ErrDeviceNotOnline.With("Device unavailable")

// sendMethod sends a direct method, and reports whether the device takes it.
func (d *device) sendMethod(id wire.UUID, name string, payload []byte) bool {
	message := wire.AppendMessage(nil, &wire.Message{
		Properties:            &wire.Properties{CorrelationID: id},
		ApplicationProperties: wire.Map{{Key: methodName, Value: name}},
		Data:                  [][]byte{payload},
	})
	for _, p := range slices.Backward(d.whole(nodeDeviceMethods)) {
		if d.sentBy(id, p.pair) && p.out.Send(message, nil, mayPresettle(p.out), nil) {
			return true
		}
	}
	return false
}

// mayPresettle reports whether deliveries may go out settled on l: there is
// nothing to be learnt from what the peer makes of them.
func mayPresettle(l *engine.Link) bool {
	return l.SndSettleMode == nil || *l.SndSettleMode != wire.SndUnsettled
}

// expect registers a direct method that d is about to be sent.
func (d *device) expect(call pendingCall) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.calls) >= hub.MaxMethodCalls {
		return hub.ErrTooManyMethodCalls
	}
	d.calls = append(d.calls, call)
	return nil
}

// sentBy notes by which pair a direct method goes out, if that is whole.
func (d *device) sentBy(id wire.UUID, p *pair) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.callLocked(id)
	if i < 0 || !p.complete() {
		return false
	}
	d.calls[i].pair = p
	return true
}

// forget ends the wait for an answer. A later one is ignored.
func (d *device) forget(id wire.UUID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := d.callLocked(id); i >= 0 {
		d.calls = slices.Delete(d.calls, i, i+1)
	}
}

// answer gives a to the caller that waits for it, if one still does.
func (d *device) answer(id wire.UUID, a methodAnswer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := d.callLocked(id); i >= 0 {
		call := d.calls[i]
		d.calls = slices.Delete(d.calls, i, i+1)
		call.answer <- a // never waits: it is the only one
	}
}

// failCallsLocked ends the calls whose answers cannot come any more.
func (d *device) failCallsLocked(broken *pair) {
	d.calls = slices.DeleteFunc(d.calls, func(call pendingCall) bool {
		if call.pair != broken {
			return false
		}
		call.answer <- methodAnswer{err: errUnavailable}
		return true
	})
}

func (d *device) callLocked(id wire.UUID) int {
	return slices.IndexFunc(d.calls, func(p pendingCall) bool { return p.id == id })
}

var errMethodID = errors.New("the answer's correlation id is not that of a direct method")

// parseUUID reads a uuid as clients print it.
func parseUUID(text string) (id wire.UUID, ok bool) {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Trim(text, "{}"), "-", ""))
	if err != nil || len(b) != len(id) {
		return id, false
	}
	return wire.UUID(b), true
}

// integer reads a number of any of AMQP's types for integers, or its text.
func integer(v any) (n int64, ok bool) {
	switch v := v.(type) {
	case int8:
		return int64(v), true
	case int16:
		return int64(v), true
	case int32:
		return int64(v), true
	case int64:
		return v, true
	case uint8:
		return int64(v), true
	case uint16:
		return int64(v), true
	case uint32:
		return int64(v), true
	case uint64:
		return int64(v), int64(v) >= 0
	case string:
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		return n, err == nil
	}
	return 0, false
}
