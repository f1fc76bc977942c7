package hubrest

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
)

// MaxBulkEnrollments is how many enrollments one bulk request may name.
const MaxBulkEnrollments = 10

// An EnrollmentMode says what a bulk request does with its enrollments.
type EnrollmentMode string

// The modes of bulk requests.
const (
	BulkCreate            EnrollmentMode = "create"
	BulkUpdate            EnrollmentMode = "update"
	BulkUpdateIfMatchETag EnrollmentMode = "updateIfMatchETag"
	BulkDelete            EnrollmentMode = "delete"
)

// EnrollmentBulkResult is what became of a bulk request.
type EnrollmentBulkResult struct {
	IsSuccessful bool                  `json:"isSuccessful"` // false when at least one failed; the others took effect
	Errors       []EnrollmentBulkError `json:"errors"`
}

// An EnrollmentBulkError tells why one enrollment failed.
type EnrollmentBulkError struct {
	ID      string `json:"registrationId"` // or that of a group
	Code    int    `json:"errorCode,omitempty"`
	Message string `json:"errorStatus"`
}

// UnmarshalJSON reads the spellings for individual enrollments and for groups.
func (e *EnrollmentBulkError) UnmarshalJSON(b []byte) error {
	var wire struct {
		RegistrationID, EnrollmentGroupID, ErrorStatus string
		ErrorCode                                      json.RawMessage
	}
	if err := json.Unmarshal(b, &wire); err != nil {
		return err
	}
	*e = EnrollmentBulkError{ID: cmp.Or(wire.RegistrationID, wire.EnrollmentGroupID), Message: wire.ErrorStatus}
	e.Code, _ = parseCode(wire.ErrorCode)
	return nil
}

// BulkEnrollments does the same to up to MaxBulkEnrollments enrollments of a kind, each of which may occur once. The
// error is nil also when some of them failed: see EnrollmentBulkResult. After an error without an answer (a broken
// connection) nobody knows what took effect.
func (c *ProvisioningClient) BulkEnrollments(ctx context.Context, kind EnrollmentKind, mode EnrollmentMode, list []Enrollment) (EnrollmentBulkResult, error) {
	r := request{what: "bulk request", method: http.MethodPost, path: []string{kind.collection()}, repeat: repeatRefused}
	r.body = map[string]any{"mode": mode, kind.collection(): list}
	if mode == BulkUpdate {
		r.repeat = repeatAlways // the same once more changes nothing
	}
	var result EnrollmentBulkResult
	_, err := c.do(ctx, r, &result)
	return result, err
}
