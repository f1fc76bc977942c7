package mqttdevice

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
)

const (
	// maxMethods is how many calls may run at once. IoT Hub allows a device about ten.
	maxMethods = 64
	// maxMethodPayload is the most IoT Hub carries in either direction.
	maxMethodPayload = 128 << 10
)

// A Method is one call of a direct method.
type Method struct {
	Name    string
	Payload json.RawMessage // "null" also when the caller gave none, which arrives as an empty body
}

// A Response is a device's answer to a direct method.
type Response struct {
	// Status is what the caller gets to see, by custom an HTTP status. Zero means 200.
	Status int
	// Payload is encoded as JSON, in at most 128 KiB; a json.RawMessage goes as it is, nil as null.
	Payload any
	// Sent, if set, is called once the answer has been written to the connection (nil), or could not
	// be. What the client sends afterwards reaches the hub after the answer.
	Sent func(error)
}

// A MethodHandler answers a direct method. It runs on a goroutine of its own. The caller waits for 5
// to 300 seconds, as it chose; it does not tell the device. Close cancels ctx when it cannot wait any
// longer; the end of the connection does not.
type MethodHandler func(ctx context.Context, m Method) Response

// HandleMethod sets the handler of a direct method, or of every method without one if name is empty.
// A nil handler removes it. The client itself answers 501 to a method nobody handles, and 500 when
// the handler panics or returns what is no JSON, as the public SDKs do; see the article "Understand
// and invoke direct methods from IoT Hub".
func (c *Client) HandleMethod(name string, h MethodHandler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h == nil {
		delete(c.methods, name)
		return
	}
	if c.methods == nil {
		c.methods = make(map[string]MethodHandler)
	}
	c.methods[name] = h
}

func (s *session) receiveMethod(name, rid string, payload []byte) {
	if !s.startMethod(name, rid, payload) {
		s.c.log.Warn("method dropped", logMethod, name, logRID, rid)
	}
}

// startMethod starts the handler of a call. It reports false for a call that gets no answer.
func (s *session) startMethod(name, rid string, payload []byte) bool {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	// A hub that has lost count must not make this program grow: it gets refusals, then silence.
	if c.closed || s.left || c.running >= 2*maxMethods {
		return false
	}
	h := c.methods[name]
	if h == nil {
		h = c.methods[""]
	}
	switch {
	case c.running >= maxMethods:
		h = refuse(429, "too many calls at once")
	case h == nil:
		h = refuse(501, "no such method")
	}
	if len(payload) == 0 {
		payload = []byte("null")
	}
	if !c.start(func() { s.runMethod(h, rid, Method{Name: name, Payload: payload}) }) {
		return false
	}
	c.handlers++
	c.running++
	return true
}

func (s *session) runMethod(h MethodHandler, rid string, m Method) {
	c := s.c
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		s.answered++
		c.running--
		c.handlers--
		c.announceRelease()
	}()
	status, body, sent := c.callMethod(h, m)
	c.log.LogAttrs(context.Background(), slog.LevelInfo, "method", slog.String(logMethod, m.Name), slog.String(logRID, rid), slog.Int(logStatus, status))
	// QoS 0, as most SDKs: an answer that comes a connection later is of no use. The handlers'
	// context may be over; the answer goes out nevertheless.
	topic := methodAnswerTopic + strconv.Itoa(status) + "/?$rid=" + rid
	err := s.answer(topic, body)
	if err != nil {
		c.log.Warn("method answer not sent", logMethod, m.Name, logRID, rid, logError, err)
	}
	if sent != nil {
		sent(err)
	}
}

// callMethod calls h and turns whatever happens into an answer.
func (c *Client) callMethod(h MethodHandler, m Method) (status int, body []byte, sent func(error)) {
	failed := func(why string, keysAndValues ...any) (int, []byte, func(error)) {
		c.log.Error(why, append(keysAndValues, logMethod, m.Name)...)
		return 500, message(why), sent
	}
	defer func() {
		if p := recover(); p != nil {
			status, body, sent = failed("the method handler panicked", logError, fmt.Sprint(p), logStack, string(debug.Stack()))
		}
	}()
	r := h(c.work, m)
	sent = r.Sent
	body, err := json.Marshal(r.Payload)
	switch {
	case err != nil:
		return failed("the method's answer is no JSON", logError, err)
	case len(body) > maxMethodPayload:
		return failed("the method's answer is larger than 128 KiB", logSize, len(body))
	case r.Status == 0:
		return 200, body, sent
	}
	return r.Status, body, sent
}

func refuse(status int, why string) MethodHandler {
	return func(context.Context, Method) Response {
		return Response{Status: status, Payload: json.RawMessage(message(why))}
	}
}

// message returns the payload of an answer that is the client's own.
func message(why string) []byte {
	body, _ := json.Marshal(map[string]string{"message": why}) // strings cannot fail
	return body
}
