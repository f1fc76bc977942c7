package mqttdevice

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

var (
	// ErrUnauthorized means that the hub refused the device's credential. MQTT does not say why.
	ErrUnauthorized = errors.New("the hub refused the credential: the key or token is wrong or has expired, " +
		"the device is unknown or disabled, or this machine's clock is off")

	// ErrConnectionLost means that the connection broke while a call was under way: the hub may or
	// may not have done what was asked. Repeating a call is safe, but may send a message twice.
	ErrConnectionLost = errors.New("connection lost")

	// ErrTooLarge means that a message or a patch is larger than the hub takes. It was not sent: the hub
	// would end the connection.
	ErrTooLarge = errors.New("too large for the hub")

	// ErrNotConnected means that Connect has not been called, or has failed.
	ErrNotConnected = errors.New("not connected")

	// ErrClosed means that the client has been closed.
	ErrClosed = errors.New("the client is closed")
)

// Why there is no connection: what [State.Reason] wraps, and what [Client.Connect] fails with. A
// failure to dial, a [*ProxyError] and a [*tls.CertificateVerificationError] are reasons too.
var (
	// ErrTokenExpired means that the shared access signature is over. One made from a key is replaced
	// in time; one that was given as it is cannot be, and the hub will not take the device again.
	ErrTokenExpired = errors.New("the shared access signature has expired")

	// ErrCertificateExpired means that the device's own certificate is over.
	ErrCertificateExpired = errors.New("the device's certificate has expired")

	// ErrHubClosed means that the hub closed the connection. MQTT has no way to say why.
	ErrHubClosed = errors.New("the hub closed the connection (another program with the same id, a changed or disabled device, or the hub stopped)")

	// ErrTakenOver means that the hub closes one connection after the other although it accepts the
	// credential. MQTT cannot say so, but it is probably another program that is the same device.
	ErrTakenOver = errors.New("the hub closes each connection soon after accepting it: probably another program connects as the same device; " +
		"stop it, or make a device of its own for it (the hub's log names the addresses of both)")

	// ErrNetwork means that the connection broke on the way: a reset, a time-out, a route that is gone.
	ErrNetwork = errors.New("the network connection broke")

	// ErrNoPong means that the hub, or the network, is silent: a keep-alive ping was not answered.
	ErrNoPong = errors.New("the hub did not answer a keep-alive ping")

	// ErrNoAnswer means that something accepts connections but the hub did not answer in time.
	ErrNoAnswer = fmt.Errorf("the hub did not answer within %v", connectTimeout)

	// ErrBusy means that the hub is overloaded, or about to stop, and takes nobody just now.
	ErrBusy = errors.New("the hub is busy or unavailable")
)

var errNoResponse = fmt.Errorf("the hub did not answer the twin request within %v", responseTimeout)

// An Error is the hub's refusal of a twin operation.
type Error struct {
	Status     int    // such as 400
	Code       int    // IoT Hub's six digits, such as 400004 ArgumentInvalid; 0 when absent
	Message    string // the hub's own words
	TrackingID string // names the case to the hub's support
}

// Error returns status, code and message.
func (e *Error) Error() string {
	switch {
	case e.Message == "" && e.Code == 0:
		return fmt.Sprintf("the hub answered %d", e.Status)
	case e.Code == 0:
		return fmt.Sprintf("the hub answered %d: %s", e.Status, e.Message)
	}
	return fmt.Sprintf("the hub answered %d (%d): %s", e.Status, e.Code, e.Message)
}

// hubError makes an Error of an answer's status and JSON body.
func hubError(status int, body []byte) error {
	var b struct {
		ErrorCode  int    `json:"errorCode"`
		Message    string `json:"message"`
		TrackingID string `json:"trackingId"`
	}
	// A body that is no JSON object tells nothing; the status remains.
	_ = json.Unmarshal(body, &b)
	return &Error{Status: status, Code: b.ErrorCode, Message: b.Message, TrackingID: b.TrackingID}
}

// A refusal is a CONNACK return code other than 0 (MQTT 3.1.1, table 3.1).
type refusal byte

func (r refusal) Error() string {
	switch {
	case r.Is(ErrUnauthorized):
		return ErrUnauthorized.Error()
	case r.Is(ErrBusy):
		return ErrBusy.Error()
	}
	return fmt.Sprintf("the hub refused the connection with code %d", byte(r))
}

// Is matches ErrUnauthorized, for which IoT Hub uses code 5, and ErrBusy.
func (r refusal) Is(target error) bool {
	switch r {
	case packets.ErrRefusedBadUsernameOrPassword, packets.ErrRefusedNotAuthorised:
		return target == ErrUnauthorized
	case packets.ErrRefusedServerUnavailable:
		return target == ErrBusy
	}
	return false
}

// permanent reports whether a first connection that failed with err would only fail again.
func permanent(err error) bool {
	if refused, ok := errors.AsType[*RegistrationError](err); ok {
		return !refused.transient()
	}
	if errors.Is(err, ErrUnauthorized) {
		return true
	}
	if code, ok := errors.AsType[refusal](err); ok {
		return code != packets.ErrRefusedServerUnavailable
	}
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}
