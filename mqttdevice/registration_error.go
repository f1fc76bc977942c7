package mqttdevice

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// What a [*RegistrationError] may be, besides [ErrUnauthorized].
var (
	// ErrNotEnrolled means that the provisioning service has no enrollment for the registration id, or
	// that the id scope is not its own. A service may say no more than ErrUnauthorized to that.
	ErrNotEnrolled = errors.New("the provisioning service has no enrollment for the device")

	// ErrEnrollmentDisabled means that the device's enrollment is disabled.
	ErrEnrollmentDisabled = errors.New("the enrollment of the device is disabled")

	// ErrNotAssigned means that the service knows the device and has found no hub for it.
	ErrNotAssigned = errors.New("the provisioning service has found no hub for the device")
)

// Statuses of a registration.
const (
	statusAssigning = "assigning"
	statusAssigned  = "assigned"
	statusDisabled  = "disabled"
)

// A RegistrationError is a refusal by a provisioning service.
type RegistrationError struct {
	Status       int           // as of HTTP, such as 401; 200 if it is the registration that went wrong
	Registration string        // then that is failed, disabled, or unassigned
	Code         int           // six digits, such as 404201; 0 when absent
	Message      string        // the service's own words
	TrackingID   string        // names the case to the service's support
	RetryAfter   time.Duration // how long the service wants to be left alone; 0 when it does not say
}

// Error is one line: what the service says, and what it means.
func (e *RegistrationError) Error() string {
	said := e.Message
	if e.Code != 0 {
		said = strings.TrimSpace(fmt.Sprintf("%d %s", e.Code, e.Message))
	}
	if said != "" {
		said = " (" + said + ")"
	}
	switch {
	case e.Is(ErrUnauthorized):
		return "the provisioning service refused the device" + said + ": the key or certificate is wrong or has expired, " +
			"it has no enrollment for the device, the id scope is another's, or this machine's clock is off"
	case e.Is(ErrNotEnrolled):
		return ErrNotEnrolled.Error() + said + ", or the id scope is another's"
	case e.Is(ErrEnrollmentDisabled):
		return ErrEnrollmentDisabled.Error() + said
	case e.Is(ErrNotAssigned):
		return ErrNotAssigned.Error() + said
	}
	return fmt.Sprintf("the provisioning service answered %d%s", e.Status, said)
}

// Is matches the errors of the package that say what kind of refusal it is.
func (e *RegistrationError) Is(target error) bool {
	switch target {
	case ErrUnauthorized:
		return e.Status == 401
	case ErrNotEnrolled:
		return e.Status == 404
	case ErrEnrollmentDisabled:
		return e.Registration == statusDisabled
	case ErrNotAssigned:
		return e.Registration != "" && e.Registration != statusDisabled
	}
	return false
}

// transient reports whether asking again may help.
func (e *RegistrationError) transient() bool { return e.Status == 429 || e.Status >= 500 }

// A registrationDocument is the body of an answer.
type registrationDocument struct {
	OperationID string `json:"operationId"`
	Status      string `json:"status"`
	State       struct {
		AssignedHub  string          `json:"assignedHub"`
		DeviceID     string          `json:"deviceId"`
		Substatus    string          `json:"substatus"`
		ErrorCode    int             `json:"errorCode"`
		ErrorMessage string          `json:"errorMessage"`
		Payload      json.RawMessage `json:"payload"`
	} `json:"registrationState"`

	// Of an answer that is an error.
	ErrorCode  int    `json:"errorCode"`
	Message    string `json:"message"`
	TrackingID string `json:"trackingId"`
}

// refusalOf makes an error of an answer with a status of 300 or more.
func refusalOf(status int, body []byte, retryAfter time.Duration) *RegistrationError {
	var d registrationDocument
	// A body that is no JSON object tells nothing; the status remains.
	_ = json.Unmarshal(body, &d)
	return &RegistrationError{Status: status, Code: d.ErrorCode, Message: d.Message, TrackingID: d.TrackingID, RetryAfter: retryAfter}
}

// assignment is what a final answer says.
func (d *registrationDocument) assignment() (Assignment, error) {
	s := &d.State
	if !strings.EqualFold(d.Status, statusAssigned) {
		status := strings.ToLower(d.Status)
		if status == "" {
			status = "unassigned"
		}
		return Assignment{}, &RegistrationError{Status: 200, Registration: status, Code: s.ErrorCode, Message: s.ErrorMessage}
	}
	a := Assignment{Hub: s.AssignedHub, DeviceID: s.DeviceID, Substatus: s.Substatus}
	if string(s.Payload) != "null" {
		a.Payload = s.Payload
	}
	return a, a.check()
}
