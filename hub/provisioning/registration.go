package provisioning

import (
	"crypto/x509"
	"encoding/json"
	"time"
)

// A Status is how far a registration is.
type Status string

// The statuses.
const (
	Unassigned Status = "unassigned"
	Assigning  Status = "assigning"
	Assigned   Status = "assigned"
	Failed     Status = "failed"
	Disabled   Status = "disabled"
)

// A Registration is what the service knows of a device that has registered, in the
// form in which devices and services read it.
type Registration struct {
	RegistrationID string          `json:"registrationId"`
	Created        time.Time       `json:"createdDateTimeUtc"`
	Hub            string          `json:"assignedHub,omitempty"`
	DeviceID       string          `json:"deviceId,omitempty"`
	Status         Status          `json:"status"`
	Substatus      string          `json:"substatus,omitempty"` // initialAssignment, deviceDataMigrated, deviceDataReset
	ErrorCode      int             `json:"errorCode,omitempty"`
	ErrorMessage   string          `json:"errorMessage,omitempty"`
	Updated        time.Time       `json:"lastUpdatedDateTimeUtc"`
	ETag           string          `json:"etag"`
	Payload        json.RawMessage `json:"payload,omitempty"`
	X509           *struct{}       `json:"x509,omitempty"`         // there if it was the attestation
	SymmetricKey   *struct{}       `json:"symmetricKey,omitempty"` // the same
}

// An Operation is what a device is told of its registration.
type Operation struct {
	ID           string        `json:"operationId"`
	Status       Status        `json:"status"`
	Registration *Registration `json:"registrationState,omitempty"` // nil while it is assigning

	// RetryAfter is when to ask again; 0 once there is nothing to ask for. The answer to
	// an operation with it has HTTP status 202, and 200 without.
	RetryAfter time.Duration `json:"-"`
}

// HTTPStatus is that of the answer, on every transport.
func (o Operation) HTTPStatus() int {
	if o.RetryAfter > 0 {
		return 202
	}
	return 200
}

// A Peer is a device that asks for its registration, and how it proves who it is.
type Peer struct {
	Scope    string
	ID       string // registration id, as the device writes it
	Password string // a shared access signature; empty is a certificate
	Chain    []*x509.Certificate

	Host   string // under which it has reached the hub, as far as the door knows
	Door   string // as hub.Peer has it, for the log
	Remote string
}
