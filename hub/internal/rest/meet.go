package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/internal/wait"
)

// What a hub under test does to requests, and takes down of them.

// meet does to the request what faults want, those on rest and those on a device that connects.
func (x *exchange) meet(m routeMatch, segments []string) error {
	if m.route != nil && m.route.is(control) {
		return nil
	}
	if err := x.door.meet(x.r, x.door.hub.RequestFault(m.id, segments)); err != nil {
		return err
	}
	if m.route == nil || !m.route.is(byDevice) {
		return nil
	}
	return x.door.meet(x.r, x.door.hub.ConnectionFault(x.peer.ID))
}

// meet does to a request what a fault wants, if that is not nil: it refuses it, waits, or fails with hub.ErrDropped.
func (d *Door) meet(r *http.Request, f *hub.Fault) error {
	switch {
	case f == nil:
		return nil
	case f.Drop:
		return hub.ErrDropped
	case f.Refusal != nil:
		return f.Refusal
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(d.following, func() { cancel(hub.ErrServiceUnavailable.With("%v", hub.ErrClosing)) })()
	return wait.For(ctx, f.Latency)
}

// record begins to take down the body of a request.
func (x *exchange) record(m routeMatch) {
	x.about = m.id
	if x.door.hub.Journal() == nil || m.route != nil && m.route.is(control) {
		return
	}
	x.recorded = new(journal.Recorder)
	x.r.Body = struct {
		io.Reader
		io.Closer
	}{io.TeeReader(x.r.Body, x.recorded), x.r.Body}
}

// note takes down the request and how it was answered; 0 is not at all.
func (x *exchange) note(status int, cause error) {
	if x.recorded == nil {
		return
	}
	x.door.hub.Note(x.about, journal.REST, journal.Requested, func(e *journal.Entry) {
		e.Door, e.Verb, e.Path, e.Query = "https", x.r.Method, rawPath(x.r), journal.WithoutSecrets(x.r.URL.RawQuery)
		e.Caller, e.UserAgent, e.Status = x.who, x.r.UserAgent(), status
		if cause != nil {
			e.Reason = cause.Error()
		}
		// What goes through a queue is its sender's business, and JSON only if that likes it.
		if strings.Contains(strings.ToLower(e.Path), "/messages/") {
			e.Body = x.recorded.Body()
		} else {
			e.Body = x.recorded.SecretBody()
		}
	})
}

// drop cuts the connection, if err is a fault that wants it.
func (x *exchange) drop(err error) {
	if errors.Is(err, hub.ErrDropped) {
		x.note(0, err)
		panic(http.ErrAbortHandler)
	}
}
