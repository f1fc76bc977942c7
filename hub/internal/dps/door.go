// Package dps is a hub's door for the REST API of the Device Provisioning Service:
// that of services, who manage enrollments and look at registrations, and that of
// devices, who register. It parses and prints, and decides nothing: routes.go says
// which operation a request is, and what its caller needs.
//
// It has no listener of its own. The hub and its provisioning service have one name
// and one port here, and their paths tell them apart.
package dps

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/httprequest"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// Options configure New. The zero value works.
type Options struct {
	// Conn returns the connection of a request, of which the hub's gate is told once
	// the caller is known. Nil is none.
	Conn func(*http.Request) net.Conn

	// Logger receives refusals at level Info, and every request at level Debug.
	// Nil discards.
	Logger *slog.Logger
}

// A Door answers requests to the provisioning service. Whoever serves HTTP owns their
// time: it bounds a request, and waits for it when the hub closes.
type Door struct {
	hub     *hub.Server
	service *provisioning.Service
	conn    func(*http.Request) net.Conn
	log     *slog.Logger
	far     *words.Limited // about callers that are not let in
	large   struct{ ofServices, ofDevices httprequest.Turns }

	answered *prometheus.CounterVec // requests, by HTTP status
}

// New returns a door to the service of a hub.
func New(h *hub.Server, s *provisioning.Service, opt Options) *Door {
	d := &Door{
		hub: h, service: s, conn: opt.Conn, log: cmp.Or(opt.Logger, slog.New(slog.DiscardHandler)),
		answered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "iotdm_hub_provisioning_requests_total", Help: "Requests to the provisioning service over HTTPS, by HTTP status.",
		}, []string{"status"}),
	}
	d.far = words.NewLimited(d.log)
	d.large.ofServices, d.large.ofDevices = httprequest.NewTurns(), httprequest.NewTurns()
	d.answered.WithLabelValues("200")
	return d
}

// Metrics returns what is counted, to be registered.
func (d *Door) Metrics() []prometheus.Collector { return []prometheus.Collector{d.answered} }

// Serve answers a request whose path is one of the provisioning service, and reports
// whether it was one.
func (d *Door) Serve(w http.ResponseWriter, r *http.Request) bool {
	segments := httprequest.Segments(httprequest.RawPath(r))
	if !belongs(segments) {
		return false
	}
	x := &exchange{door: d, w: w, r: r, id: words.NewRequestID(), began: time.Now()}
	w.Header()["X-Ms-Request-Id"] = []string{x.id.String()}
	w.Header()["Server"] = []string{"iotdm"}
	// By the hub's clock, not the machine's: clients find out by it that theirs is off.
	w.Header()["Date"] = []string{d.hub.Now().UTC().Format(http.TimeFormat)}
	defer x.rescue()
	rep, err := x.handle(segments)
	if errors.Is(err, context.Canceled) && errors.Is(context.Cause(x.r.Context()), hub.ErrReset) {
		err = provisioning.ErrUnavailable.With("%v", hub.ErrReset)
	}
	if err != nil {
		x.refuse(err)
		return true
	}
	x.answer(rep)
	return true
}

// A reply is what a handler answers when it does not refuse.
type reply struct {
	status int // 0 is 200, or 204 without a body
	body   any
	header http.Header // more headers
}

// An exchange is one request and its answer.
type exchange struct {
	door  *Door
	w     http.ResponseWriter
	r     *http.Request
	id    words.RequestID
	began time.Time
	who   string // the caller, once known, for the log
	sent  bool

	about    hub.ID            // the device that registers
	recorded *journal.Recorder // the body, for the journal; nil is for none
}

// handle finds the route, checks the caller and calls the route's handler. The order
// of the checks is part of the contract: api-version, credential, right, route. A
// caller without the right learns nothing, not even whether the route or the
// enrollment exists.
func (x *exchange) handle(segments []string) (reply, error) {
	m := match(x.r.Method, segments)
	if m.registration != "" {
		x.about = hub.ID{Device: m.registration}
	}
	x.record()
	if v := httprequest.APIVersion(x.r.URL.RawQuery); !hub.ValidAPIVersion(v) {
		return reply{}, provisioning.ErrBadRequest.With("api-version is missing or not one: it is a date, such as 2021-10-01")
	}
	inside, leave, err := x.door.hub.Enter(x.r.Context())
	if err != nil {
		return reply{}, err
	}
	defer leave()
	x.r = x.r.WithContext(inside)
	r := &request{Request: x.r, w: x.w, routeMatch: m, turns: x.door.large.ofServices}
	defer r.end()
	if m.registration != "" {
		r.turns = x.door.large.ofDevices
		err = x.admitDevice(r)
	} else if err = x.admitService(m, segments); err == nil {
		// These are few. Who has closed its half of the connection waits for the answer.
		err = x.door.hub.Fresh(context.WithoutCancel(x.r.Context()))
	}
	if err != nil {
		return reply{}, err
	}
	if err := x.meet(segments); err != nil {
		return reply{}, err
	}
	switch {
	case m.route != nil:
		return m.route.handle(x.door, r)
	case m.known:
		return reply{}, provisioning.ErrMethodNotAllowed
	default:
		return reply{}, provisioning.ErrNotFound.With("the provisioning service has no such operation")
	}
}

func (x *exchange) answer(rep reply) {
	var body []byte
	if rep.body != nil {
		var err error
		if body, err = jsontext.Marshal(rep.body); err != nil {
			x.refuse(fmt.Errorf("print the answer: %w", err))
			return
		}
	}
	for name, values := range rep.header {
		x.w.Header()[name] = values
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
	x.note(status, nil)
	x.log(slog.LevelDebug, status, nil)
}

// refuse answers with an error. Its cause goes to the hub's log, under the id that
// the caller is given.
func (x *exchange) refuse(err error) {
	if errors.Is(err, hub.ErrDropped) {
		x.note(0, err)
		panic(http.ErrAbortHandler)
	}
	if errors.Is(err, context.Canceled) {
		// The caller is gone, or the hub ends. Without an answer net/http would send 200.
		x.count(words.StatusClientGone)
		x.note(words.StatusClientGone, err)
		x.log(slog.LevelDebug, words.StatusClientGone, err)
		panic(http.ErrAbortHandler)
	}
	refusal := provisioning.RefusalOf(err)
	status := refusal.HTTPStatus()
	level := slog.LevelInfo
	if status == http.StatusInternalServerError {
		level = slog.LevelError
	}
	var of retryAfter = refusal
	errors.As(err, &of) // a fault of the test controls has its own
	if after := of.RetryAfter(); after > 0 {
		x.w.Header()["Retry-After"] = []string{seconds(after)}
	}
	x.w.Header()["X-Ms-Error-Code"] = []string{strconv.Itoa(refusal.Code)}
	x.send(status, refusal.Envelope(x.id.String(), x.door.hub.Now()))
	x.note(status, err)
	x.log(level, status, err)
}

// A retryAfter is a refusal that says when to ask again, as the hub's do.
type retryAfter interface {
	error
	RetryAfter() time.Duration
}

// seconds prints a time for Retry-After, which knows whole ones.
func seconds(d time.Duration) string { return strconv.Itoa(words.Seconds(d)) }

func (x *exchange) count(status int) { x.door.answered.WithLabelValues(strconv.Itoa(status)).Inc() }

func (x *exchange) send(status int, body []byte) {
	x.sent = true
	x.count(status)
	// The server's own deadline is for what waits longest. It fails only on a dead
	// connection.
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
	log := x.door.log
	if !log.Enabled(x.r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String(words.LogVerb, words.Clip(x.r.Method)), slog.String(words.LogPath, words.Clip(httprequest.RawPath(x.r))), slog.Int(words.LogStatus, status),
		slog.String(words.LogCaller, words.Clip(x.who)), slog.Duration(words.LogTook, time.Since(x.began)), slog.String(words.LogRemote, x.r.RemoteAddr),
		slog.String(words.LogRequest, x.id.String()),
	}
	if cause != nil {
		attrs = append(attrs, slog.String(words.LogReason, cause.Error()))
	}
	if level == slog.LevelInfo && x.who == "" {
		x.door.far.Info("provisioning request", attrs...)
		return
	}
	log.LogAttrs(x.r.Context(), level, "provisioning request", attrs...)
}

// rescue turns a panic, which is a broken invariant of ours, into the service's
// answer for one.
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

// admitted tells the hub's gate that the caller is known.
func (x *exchange) admitted() {
	if x.door.conn != nil {
		serve.Admit(x.door.conn(x.r))
	}
}
