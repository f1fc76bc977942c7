package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// A request is one whose caller has the right to make it.
type request struct {
	*http.Request
	w    http.ResponseWriter
	id   hub.ID // {device} and {module} of the path
	name string // {name} of the path: a job, configuration, command...

	caller hub.Caller
	peer   hub.Peer // the caller of a route that is byDevice, and the device that calls one that is byOwner

	turns *semaphore.Weighted // of large bodies, by their bytes
	ends  []func()            // what to do once it is answered
}

// end gives back what the request holds.
func (r *request) end() {
	for _, end := range r.ends {
		end()
	}
}

// maxRESTBody bounds a body unless a route says otherwise. Clients send whole
// twins back, whose metadata is several times as large as their properties.
const maxRESTBody = 1 << 20

// Bounds of what becomes more than its text when it is decoded. The lists are
// of operations that take up to hub.MaxBulk entries, or shorter by nature; that
// nobody has more labels or properties than this is assumed.
const (
	maxList  = hub.MaxBulk
	maxPairs = 1000
)

// A few is a list of a body, counted before its entries are made: an empty
// entry has two bytes of text, and can be hundreds in memory.
type few[T any] []T

// UnmarshalJSON reads a list of up to maxList entries.
func (l *few[T]) UnmarshalJSON(text []byte) error {
	if jsontext.More(text, maxList) {
		return hub.ErrArgumentInvalid.With("a list in the body has more than %d entries", maxList)
	}
	return json.Unmarshal(text, (*[]T)(l))
}

// A pairs is names and texts of a body, counted as few is.
type pairs map[string]string

// UnmarshalJSON reads an object of up to maxPairs members.
func (p *pairs) UnmarshalJSON(text []byte) error {
	if jsontext.More(text, maxPairs) {
		return hub.ErrArgumentInvalid.With("an object in the body has more than %d members", maxPairs)
	}
	*p = nil
	return json.Unmarshal(text, (*map[string]string)(p))
}

// Bodies of more than smallBody take turns, so that all together take no more
// than largeBodies at a time: what becomes of one while it is worked on is
// several times as large. Devices, who are trusted with less, have turns of
// their own. A direct method, which may wait for minutes, is small.
const (
	smallBody   = 256 << 10
	largeBodies = 16 << 20
)

// await waits for a large body's turn, which end ends.
func (r *request) await(size int64) (end func(), err error) {
	if size <= smallBody {
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), bodyTimeout)
	defer cancel()
	if err := r.turns.Acquire(ctx, size); err != nil {
		if r.Context().Err() != nil {
			return nil, r.Context().Err()
		}
		return nil, hub.ErrServiceUnavailable.With("too many large requests at a time. Try again")
	}
	limitBody(r.w, r.Request) // from now on
	return func() { r.turns.Release(size) }, nil
}

// ifMatch returns the condition of the request.
func (r *request) ifMatch() hub.Match { return parseIfMatch(r.Header.Get("If-Match")) }

// read returns the whole body, of at most limit bytes.
func (r *request) read(limit int64) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, hub.ErrMessageTooLarge.With("the body must be at most %d bytes", limit)
	}
	size := r.ContentLength
	if size < 0 {
		size = limit // a body in chunks does not say
	}
	end, err := r.await(size)
	if err != nil {
		return nil, err
	}
	r.ends = append(r.ends, end)
	var b bytes.Buffer
	if r.ContentLength > 0 {
		b.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	defer r.endBodyAtReset()()
	if _, err := b.ReadFrom(http.MaxBytesReader(r.w, r.Body, limit)); err != nil {
		if errors.Is(context.Cause(r.Context()), hub.ErrReset) {
			return nil, r.Context().Err()
		}
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, hub.ErrMessageTooLarge.With("the body must be at most %d bytes", limit)
		}
		return nil, hub.ErrFormat.With("the body did not arrive in full")
	}
	// A direct method may wait longer than the body was allowed to take.
	http.NewResponseController(r.w).SetReadDeadline(time.Time{})
	return b.Bytes(), nil
}

// endBodyAtReset has the body end when the hub is reset, which does not wait for
// the rest of it, until stop is called. The connection ends with the answer then:
// net/http takes a read that fails for the end of the client.
func (r *request) endBodyAtReset() (stop func()) {
	done := make(chan struct{})
	stopped := context.AfterFunc(r.Context(), func() {
		defer close(done)
		if errors.Is(context.Cause(r.Context()), hub.ErrReset) {
			http.NewResponseController(r.w).SetReadDeadline(time.Unix(1, 0))
		}
	})
	return func() {
		if !stopped() {
			<-done
			r.w.Header().Set("Connection", "close")
		}
	}
}

// limitBody bounds how long the body of a request may take, be it read by its
// handler or, after the answer, by net/http. It fails only on a connection that
// is gone.
func limitBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	}
}

// decode reads the body as JSON into v, a struct. Names are matched without
// regard to case and members that v lacks are ignored.
func (r *request) decode(v any) error { return r.decodeUpTo(maxRESTBody, v) }

func (r *request) decodeUpTo(limit int64, v any) error {
	body, err := r.read(limit)
	if err != nil {
		return err
	}
	return decodeJSON(body, v)
}

func decodeJSON(body []byte, v any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return hub.ErrArgumentNull
	}
	err := json.Unmarshal(body, v)
	var wrongType *json.UnmarshalTypeError
	var refused *hub.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return refused
	case errors.As(err, &wrongType):
		if wrongType.Field == "" {
			return hub.ErrArgumentInvalid.With("the body must not be of type %s", wrongType.Value)
		}
		return hub.ErrArgumentInvalid.With("%s must not be of type %s", words.Clip(wrongType.Field), words.Clip(wrongType.Value))
	default:
		return hub.ErrFormat.With("the body is not JSON: %s", words.Clip(err.Error()))
	}
}
