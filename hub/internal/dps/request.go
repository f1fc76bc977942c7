package dps

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/httprequest"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// Bounds of a request. What the service allows is not public; these are assumed.
const (
	writeTimeout = httprequest.BodyTimeout + 30*time.Second // an answer may wait for the rest of a body

	maxBody = provisioning.MaxBody
	maxBulk = 16 * provisioning.MaxBody
)

// A request is one whose caller has the right to make it.
type request struct {
	*http.Request
	routeMatch
	w    http.ResponseWriter
	peer provisioning.Peer // the device that asks

	turns httprequest.Turns // of large bodies
	ends  []func()          // what to do once it is answered
}

// end gives back what the request holds.
func (r *request) end() {
	for _, end := range r.ends {
		end()
	}
}

// read returns the whole body, of at most limit bytes.
func (r *request) read(limit int64) ([]byte, error) {
	body, done, err := r.turns.Read(r.w, r.Request, limit)
	switch {
	case err == nil:
		r.ends = append(r.ends, done)
		return body, nil
	case errors.Is(err, httprequest.ErrTooLarge):
		return nil, provisioning.ErrTooLarge.With("the body must be at most %d bytes", limit)
	case errors.Is(err, httprequest.ErrCutOff):
		return nil, provisioning.ErrBadRequest.With("%v", err)
	case errors.Is(err, httprequest.ErrCrowded):
		return nil, provisioning.ErrUnavailable.With("%v", err)
	}
	return nil, err
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
