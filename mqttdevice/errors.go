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

	// ErrNotConnected means that Connect has not been called, or has failed.
	ErrNotConnected = errors.New("not connected")

	// ErrClosed means that the client has been closed.
	ErrClosed = errors.New("the client is closed")
)

// Reasons for the end of a connection.
var (
	errHubClosed  = errors.New("the hub closed the connection (another program with the same id, a changed or disabled device, or the hub stopped)")
	errNoPong     = errors.New("the hub did not answer a keep-alive ping")
	errNoAnswer   = fmt.Errorf("the hub did not answer within %v", connectTimeout)
	errNoResponse = fmt.Errorf("the hub did not answer the twin request within %v", responseTimeout)
	errRenewal    = errors.New("the token is being renewed")
)

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
	switch r {
	case packets.ErrRefusedBadUsernameOrPassword, packets.ErrRefusedNotAuthorised:
		return ErrUnauthorized.Error()
	case packets.ErrRefusedServerUnavailable:
		return "the hub is busy or unavailable"
	}
	return fmt.Sprintf("the hub refused the connection with code %d", byte(r))
}

// Is makes a refusal of the credential match ErrUnauthorized. IoT Hub uses code 5 for that.
func (r refusal) Is(target error) bool {
	return target == ErrUnauthorized &&
		(r == packets.ErrRefusedBadUsernameOrPassword || r == packets.ErrRefusedNotAuthorised)
}

// permanent reports whether a first connection that failed with err would only fail again.
func permanent(err error) bool {
	var code refusal
	if errors.As(err, &code) {
		return code != packets.ErrRefusedServerUnavailable
	}
	var cert *tls.CertificateVerificationError
	return errors.As(err, &cert)
}
