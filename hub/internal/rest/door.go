// Package rest is a hub's door for REST: the service API of IoT Hub, the HTTPS
// API of its devices, and what this hub has besides. It parses and prints, and
// decides nothing: routes.go says which operation a request is, and what its
// caller needs.
package rest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/controls"
	"github.com/iotdm/iotdm/hub/internal/httprequest"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// Bounds of one HTTPS connection and one request.
const (
	headerTimeout = serve.AuthTimeout                        // also for the TLS handshake
	writeTimeout  = httprequest.BodyTimeout + 30*time.Second // an answer may wait for the rest of a body
	idleTimeout   = 2 * time.Minute
	newcomerTime  = 2 * time.Second // for the first request of a connection, once the door shuts down
	maxHeader     = 32 << 10        // a bearer token is a few KiB, a continuation token up to 4
	// A direct method may wait 300 s for the device and 300 s for its answer.
	maxTime = 2*hub.MaxMethodTimeout + time.Minute
)

// Options configure New. The zero value works.
type Options struct {
	// Controls are the test controls of the hub. Nil refuses to use them.
	Controls *controls.Controls

	// Aside answers a request that is not for REST, and reports whether it was
	// one: it is asked first. Nil is none.
	Aside func(http.ResponseWriter, *http.Request) bool

	// Logger receives refusals at level Info, and every request at level Debug.
	// Nil discards.
	Logger *slog.Logger
}

// A Door serves REST.
type Door struct {
	hub            *hub.Server
	jobs           *jobs.Scheduler
	configurations *configurations.Engine
	controls       *controls.Controls // nil: it has none
	log            *slog.Logger
	far            *words.Limited // about callers that are not let in
	aside          func(http.ResponseWriter, *http.Request) bool
	metrics        *metrics
	large          struct{ ofServices, ofDevices httprequest.Turns } // devices are trusted with less

	http      *http.Server
	following context.Context // ends before requests are waited for
	draining  atomic.Bool
	running   *serve.Group
}

// New returns a door to the rules.
func New(h *hub.Server, j *jobs.Scheduler, c *configurations.Engine, opt Options) *Door {
	d := &Door{
		hub: h, jobs: j, configurations: c, controls: opt.Controls, aside: opt.Aside,
		log:     cmp.Or(opt.Logger, slog.New(slog.DiscardHandler)),
		running: serve.NewGroup(), metrics: newMetrics(),
	}
	d.far = words.NewLimited(d.log)
	d.large.ofServices, d.large.ofDevices = httprequest.NewTurns(), httprequest.NewTurns()
	d.http = d.newHTTPServer()
	var stop context.CancelFunc
	d.following, stop = context.WithCancel(d.running.Context())
	d.http.RegisterOnShutdown(stop)
	return d
}

// newHTTPServer returns the server of the door.
//
// It speaks HTTP/1.1 only: WebSockets share the listener and need the Upgrade
// of HTTP/1.1, and no service SDK asks for HTTP/2.
func (d *Door) newHTTPServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           http.HandlerFunc(d.serveHTTP),
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		// No ReadTimeout: it would end a direct method that waits longer.
		// httprequest.LimitBody bounds the body instead.
		WriteTimeout:   maxTime,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		ConnState:      d.metrics.moved,
		BaseContext:    func(net.Listener) context.Context { return d.running.Context() },
		ConnContext:    func(ctx context.Context, nc net.Conn) context.Context { return context.WithValue(ctx, connKey{}, nc) },
		ErrorLog:       slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// Conn returns the connection of a request that came in by a Door.
func Conn(r *http.Request) net.Conn {
	nc, _ := r.Context().Value(connKey{}).(net.Conn)
	return nc
}

// ServeTLS serves REST over TLS on l until the door closes, and then returns
// serve.ErrClosed. It owns l.
func (d *Door) ServeTLS(l net.Listener, config *tls.Config) error {
	untrack, err := d.running.Track(l)
	if err != nil {
		return err
	}
	defer untrack()
	d.log.Info("listening for REST, and MQTT and AMQP over WebSocket", words.LogAddr, l.Addr().String())
	err = d.http.Serve(tls.NewListener(l, config))
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return serve.ErrClosed
	}
	return fmt.Errorf("serve REST on %s: %w", l.Addr(), err)
}

// Draining has every connection end with the answer of its next request, so that its
// client makes a new one, to another node, and meets none that ends as it asks.
func (d *Door) Draining() { d.draining.Store(true) }

// StopListening closes the listeners; connections go on.
func (d *Door) StopListening() { d.running.StopListening() }

// Shutdown stops listening and returns when all requests have been answered, or
// ctx ends, with its error.
func (d *Door) Shutdown(ctx context.Context) error {
	// It waits for up to 5 s for a connection without a request.
	defer time.AfterFunc(newcomerTime, d.metrics.closeNew).Stop()
	err := d.http.Shutdown(ctx)
	if errors.Is(err, net.ErrClosed) { // of a listener that StopListening has closed
		return nil
	}
	return err
}

// Close ends all requests and returns when they have ended.
func (d *Door) Close() {
	d.running.Close()
	d.http.Close()
	d.running.Wait()
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
func (d *Door) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if !d.running.Enter() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer d.running.Leave()
	if d.draining.Load() {
		w.Header()["Connection"] = []string{"close"}
	}
	httprequest.LimitBody(w, r)
	if d.aside != nil && d.aside(w, r) {
		return
	}
	segments := httprequest.Segments(httprequest.RawPath(r))
	x := &exchange{door: d, w: w, r: r, id: words.NewRequestID(), began: time.Now()}
	w.Header()["X-Ms-Request-Id"] = []string{x.id.String()}
	w.Header()["Server"] = []string{"iotdm"}
	w.Header()["Vary"] = []string{"Origin"}
	// By the hub's clock, not the machine's: clients find out by it that theirs is off.
	w.Header()["Date"] = []string{d.hub.Now().UTC().Format(http.TimeFormat)}
	defer x.rescue()
	if r.Header.Get("Origin") != "" {
		allowBrowser(w.Header())
	}
	if r.Method == http.MethodOptions {
		x.send(http.StatusNoContent, nil)
		return
	}
	rep, err := x.handle(segments)
	if errors.Is(err, context.Canceled) && errors.Is(context.Cause(x.r.Context()), hub.ErrReset) {
		err = hub.ErrServiceUnavailable.With("%v", hub.ErrReset)
	}
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
	isControl := m.route != nil && m.route.is(control) // which has one version only
	if !isControl && !hub.ValidAPIVersion(httprequest.APIVersion(x.r.URL.RawQuery)) {
		return reply{}, hub.ErrInvalidProtocolVersion
	}
	x.record(m)
	if m.route == nil || !m.route.is(control|lasting) {
		inside, leave, err := x.door.hub.Enter(x.r.Context())
		if err != nil {
			return reply{}, err
		}
		defer leave()
		x.r = x.r.WithContext(inside)
	}
	if err := x.admit(m, segments); err != nil {
		return reply{}, err
	}
	if err := x.meet(m, segments); err != nil {
		return reply{}, err
	}
	if m.route != nil && m.route.reads() {
		if err := x.door.fresh(x.r); err != nil {
			return reply{}, err
		}
	}
	switch {
	case isControl && x.door.controls == nil:
		return reply{}, hub.ErrNoTestControls
	case m.route != nil:
		r := &request{
			Request: x.r, w: x.w, id: m.id, name: m.name, caller: x.caller, peer: x.peer, turns: x.door.large.ofServices,
		}
		if x.peer.ID.Device != "" {
			r.turns = x.door.large.ofDevices
		}
		defer r.end()
		return m.route.handle(x.door, r)
	case m.known:
		return reply{}, hub.ErrMethodNotAllowed
	default:
		return reply{}, hub.ErrRouteNotFound
	}
}

// fresh is Fresh of the hub for a request. Its context ends also when the caller has
// closed its half of the connection, and yet waits for the answer: as one of a hub of
// one node, it gets that.
func (d *Door) fresh(r *http.Request) error {
	return d.hub.Fresh(context.WithoutCancel(r.Context()))
}

// admit checks the caller's credential and right.
func (x *exchange) admit(m routeMatch, segments []string) error {
	if m.route != nil {
		authenticate := x.door.authenticateDevice
		if m.route.is(byOwner) {
			authenticate = x.door.authenticateOwner
		}
		if m.route.is(byDevice) || m.route.is(byOwner) && byItself(x.r) {
			peer, err := authenticate(x.r, m.id)
			x.peer, x.who = peer, peer.ID.String()
			if err == nil {
				serve.Admit(Conn(x.r))
			}
			return err
		}
	}
	authenticate := x.door.authenticateCaller
	if m.route != nil && m.route.is(control) {
		authenticate = x.door.authenticateController
	}
	c, err := authenticate(x.r, "/"+strings.Join(segments, "/"))
	if err != nil {
		return err
	}
	serve.Admit(Conn(x.r))
	x.caller, x.who = c, c.Name
	return mayAll(c, x.r, m.allowed)
}

// An exchange is one request and its answer.
type exchange struct {
	door   *Door
	w      http.ResponseWriter
	r      *http.Request
	id     words.RequestID
	began  time.Time
	caller hub.Caller // once known; or
	peer   hub.Peer   // a device or module
	who    string     // either, for the log
	nested bool       // errors go into the envelope of direct methods
	sent   bool

	about    hub.ID            // whom the path names
	recorded *journal.Recorder // its body, for the journal; nil is for none
}

func (x *exchange) answer(rep reply) {
	if rep.stream != nil {
		x.sent = true
		x.door.count(http.StatusOK)
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
		if body, err = jsontext.Marshal(b); err != nil {
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
	x.drop(err)
	if errors.Is(err, context.Canceled) && x.door.running.Context().Err() == nil {
		// The caller is gone. Without an answer net/http would send 200.
		x.door.count(words.StatusClientGone)
		x.log(slog.LevelDebug, words.StatusClientGone, err)
		panic(http.ErrAbortHandler)
	}
	refusal := hub.RefusalOf(err)
	level := slog.LevelInfo
	if refusal.Status == http.StatusInternalServerError {
		level = slog.LevelError
	}
	now := x.door.hub.Now()
	if refusal.Code == hub.ErrUnauthorizedAccess.Code {
		// Why is for the hub's operator alone.
		refusal = hub.ErrUnauthorizedAccess
	}
	x.w.Header()["Iothub-Errorcode"] = []string{refusal.Name}
	if after := refusal.RetryAfter(); after > 0 {
		x.w.Header()["Retry-After"] = []string{strconv.Itoa(int(math.Ceil(after.Seconds())))}
	}
	body := classicEnvelope(refusal, x.id, now)
	if x.nested {
		body = nestedEnvelope(refusal, x.id, now)
	}
	x.send(refusal.Status, body)
	x.log(level, refusal.Status, err)
}

func (d *Door) count(status int) { d.metrics.answered.WithLabelValues(strconv.Itoa(status)).Inc() }

func (x *exchange) send(status int, body []byte) {
	x.sent = true
	x.door.count(status)
	// The server's own deadline leaves room for the longest direct method; a
	// peer that does not read gets less. It fails only on a dead connection.
	http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(writeTimeout))
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
	x.note(status, cause)
	log := x.door.log
	if !log.Enabled(x.r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String(words.LogVerb, words.Clip(x.r.Method)), slog.String(words.LogPath, words.Clip(httprequest.RawPath(x.r))), slog.Int(words.LogStatus, status),
		slog.String(words.LogCaller, x.who), slog.Duration(words.LogTook, time.Since(x.began)), slog.String(words.LogRemote, x.r.RemoteAddr),
		slog.String(words.LogRequest, x.id.String()),
	}
	if cause != nil {
		attrs = append(attrs, slog.String(words.LogTracking, x.id.Compact()), slog.String(words.LogReason, cause.Error()))
	}
	if status == http.StatusUnauthorized && level == slog.LevelInfo {
		x.door.far.Info("request", attrs...)
		return
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
	x.door.log.Error("panic", words.LogRequest, x.id.String(), words.LogReason, fmt.Sprint(cause), "stack", string(debug.Stack()))
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
