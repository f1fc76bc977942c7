package provisioning

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// An Error is a refusal by the provisioning service. Every one comes from the table
// below. Errors are compared with errors.Is by their number.
type Error struct {
	Code int    // six digits, of which the first three are the HTTP status
	Text string // what went wrong, in one line

	Log string // what only the operator is told, besides

	reason string        // the same in a word of the metrics; empty for what is not counted
	after  time.Duration // what RetryAfter returns instead, if a fault says so
}

func (e *Error) Error() string {
	if e.Log != "" {
		return e.Text + ": " + e.Log
	}
	return e.Text
}

// Is reports whether target is an *Error with the same number.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// HTTPStatus is the status of the answer.
func (e *Error) HTTPStatus() int { return e.Code / 1000 }

// RetryAfter is how long a caller had better wait before it tries again; 0 if the
// hub has no opinion. It is that of hub.Error.
func (e *Error) RetryAfter() time.Duration {
	switch e.HTTPStatus() {
	case 429, 503:
		return cmp.Or(e.after, time.Second)
	}
	return 0
}

// With returns a copy of e that says what went wrong.
func (e *Error) With(format string, args ...any) *Error {
	c := *e
	c.Text = fmt.Sprintf(format, args...)
	return &c
}

// Because returns a copy of e that tells the operator, and nobody else, why.
func (e *Error) Because(format string, args ...any) *Error {
	c := *e
	c.Log = fmt.Sprintf(format, args...)
	return &c
}

// counted returns a copy of e that counts under a reason of the metrics.
func (e *Error) counted(reason string) *Error {
	c := *e
	c.reason = reason
	return &c
}

// Envelope is the body of the answer on every transport. The tracking id names the
// request in the hub's log.
func (e *Error) Envelope(trackingID string, at time.Time) []byte {
	return words.MustMarshal(struct {
		Code       int       `json:"errorCode"`
		TrackingID string    `json:"trackingId"`
		Message    string    `json:"message"`
		At         time.Time `json:"timestampUtc"`
	}{e.Code, trackingID, e.Text, instant(at)})
}

// The refusals. The numbers of ErrUnauthorized and ErrRegistrationNotFound are known, the
// others assumed.
var (
	ErrBadRequest           = &Error{Code: 400004, Text: "Bad request"}
	ErrUnauthorized         = &Error{Code: 401002, Text: "Unauthorized"}
	ErrNotFound             = &Error{Code: 404204, Text: "Not found"}
	ErrRegistrationNotFound = &Error{Code: 404201, Text: "Registration not found"}
	ErrMethodNotAllowed     = &Error{Code: 405000, Text: "Method not allowed"}
	ErrAlreadyExists        = &Error{Code: 409002, Text: "Already exists"}
	ErrPreconditionFailed   = &Error{Code: 412001, Text: "Precondition failed"}
	ErrTooLarge             = &Error{Code: 413001, Text: "Request entity too large"}
	ErrTooMany              = &Error{Code: 429001, Text: "Too many"}
	ErrInternal             = &Error{Code: 500001, Text: "Internal server error"}
	ErrUnavailable          = &Error{Code: 503001, Text: "Service unavailable"}
)

// What a registration fails with whose enrollment allocates it to no hub that there
// is, or whose hub or webhook does not answer. That it is this number is assumed.
var errAllocation = &Error{Code: 400207, Text: "Custom allocation failed"}

// RefusalOf returns the service's error for any error: of the hub's, of its store's.
func RefusalOf(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	of := hub.RefusalOf(err)
	var e *Error
	switch of.Status {
	case 400:
		e = ErrBadRequest
	case 401, 403:
		// The hub's text is for the operator.
		return ErrUnauthorized.Because("%v", err)
	case 404:
		e = ErrNotFound
	case 409:
		e = ErrAlreadyExists
	case 412:
		e = ErrPreconditionFailed
	case 413:
		e = ErrTooLarge
	case 429:
		e = ErrTooMany
	case 503:
		e = ErrUnavailable
	case 500:
		return ErrInternal.Because("%v", err)
	default:
		e = &Error{Code: of.Status*1000 + 1}
	}
	e = e.With("%s", of.Text)
	e.after = of.RetryAfter()
	return e
}
