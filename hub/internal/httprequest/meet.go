package httprequest

import (
	"context"
	"io"
	"net/http"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/internal/wait"
)

// What a hub under test does to requests, and takes down of them.

// Meet does to a request what a fault wants, if that is not nil: it refuses it, waits,
// or fails with hub.ErrDropped.
func Meet(ctx context.Context, f *hub.Fault) error {
	switch {
	case f == nil:
		return nil
	case f.Drop:
		return hub.ErrDropped
	case f.Refusal != nil:
		return f.Refusal
	}
	return wait.For(ctx, f.Latency)
}

// Record begins to take down the body of a request.
func Record(r *http.Request) *journal.Recorder {
	recorded := new(journal.Recorder)
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.TeeReader(r.Body, recorded), r.Body}
	return recorded
}

// Note takes down a request about an identity, if that is not zero, and how it was
// answered; 0 is not at all. Body is called if there is a journal.
func Note(h *hub.Server, about hub.ID, r *http.Request, caller string, status int, cause error, body func() journal.Body) {
	h.Note(about, journal.REST, journal.Requested, func(e *journal.Entry) {
		e.Door, e.Verb, e.Path, e.Query = "https", r.Method, RawPath(r), journal.WithoutSecrets(r.URL.RawQuery)
		e.Caller, e.UserAgent, e.Status = caller, r.UserAgent(), status
		if cause != nil {
			e.Reason = cause.Error()
		}
		e.Body = body()
	})
}
