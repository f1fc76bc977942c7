package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/httprequest"
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

	turns httprequest.Turns // of large bodies
	ends  []func()          // what to do once it is answered
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

// ifMatch returns the condition of the request.
func (r *request) ifMatch() hub.Match { return parseIfMatch(r.Header.Get("If-Match")) }

// read returns the whole body, of at most limit bytes.
func (r *request) read(limit int64) ([]byte, error) {
	body, done, err := r.turns.Read(r.w, r.Request, limit)
	switch {
	case err == nil:
		r.ends = append(r.ends, done)
		return body, nil
	case errors.Is(err, httprequest.ErrTooLarge):
		return nil, hub.ErrMessageTooLarge.With("the body must be at most %d bytes", limit)
	case errors.Is(err, httprequest.ErrCutOff):
		return nil, hub.ErrFormat.With("%v", err)
	case errors.Is(err, httprequest.ErrCrowded):
		return nil, hub.ErrServiceUnavailable.With("%v", err)
	}
	return nil, err
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
