package hubrest

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
)

// A RegistrationStatus says how far the registration of a device is.
type RegistrationStatus string

// The statuses of a registration.
const (
	Unassigned         RegistrationStatus = "unassigned"
	Assigning          RegistrationStatus = "assigning"
	Assigned           RegistrationStatus = "assigned"
	RegistrationFailed RegistrationStatus = "failed"
	RegistrationOff    RegistrationStatus = "disabled" // its enrollment is
)

// A Registration is the record of a device that has registered.
type Registration struct {
	RegistrationID string             `json:"registrationId"`
	DeviceID       string             `json:"deviceId,omitempty"`
	AssignedHub    string             `json:"assignedHub,omitempty"`
	Status         RegistrationStatus `json:"status"`
	Substatus      string             `json:"substatus,omitempty"` // initialAssignment, deviceDataMigrated or deviceDataReset
	ErrorCode      int                `json:"errorCode,omitempty"` // why it failed, six digits; 0 if it did not
	ErrorMessage   string             `json:"errorMessage,omitempty"`
	Created        Time               `json:"createdDateTimeUtc,omitzero"`
	LastUpdated    Time               `json:"lastUpdatedDateTimeUtc,omitzero"`
	ETag           string             `json:"etag,omitempty"`
	Payload        json.RawMessage    `json:"payload,omitempty"` // of custom allocation, for the device
}

// Registration returns the record of a registration, or ErrNotFound.
func (c *ProvisioningClient) Registration(ctx context.Context, id string) (Registration, error) {
	var v Registration
	_, err := c.do(ctx, request{what: fmt.Sprintf("get registration %q", id), method: http.MethodGet, path: []string{"registrations", id}, repeat: repeatAlways}, &v)
	return v, err
}

// DeleteRegistration forgets that a device has registered, if etag is that of the record; an empty etag forgets it in
// any case. The next time that the device registers is its first; its identity stays as it is.
func (c *ProvisioningClient) DeleteRegistration(ctx context.Context, id, etag string) error {
	_, err := c.do(ctx, request{
		what:    fmt.Sprintf("delete registration %q", id),
		method:  http.MethodDelete,
		path:    []string{"registrations", id},
		ifMatch: optionalETag(etag),
		repeat:  repeatAlways,
	}, nil)
	return err
}

// Registrations yields the registrations by an enrollment group, as Enrollments does.
func (c *ProvisioningClient) Registrations(ctx context.Context, group string, pageSize int) iter.Seq2[Registration, error] {
	r := registrationsRequest(group)
	return decoded[Registration](c.rows(ctx, r, pageSize), r.what)
}

func registrationsRequest(group string) request {
	body := struct {
		Query string `json:"query"`
	}{"SELECT * FROM deviceRegistrations"}
	return request{what: "list the registrations of " + Group.noun(group), method: http.MethodPost,
		path: []string{"registrations", group, "query"}, body: body, repeat: repeatAlways}
}
