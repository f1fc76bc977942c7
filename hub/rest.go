package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// Bounds of one HTTPS connection and one request.
const (
	restHeaderTimeout = 10 * time.Second // also for the TLS handshake
	restBodyTimeout   = 30 * time.Second
	restWriteTimeout  = restBodyTimeout + 30*time.Second // an answer may wait for the rest of a body
	restIdleTimeout   = 2 * time.Minute
	restMaxHeader     = 32 << 10 // a bearer token is a few KiB, a continuation token up to 4
	// A direct method may wait 300 s for the device and 300 s for its answer.
	restMaxTime = 2*maxMethodTimeout + time.Minute
)

// newHTTPServer returns the server of the REST door.
//
// It speaks HTTP/1.1 only: MQTT over WebSocket shares the listener and needs
// the Upgrade of HTTP/1.1, and no service SDK asks for HTTP/2.
func (s *Server) newHTTPServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		Protocols:         protocols,
		ReadHeaderTimeout: restHeaderTimeout,
		// No ReadTimeout: it would end a direct method that waits longer.
		// limitBody bounds the body instead.
		WriteTimeout:   restMaxTime,
		IdleTimeout:    restIdleTimeout,
		MaxHeaderBytes: restMaxHeader,
		BaseContext:    func(net.Listener) context.Context { return s.ctx },
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// A reply is what a handler answers when it does not refuse.
type reply struct {
	status int         // 0 is 200, or 204 without a body
	body   any         // []byte and json.RawMessage as they are, everything else as JSON
	etag   string      // unquoted; empty for none
	header http.Header // more headers

	// stream writes the whole answer, instead of all others.
	stream func(http.ResponseWriter)
}

// serveHTTP answers one request. The order of the checks is part of the
// contract: api-version, credential, route, right. A caller without the right
// learns nothing, not even whether the route or the device exists.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer s.wg.Done()
	limitBody(w, r)
	segments := splitPath(rawPath(r))
	if s.serveLocal(w, r, segments) {
		return
	}
	if isWebSocket(r, segments) {
		s.serveWebSocket(w, r)
		return
	}
	x := &exchange{server: s, w: w, r: r, id: newRequestID(), began: time.Now()}
	w.Header()["X-Ms-Request-Id"] = []string{x.id.String()}
	w.Header()["Server"] = []string{"iotdm"}
	w.Header()["Vary"] = []string{"Origin"}
	// By the hub's clock, not the machine's: clients find out by it that theirs is off.
	w.Header()["Date"] = []string{s.now().UTC().Format(http.TimeFormat)}
	defer x.rescue()
	if r.Header.Get("Origin") != "" {
		allowBrowser(w.Header())
	}
	if r.Method == http.MethodOptions {
		x.send(http.StatusNoContent, nil)
		return
	}
	rep, err := x.handle(segments)
	if err != nil {
		x.refuse(err)
		return
	}
	x.answer(rep)
}

// handle finds the route, checks the caller and calls the route's handler.
func (x *exchange) handle(segments []string) (reply, error) {
	method := x.r.Method
	// The Java SDK cannot send PATCH.
	if override := x.r.Header.Get("X-HTTP-Method-Override"); override != "" && method == http.MethodPost {
		method = strings.ToUpper(override)
	}
	m := match(method, segments)
	x.nested = m.route != nil && m.route.is(nested)
	if !validAPIVersion(apiVersion(x.r.URL.RawQuery)) {
		return reply{}, ErrInvalidProtocolVersion
	}
	if err := x.admit(m, segments); err != nil {
		return reply{}, err
	}
	switch {
	case m.route != nil:
		return m.route.handle(x.server, &restRequest{Request: x.r, w: x.w, id: m.id, name: m.name, caller: x.caller})
	case m.known:
		return reply{}, ErrMethodNotAllowed
	default:
		return reply{}, ErrRouteNotFound
	}
}

// admit checks the caller's credential and right.
func (x *exchange) admit(m routeMatch, segments []string) error {
	if m.route != nil && m.route.is(byDevice) {
		c, err := x.server.authenticateDevice(x.r, m.id)
		x.caller = c
		return err
	}
	c, err := x.server.authenticateCaller(x.r, "/"+strings.Join(segments, "/"))
	if err != nil {
		return err
	}
	x.caller = c
	return c.may(x.r, m.allowed)
}

// An exchange is one request and its answer.
type exchange struct {
	server *Server
	w      http.ResponseWriter
	r      *http.Request
	id     requestID
	began  time.Time
	caller caller // once known
	nested bool   // errors go into the envelope of direct methods
	sent   bool
}

func (x *exchange) answer(rep reply) {
	if rep.stream != nil {
		x.sent = true
		x.server.metrics.restRequest(http.StatusOK)
		rep.stream(x.w)
		x.log(slog.LevelDebug, http.StatusOK, nil)
		return
	}
	var body []byte
	switch b := rep.body.(type) {
	case nil:
	case []byte:
		body = b
	default:
		var err error
		if body, err = marshal(b); err != nil {
			x.refuse(fmt.Errorf("print the answer: %w", err))
			return
		}
	}
	for name, values := range rep.header {
		x.w.Header()[name] = values
	}
	if rep.etag != "" {
		x.w.Header()["Etag"] = []string{`"` + rep.etag + `"`}
	}
	status := rep.status
	switch {
	case status != 0:
	case rep.body == nil:
		status = http.StatusNoContent
	default:
		status = http.StatusOK
	}
	x.send(status, body)
	x.log(slog.LevelDebug, status, nil)
}

// refuse answers with an error. Its cause goes to the hub's log, under the
// ids that the caller is given.
func (x *exchange) refuse(err error) {
	if errors.Is(err, context.Canceled) && x.server.ctx.Err() == nil {
		// The caller is gone. Without an answer net/http would send 200.
		x.server.metrics.restRequest(statusClientGone)
		x.log(slog.LevelDebug, statusClientGone, err)
		panic(http.ErrAbortHandler)
	}
	refusal := refusalOf(err)
	level := slog.LevelInfo
	if refusal.Status == http.StatusInternalServerError {
		level = slog.LevelError
	}
	now := x.server.now()
	if refusal.Code == ErrUnauthorizedAccess.Code {
		// Why is for the hub's operator alone.
		refusal = ErrUnauthorizedAccess
	}
	x.w.Header()["Iothub-Errorcode"] = []string{refusal.Name}
	body := classicEnvelope(refusal, x.id, now)
	if x.nested {
		body = nestedEnvelope(refusal, x.id, now)
	}
	x.send(refusal.Status, body)
	x.log(level, refusal.Status, err)
}

// statusClientGone stands in the log and the metrics for a caller that did not
// wait.
const statusClientGone = 499

func (x *exchange) send(status int, body []byte) {
	x.sent = true
	x.server.metrics.restRequest(status)
	// The server's own deadline leaves room for the longest direct method; a
	// peer that does not read gets less. It fails only on a dead connection.
	http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(restWriteTimeout))
	if body != nil {
		x.w.Header()["Content-Type"] = []string{"application/json; charset=utf-8"}
		x.w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	x.w.WriteHeader(status)
	if body != nil {
		x.w.Write(body) // the peer may be gone
	}
}

func (x *exchange) log(level slog.Level, status int, cause error) {
	log := x.server.log
	if !log.Enabled(x.r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String(logVerb, clip(x.r.Method)), slog.String(logPath, clip(rawPath(x.r))), slog.Int(logStatus, status),
		slog.String(logCaller, x.caller.name), slog.Duration(logTook, time.Since(x.began)), slog.String(logRemote, x.r.RemoteAddr),
		slog.String(logRequest, x.id.String()),
	}
	if cause != nil {
		attrs = append(attrs, slog.String(logTracking, x.id.compact()), slog.String(logReason, cause.Error()))
	}
	log.LogAttrs(x.r.Context(), level, "request", attrs...)
}

// rescue turns a panic, which is a broken invariant of ours, into the
// service's answer for one.
func (x *exchange) rescue() {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler {
		panic(cause)
	}
	x.server.log.Error("panic", logRequest, x.id.String(), logReason, fmt.Sprint(cause), "stack", string(debug.Stack()))
	if x.sent {
		panic(http.ErrAbortHandler)
	}
	x.refuse(errors.New("panic"))
}

// allowBrowser lets tools that run in a browser call the hub. A page gains
// nothing by it that it could not do without: every call carries its own
// credential, and browsers have none of their own to add.
func allowBrowser(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, PUT, POST, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", "*, Authorization")
	h.Set("Access-Control-Expose-Headers", "*")
}
