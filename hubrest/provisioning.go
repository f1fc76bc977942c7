package hubrest

import (
	"context"
	"fmt"
	"iter"
	"net/http"
)

// A ProvisioningClient makes requests to one Device Provisioning Service: about enrollments, and about the registrations
// that devices make by them. It is safe for concurrent use.
//
// Refusals are of type *Error, as those of a hub are, and stand for the same errors.
type ProvisioningClient struct{ requester }

// NewProvisioning returns a client of the service that the connection string names, whose host in Azure is
// NAME.azure-devices-provisioning.net. It makes no connection. An iotdm hub is its own provisioning service, with
// policies of their own.
func NewProvisioning(o Options) (*ProvisioningClient, error) {
	r, err := newRequester(o, provisioningPeer)
	if err != nil {
		return nil, err
	}
	return &ProvisioningClient{r}, nil
}

// Close closes the connections that are idle. Requests under way go on.
func (c *ProvisioningClient) Close() { c.close() }

// An EnrollmentKind says what an enrollment is for.
type EnrollmentKind string

// The kinds of enrollments.
const (
	Individual EnrollmentKind = "enrollment"      // one device
	Group      EnrollmentKind = "enrollmentGroup" // all whose keys are derived from the group's, or whose certificates its own has signed
)

// collection is the kind in paths and queries.
func (k EnrollmentKind) collection() string { return string(k) + "s" }

// noun is an enrollment as errors name it.
func (k EnrollmentKind) noun(id string) string {
	if k == Group {
		return fmt.Sprintf("enrollment group %q", id)
	}
	return fmt.Sprintf("enrollment %q", id)
}

func (k EnrollmentKind) request(verb, method, id string) request {
	return request{what: verb + " " + k.noun(id), method: method, path: []string{k.collection(), id}}
}

// Enrollment returns an enrollment, or ErrNotFound. Services keep its keys and certificates back; see
// [ProvisioningClient.AttestationMechanism].
func (c *ProvisioningClient) Enrollment(ctx context.Context, kind EnrollmentKind, id string) (Enrollment, error) {
	r := kind.request("get", http.MethodGet, id)
	r.repeat = repeatAlways
	var e Enrollment
	_, err := c.do(ctx, r, &e)
	return e, err
}

// AttestationMechanism returns the attestation of an enrollment with its keys, or ErrNotFound.
func (c *ProvisioningClient) AttestationMechanism(ctx context.Context, kind EnrollmentKind, id string) (Attestation, error) {
	r := kind.request("get the attestation mechanism of", http.MethodPost, id)
	r.path, r.body, r.repeat = append(r.path, "attestationmechanism"), []byte{}, repeatAlways
	var a Attestation
	_, err := c.do(ctx, r, &a)
	return a, err
}

// CreateEnrollment creates an enrollment and returns it, with the keys it got, or fails with ErrAlreadyExists. After an
// error without an answer (a broken connection) it may have been created.
func (c *ProvisioningClient) CreateEnrollment(ctx context.Context, e Enrollment) (Enrollment, error) {
	r := e.Kind().request("create", http.MethodPut, e.ID())
	e.ETag = ""
	r.body, r.repeat = e, repeatRefused
	var created Enrollment
	_, err := c.do(ctx, r, &created)
	return created, err
}

// UpdateEnrollment replaces an enrollment (take it from Enrollment, change it, send it back whole), if its ETag is still
// that of the enrollment (else ErrPreconditionFailed); an empty ETag replaces whatever is there.
//
// A service may take keys that are left out for new ones to be made: put those of AttestationMechanism into the
// enrollment if they are to stay.
func (c *ProvisioningClient) UpdateEnrollment(ctx context.Context, e Enrollment) (Enrollment, error) {
	r := e.Kind().request("update", http.MethodPut, e.ID())
	r.body = e
	r.condition(e.ETag)
	var updated Enrollment
	_, err := c.do(ctx, r, &updated)
	return updated, err
}

// DeleteEnrollment removes an enrollment, if etag is that of it; an empty etag removes it in any case. Devices that have
// registered by it stay on their hubs, but do not register again.
func (c *ProvisioningClient) DeleteEnrollment(ctx context.Context, kind EnrollmentKind, id, etag string) error {
	r := kind.request("delete", http.MethodDelete, id)
	r.ifMatch, r.repeat = optionalETag(etag), repeatAlways
	_, err := c.do(ctx, r, nil)
	return err
}

// Enrollments yields all enrollments of a kind, fetching page after page as it goes. pageSize is how many a page may
// have, 0 the service's choice. After an error it ends. What is created or deleted meanwhile may be seen or not.
func (c *ProvisioningClient) Enrollments(ctx context.Context, kind EnrollmentKind, pageSize int) iter.Seq2[Enrollment, error] {
	r := enrollmentsRequest(kind)
	return decoded[Enrollment](c.rows(ctx, r, pageSize), r.what)
}

func enrollmentsRequest(kind EnrollmentKind) request {
	body := struct {
		Query string `json:"query"`
	}{"SELECT * FROM " + kind.collection()}
	return request{what: "list " + kind.collection(), method: http.MethodPost, path: []string{kind.collection(), "query"}, body: body, repeat: repeatAlways}
}

// optionalETag is etag as the header If-Match wants it, and no header without one.
func optionalETag(etag string) string {
	if etag == "" {
		return ""
	}
	return quoteETag(etag)
}
