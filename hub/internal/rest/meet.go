package rest

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/httprequest"
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

// meet does to a request what a fault wants, if that is not nil, unless the hub closes meanwhile.
func (d *Door) meet(r *http.Request, f *hub.Fault) error {
	if f == nil {
		return nil
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(d.following, func() { cancel(hub.ErrServiceUnavailable.With("%v", hub.ErrClosing)) })()
	return httprequest.Meet(ctx, f)
}

// record begins to take down the body of a request.
func (x *exchange) record(m routeMatch) {
	x.about = m.id
	if x.door.hub.Journal() != nil && (m.route == nil || !m.route.is(control)) {
		x.recorded = httprequest.Record(x.r)
	}
}

// note takes down the request and how it was answered; 0 is not at all.
func (x *exchange) note(status int, cause error) {
	if x.recorded == nil {
		return
	}
	// What goes through a queue is its sender's business, and JSON only if that likes it.
	body := x.recorded.SecretBody
	if strings.Contains(strings.ToLower(httprequest.RawPath(x.r)), "/messages/") {
		body = x.recorded.Body
	}
	httprequest.Note(x.door.hub, x.about, x.r, x.who, status, cause, body)
}

// drop cuts the connection, if err is a fault that wants it.
func (x *exchange) drop(err error) {
	if errors.Is(err, hub.ErrDropped) {
		x.note(0, err)
		panic(http.ErrAbortHandler)
	}
}
