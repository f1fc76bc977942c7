package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// marshal prints v as JSON. Unlike json.Marshal it leaves "<", ">" and "&"
// alone: a user's text must come back byte for byte, since some sign it.
func marshal(v any) ([]byte, error) {
	if m, ok := v.(json.Marshaler); ok {
		return m.MarshalJSON() // json.Encoder would copy and check it again
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

// A restRequest is a request whose caller has the right to make it.
type restRequest struct {
	*http.Request
	w    http.ResponseWriter
	id   ID     // {device} and {module} of the path
	name string // {name} of the path: a job, configuration, command...

	caller caller
}

// maxRESTBody bounds a body unless a route says otherwise. Clients send whole
// twins back, whose metadata is several times as large as their properties.
const maxRESTBody = 1 << 20

// ifMatch returns the condition of the request.
func (r *restRequest) ifMatch() Match { return parseIfMatch(r.Header.Get("If-Match")) }

// read returns the whole body, of at most limit bytes.
func (r *restRequest) read(limit int64) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, ErrMessageTooLarge.with("the body must be at most %d bytes", limit)
	}
	var b bytes.Buffer
	if r.ContentLength > 0 {
		b.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	if _, err := b.ReadFrom(http.MaxBytesReader(r.w, r.Body, limit)); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, ErrMessageTooLarge.with("the body must be at most %d bytes", limit)
		}
		return nil, ErrFormat.with("the body did not arrive in full")
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
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(restBodyTimeout))
	}
}

// decode reads the body as JSON into v, a struct. Names are matched without
// regard to case and members that v lacks are ignored.
func (r *restRequest) decode(v any) error { return r.decodeUpTo(maxRESTBody, v) }

func (r *restRequest) decodeUpTo(limit int64, v any) error {
	body, err := r.read(limit)
	if err != nil {
		return err
	}
	return decodeJSON(body, v)
}

func decodeJSON(body []byte, v any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return ErrArgumentNull
	}
	err := json.Unmarshal(body, v)
	var wrongType *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrongType):
		if wrongType.Field == "" {
			return ErrArgumentInvalid.with("the body must not be of type %s", wrongType.Value)
		}
		return ErrArgumentInvalid.with("%s must not be of type %s", clip(wrongType.Field), clip(wrongType.Value))
	default:
		return ErrFormat.with("the body is not JSON: %s", clip(err.Error()))
	}
}

// present returns a member, or nil if it is null: that means the same as if it
// were absent.
func present(member json.RawMessage) json.RawMessage {
	if string(member) == "null" {
		return nil
	}
	return member
}
