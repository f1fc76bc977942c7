package dps

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
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// Bounds of a request. What the service allows is not public; these are assumed.
const (
	bodyTimeout  = 30 * time.Second
	writeTimeout = bodyTimeout + 30*time.Second // an answer may wait for the rest of a body

	maxBody = provisioning.MaxBody
	maxBulk = 16 * provisioning.MaxBody

	// Bodies of more than smallBody take turns, so that all together take no more than
	// largeBodies at a time: what becomes of one while it is worked on is several times
	// as large. Devices, who are trusted with less, have turns of their own.
	smallBody   = 64 << 10
	largeBodies = 16 << 20
)

// A request is one whose caller has the right to make it.
type request struct {
	*http.Request
	routeMatch
	w    http.ResponseWriter
	peer provisioning.Peer // the device that asks

	turns *semaphore.Weighted // of large bodies, by their bytes
	ends  []func()            // what to do once it is answered
}

// end gives back what the request holds.
func (r *request) end() {
	for _, end := range r.ends {
		end()
	}
}

// read returns the whole body, of at most limit bytes.
func (r *request) read(limit int64) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	tooLarge := provisioning.ErrTooLarge.With("the body must be at most %d bytes", limit)
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	size := r.ContentLength
	if size < 0 {
		size = limit // a body in chunks does not say
	}
	if err := r.await(size); err != nil {
		return nil, err
	}
	control := http.NewResponseController(r.w)
	control.SetReadDeadline(time.Now().Add(bodyTimeout))
	defer r.endBodyAtReset()()
	var b bytes.Buffer
	if _, err := b.ReadFrom(http.MaxBytesReader(r.w, r.Body, limit)); err != nil {
		var max *http.MaxBytesError
		switch {
		case errors.Is(context.Cause(r.Context()), hub.ErrReset):
			return nil, r.Context().Err()
		case errors.As(err, &max):
			return nil, tooLarge
		default:
			return nil, provisioning.ErrBadRequest.With("the body did not arrive in full")
		}
	}
	control.SetReadDeadline(time.Time{}) // a webhook may take longer than the body might
	return b.Bytes(), nil
}

// await waits for a large body's turn.
func (r *request) await(size int64) error {
	if size <= smallBody {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), bodyTimeout)
	defer cancel()
	if err := r.turns.Acquire(ctx, size); err != nil {
		if r.Context().Err() != nil {
			return r.Context().Err()
		}
		return provisioning.ErrUnavailable.With("too many large requests at a time. Try again")
	}
	r.ends = append(r.ends, func() { r.turns.Release(size) })
	return nil
}

// endBodyAtReset has the body end when the hub is reset, which does not wait for the
// rest of it, until stop is called. The connection ends with the answer then: net/http
// takes a read that fails for the end of the client.
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

// decode reads the body as JSON into v, a struct. Members that v lacks are ignored.
func (r *request) decode(limit int64, v any) error {
	body, err := r.read(limit)
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return provisioning.ErrBadRequest.With("the body is missing")
	}
	err = json.Unmarshal(body, v)
	var wrongType *json.UnmarshalTypeError
	var refused *provisioning.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return refused
	case errors.As(err, &wrongType) && wrongType.Field == "":
		return provisioning.ErrBadRequest.With("the body must not be of type %s", words.Clip(wrongType.Value))
	case errors.As(err, &wrongType):
		return provisioning.ErrBadRequest.With("%s must not be of type %s", words.Clip(wrongType.Field), words.Clip(wrongType.Value))
	default:
		return provisioning.ErrBadRequest.With("the body is not JSON: %s", words.Clip(err.Error()))
	}
}

// A few is a list of a body, counted before its entries are made: an empty entry has
// two bytes of text, and can be hundreds in memory.
type few[T any] []T

// UnmarshalJSON reads a list of up to hub.MaxBulk entries.
func (l *few[T]) UnmarshalJSON(text []byte) error {
	if jsontext.More(text, hub.MaxBulk) {
		return provisioning.ErrBadRequest.With("a bulk operation takes at most %d enrollments", hub.MaxBulk)
	}
	return json.Unmarshal(text, (*[]T)(l))
}
