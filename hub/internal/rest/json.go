package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// A request is one whose caller has the right to make it.
type request struct {
	*http.Request
	w    http.ResponseWriter
	id   hub.ID // {device} and {module} of the path
	name string // {name} of the path: a job, configuration, command...

	caller hub.Caller
	peer   hub.Peer // the caller of a route that is byDevice, and the device that calls one that is byOwner
}

// maxRESTBody bounds a body unless a route says otherwise. Clients send whole
// twins back, whose metadata is several times as large as their properties.
const maxRESTBody = 1 << 20

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
	var b bytes.Buffer
	if r.ContentLength > 0 {
		b.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	if _, err := b.ReadFrom(http.MaxBytesReader(r.w, r.Body, limit)); err != nil {
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
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrongType):
		if wrongType.Field == "" {
			return hub.ErrArgumentInvalid.With("the body must not be of type %s", wrongType.Value)
		}
		return hub.ErrArgumentInvalid.With("%s must not be of type %s", words.Clip(wrongType.Field), words.Clip(wrongType.Value))
	default:
		return hub.ErrFormat.With("the body is not JSON: %s", words.Clip(err.Error()))
	}
}
