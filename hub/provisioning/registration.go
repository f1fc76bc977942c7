package provisioning

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"time"

	"github.com/iotdm/iotdm/hub"
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

// A Request is what a device asks with.
type Request struct {
	Payload json.RawMessage // for the webhook of custom allocation
	Force   bool
}

// ParseRequest reads the body of a request to register id. An empty body is a
// request, too.
//
// Errors: ErrBadRequest, ErrUnauthorized (a TPM).
func ParseRequest(id string, body []byte) (Request, error) { return Request{}, ErrInternal }

// Authenticate checks who the peer is, and returns when its credential ends; zero
// is never. Whether it may register shows when it does.
//
// Errors: ErrUnauthorized, ErrRegistrationNotFound (no enrollment, or the id scope
// is another).
func (s *Service) Authenticate(p Peer) (expires time.Time, err error) {
	return time.Time{}, ErrInternal
}

// Register registers a device: it checks the credential again, chooses a hub, and
// has identity, twin and registration stored before it returns. What the enrollment
// or a hub does not allow is no error, but a registration that has failed.
//
// Errors: those of Authenticate; context.Cause(ctx).
func (s *Service) Register(ctx context.Context, p Peer, r Request) (Operation, error) {
	return Operation{}, ErrInternal
}

// Operation returns how far an operation of the peer is.
//
// Errors: those of Authenticate, ErrNotFound.
func (s *Service) Operation(p Peer, id string) (Operation, error) { return Operation{}, ErrInternal }

// Lookup returns the registration of the peer as it is.
//
// Errors: those of Authenticate, ErrNotFound.
func (s *Service) Lookup(p Peer) (Registration, error) { return Registration{}, ErrInternal }

// Registration returns a registration.
//
// Errors: ErrNotFound.
func (s *Service) Registration(id string) (Registration, error) { return Registration{}, ErrInternal }

// DeleteRegistration forgets a registration: the next one of the device is its
// first. The device's identity stays.
//
// Errors: ErrNotFound, ErrPreconditionFailed.
func (s *Service) DeleteRegistration(id string, m hub.Match) error { return ErrInternal }

// Registrations returns up to limit registrations of a group, as Enrollments does.
//
// Errors: ErrNotFound (the group).
func (s *Service) Registrations(group, after string, limit int) (list []Registration, next string, err error) {
	return nil, "", ErrInternal
}
