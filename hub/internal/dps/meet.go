package dps

import (
	"io"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/internal/wait"
)

// What a hub under test does to requests, and takes down of them.

// meet does to the request what faults want, those on rest and those on a device that
// connects.
func (x *exchange) meet(m routeMatch, segments []string) error {
	if err := x.meetFault(x.door.hub.RequestFault(x.about, segments)); err != nil || m.registration == "" {
		return err
	}
	return x.meetFault(x.door.hub.ConnectionFault(x.about))
}

// meetFault refuses the request, waits, or fails with hub.ErrDropped, as a fault wants
// that is not nil.
func (x *exchange) meetFault(f *hub.Fault) error {
	switch {
	case f == nil:
		return nil
	case f.Drop:
		return hub.ErrDropped
	case f.Refusal != nil:
		return f.Refusal
	}
	return wait.For(x.r.Context(), f.Latency)
}

// record begins to take down the body of a request.
func (x *exchange) record() {
	if x.door.hub.Journal() == nil {
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
		e.Door, e.Verb, e.Path, e.Query = door, x.r.Method, strings.Clone(x.r.URL.EscapedPath()), journal.WithoutSecrets(x.r.URL.RawQuery)
		e.Caller, e.UserAgent, e.Status = x.who, x.r.UserAgent(), status
		if cause != nil {
			e.Reason = cause.Error()
		}
		e.Body = x.recorded.SecretBody()
	})
}
