package provisioning

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/iotdm/iotdm/hub/internal/words"
)

// MaxBody is how long the body of a request may be, in bytes, of a device or a
// service: assumed.
const MaxBody = 128 << 10

// A Request is what a device asks with.
type Request struct {
	Payload json.RawMessage // for the webhook of custom allocation
	Force   bool            // changes nothing: every request is answered anew
}

// ParseRequest reads the body of a request to register id. An empty body is a
// request, too.
//
// Errors: ErrBadRequest, ErrTooLarge, ErrUnauthorized (a TPM).
func ParseRequest(id string, body []byte) (Request, error) {
	if len(body) > MaxBody {
		return Request{}, ErrTooLarge.With("the body is longer than %d bytes", MaxBody)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return Request{}, nil
	}
	var r struct {
		ID      *string         `json:"registrationId"`
		Payload json.RawMessage `json:"payload"`
		TPM     json.RawMessage `json:"tpm"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return Request{}, ErrBadRequest.With("the body is not the JSON of a registration")
	}
	if r.ID != nil && !strings.EqualFold(*r.ID, id) {
		return Request{}, ErrBadRequest.With("the body is for registration id %q", words.Clip(*r.ID))
	}
	if words.Present(r.TPM) != nil {
		// Clients of a TPM take 401 for the beginning of its handshake, and find
		// nothing in it to go on with: assumed.
		return Request{}, ErrUnauthorized.With("TPM attestation is not available")
	}
	return Request{Payload: words.Present(r.Payload)}, nil
}
