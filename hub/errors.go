package hub

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/store"
)

// An Error is a refusal by the hub. Every one comes from the table below, so
// that name, number and HTTP status always belong together; see "Understand
// and resolve Azure IoT Hub errors". Errors are compared with errors.Is by
// their number: errors.Is(err, hub.ErrDeviceNotFound).
type Error struct {
	Status int    // HTTP status
	Code   int    // IoT Hub's six digits
	Name   string // the value of the iothub-errorcode header
	Text   string // what went wrong, in one line without ";", since the Node SDK cuts there

	// Timeout is the connect timeout that ran out, on ErrDeviceNotOnline only.
	Timeout time.Duration

	after time.Duration // what RetryAfter returns instead, if a fault says so
}

// RetryAfter returns how long a caller had better wait before it tries again,
// in the header Retry-After, or 0 if the hub has no opinion. Azure's own values
// are not documented; clients honour the header ("Retry pattern", RFC 9110).
func (e *Error) RetryAfter() time.Duration {
	if e.after > 0 {
		return e.after
	}
	switch e.Status {
	case 429, 503:
		return time.Second
	}
	return 0
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Name
	}
	return e.Name + ": " + e.Text
}

// Is reports whether target is an *Error with the same number.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// With returns a copy of e that says what went wrong.
func (e *Error) With(format string, args ...any) *Error {
	c := *e
	c.Text = fmt.Sprintf(format, args...)
	return &c
}

// RefusalOf returns the service's error for any error of the hub: ErrServer for
// those that are none of the service's.
//
// ErrServiceUnavailable means that the request has to be made again, not that it
// had no effect: what was on its way to the disk when that filled up may become
// durable once there is space, and what was on its way to the log of a cluster
// when that answers again.
func RefusalOf(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, store.ErrFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ErrServiceUnavailable.With("the hub's disk is full")
	case errors.Is(err, store.ErrStalled), errors.Is(err, eventlog.ErrUnwritten):
		return ErrServiceUnavailable.With("the hub's disk takes no changes")
	case errors.Is(err, store.ErrNoLog), errors.Is(err, store.ErrFenced), errors.Is(err, ErrTakenOver):
		return ErrServiceUnavailable.With("%v", err)
	case errors.Is(err, store.ErrTooLarge):
		return ErrMessageTooLarge.With("%v", err)
	case errors.Is(err, store.ErrClosed), errors.Is(err, context.Canceled):
		return ErrServiceUnavailable.With("the hub is closing")
	default:
		return ErrServer
	}
}

// The hub's refusals: HTTP status, number and name.
var (
	ErrGenericBadRequest      = &Error{Status: 400, Code: 400000, Name: "GenericBadRequest", Text: "BadRequest"}
	ErrInvalidProtocolVersion = &Error{Status: 400, Code: 400001, Name: "InvalidProtocolVersion", Text: "BadRequest"}
	ErrInvalidOperation       = &Error{Status: 400, Code: 400003, Name: "InvalidOperation", Text: "BadRequest"}
	ErrArgumentInvalid        = &Error{Status: 400, Code: 400004, Name: "ArgumentInvalid", Text: "BadRequest"}
	ErrArgumentNull           = &Error{Status: 400, Code: 400005, Name: "ArgumentNull", Text: "BadRequest"}
	ErrFormat                 = &Error{Status: 400, Code: 400006, Name: "IotHubFormatError", Text: "BadRequest"}

	ErrNoBlobStorage              = &Error{Status: 400, Code: 400008, Name: "BlobContainerValidationError", Text: "this hub has no blob storage"}
	ErrDeviceDefinedMultipleTimes = &Error{Status: 400, Code: 400011, Name: "DeviceDefinedMultipleTimes", Text: "DeviceDefinedMultipleTimes"}
	ErrBulkOperation              = &Error{Status: 400, Code: 400013, Name: "BulkRegistryOperationFailure", Text: "BadRequest"}
	ErrInvalidDeviceScope         = &Error{Status: 400, Code: 400028, Name: "InvalidDeviceScope", Text: "a scope must be that of an existing IoT Edge device"}

	ErrConfigurationTarget    = &Error{Status: 400, Code: 400401, Name: "InvalidConfigurationTargetCondition", Text: "Invalid targetCondition"}
	ErrConfigurationContent   = &Error{Status: 400, Code: 400402, Name: "InvalidConfigurationContent", Text: "The content provided for configuration is invalid. Please check and try again"}
	ErrConfigurationImmutable = &Error{Status: 400, Code: 400403, Name: "CannotModifyImmutableConfigurationContent", Text: "the content of a configuration cannot be changed"}
	ErrConfigurationMetrics   = &Error{Status: 400, Code: 400404, Name: "InvalidConfigurationCustomMetricsQuery", Text: "the metrics are not valid"}

	ErrUnauthorizedAccess = &Error{Status: 401, Code: 401002, Name: "IotHubUnauthorizedAccess", Text: "Unauthorized"}

	ErrPrincipalUnauthorized = &Error{Status: 401, Code: 401003, Name: "IotHubUnauthorized", Text: "Unauthorized"}
	ErrSystemModule          = &Error{Status: 401, Code: 401100, Name: "SystemModuleModifyUnauthorizedAccess", Text: "system modules cannot be modified or deleted"}

	ErrQuotaExceeded      = &Error{Status: 403, Code: 403002, Name: "IotHubQuotaExceeded", Text: "the number of messages on the hub exceeds the allocated quota"}
	ErrJobQuota           = &Error{Status: 403, Code: 403003, Name: "JobQuotaExceeded", Text: "as many jobs are scheduled for later as this hub allows. Cancel some, or wait until they have started"}
	ErrQueueFull          = &Error{Status: 403, Code: 403004, Name: "DeviceMaximumQueueDepthExceeded", Text: "C2D messages enqueued for the device exceeded the queue limit of 50, see more at http://aka.ms/iothub403004"}
	ErrNotAvailable       = &Error{Status: 403, Code: 403010, Name: "OperationNotAvailableInCurrentTier", Text: "the operation is not available on this hub"}
	ErrTwinTooLarge       = &Error{Status: 403, Code: 403100, Name: "DeviceModelMaxPropertiesExceeded", Text: "Forbidden"}
	ErrTooManyMethodCalls = &Error{Status: 403, Code: 403800, Name: "DeviceMaximumInflightMethodExceeded", Text: "too many direct methods are in flight on this device"}

	ErrJobNotFound           = &Error{Status: 404, Code: 404002, Name: "JobNotFound", Text: "Not found"}
	ErrDeviceNotFound        = &Error{Status: 404, Code: 404001, Name: "DeviceNotFound", Text: "Not found"}
	ErrModuleNotFound        = &Error{Status: 404, Code: 404010, Name: "ModuleNotFound", Text: "Not found"}
	ErrDeviceNotOnline       = &Error{Status: 404, Code: 404103, Name: "DeviceNotOnline", Text: "The operation failed because the requested device isn't online or hasn't registered the direct method callback. To learn more, see https://aka.ms/iothub404103"}
	ErrConfigurationNotFound = &Error{Status: 404, Code: 404301, Name: "ConfigurationNotFound", Text: "Not found"}
	ErrRouteNotFound         = &Error{Status: 404, Code: 404000, Name: "GenericNotFound", Text: "Not found"}

	ErrMethodNotAllowed  = &Error{Status: 405, Code: 405000, Name: "GenericMethodNotAllowed", Text: "Method not allowed"}
	ErrNotInCurrentState = &Error{Status: 405, Code: 405001, Name: "OperationNotAllowedInCurrentState", Text: "Not allowed in the current state"} // status and number are assumed

	ErrDeviceAlreadyExists = &Error{Status: 409, Code: 409001, Name: "DeviceAlreadyExists", Text: "Conflict"}
	ErrJobAlreadyExists    = &Error{Status: 409, Code: 409104, Name: "JobAlreadyExists", Text: "Conflict"}
	ErrModuleAlreadyExists = &Error{Status: 409, Code: 409301, Name: "ModuleAlreadyExistsOnDevice", Text: "Conflict"}

	ErrConfigurationAlreadyExists = &Error{Status: 409, Code: 409401, Name: "ConfigurationAlreadyExists", Text: "Conflict"}

	ErrPreconditionFailed = &Error{Status: 412, Code: 412001, Name: "PreconditionFailed", Text: "PreconditionFailed"}
	ErrMessageLockLost    = &Error{Status: 412, Code: 412002, Name: "DeviceMessageLockLost", Text: "the lock of the message has ended"}

	ErrMessageTooLarge       = &Error{Status: 413, Code: 413001, Name: "MessageTooLarge", Text: "the message is too large"}
	ErrTooManyConfigurations = &Error{Status: 413, Code: 413101, Name: "ConfigurationCountLimitExceeded", Text: "RequestEntityTooLarge"}
	ErrTooManyModules        = &Error{Status: 413, Code: 413003, Name: "TooManyModulesOnDevice", Text: "a device may have at most 50 modules"}

	ErrThrottled   = &Error{Status: 429, Code: 429001, Name: "ThrottlingException", Text: "the hub has as much to do as it takes at a time. Try again"}
	ErrTooManyJobs = &Error{Status: 429, Code: 429004, Name: "ThrottlingMaxActiveJobCountExceeded", Text: "as many jobs are running as this hub allows. Wait until one has ended, or schedule the job for later"}

	ErrServer = &Error{Status: 500, Code: 500001, Name: "ServerError", Text: "InternalServerError"}

	ErrBadDeviceResponse = &Error{Status: 502, Code: 502001, Name: "InvalidResponseWhileProxying", Text: "the device's answer is not valid"}

	ErrServiceUnavailable = &Error{Status: 503, Code: 503001, Name: "ServiceUnavailable", Text: "the hub cannot take the request now"}

	// The service has CA certificates in its management API, whose errors have
	// no numbers. These are the hub's own.
	ErrCACertificateNotFound = &Error{Status: 404, Code: 404900, Name: "CertificateNotFound", Text: "Not found"}
	ErrCACertificateExists   = &Error{Status: 409, Code: 409900, Name: "CertificateAlreadyExists", Text: "Conflict"}

	// The service has no test controls, and no snapshots.
	ErrSnapshotNotFound = &Error{Status: 404, Code: 404901, Name: "SnapshotNotFound", Text: "Not found"}
	ErrSnapshotDamaged  = &Error{Status: 409, Code: 409901, Name: "SnapshotDamaged", Text: "the snapshot cannot be read"}
	ErrNoTestControls   = &Error{Status: 403, Code: 403900, Name: "TestControlsOff", Text: "this hub has no test controls. It was started without --test-controls"}

	ErrGatewayTimeout = &Error{Status: 504, Code: 504101, Name: "GatewayTimeout", Text: "Timed out waiting for the response from device."}
)
