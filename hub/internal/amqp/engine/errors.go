package engine

import (
	"errors"
	"fmt"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// The conditions that are the engine's own, from parts 2.8.15 to 2.8.18 of the
// specification.
const (
	condInternal       wire.Symbol = "amqp:internal-error"
	condDecode         wire.Symbol = "amqp:decode-error"
	condNotAllowed     wire.Symbol = "amqp:not-allowed"
	condInvalidField   wire.Symbol = "amqp:invalid-field"
	condIllegalState   wire.Symbol = "amqp:illegal-state"
	condLimit          wire.Symbol = "amqp:resource-limit-exceeded"
	condFraming        wire.Symbol = "amqp:connection:framing-error"
	condWindow         wire.Symbol = "amqp:session:window-violation"
	condUnattached     wire.Symbol = "amqp:session:unattached-handle"
	condHandleInUse    wire.Symbol = "amqp:session:handle-in-use"
	condTransferLimit  wire.Symbol = "amqp:link:transfer-limit-exceeded"
	condMessageTooLong wire.Symbol = "amqp:link:message-size-exceeded"
	condStolen         wire.Symbol = "amqp:link:stolen"
)

var (
	errChannel = errors.New("a channel above channel-max")
	errHandle  = errors.New("a handle above handle-max")
)

func failure(condition wire.Symbol, format string, args ...any) *wire.Error {
	return &wire.Error{Condition: condition, Description: fmt.Sprintf(format, args...)}
}

func illegalState(format string, args ...any) *wire.Error {
	return failure(condIllegalState, format, args...)
}

func invalidField(format string, args ...any) *wire.Error {
	return failure(condInvalidField, format, args...)
}

func framingError(err error) *wire.Error { return failure(condFraming, "%v", err) }

// decodeError makes an error of the wire the peer's.
func decodeError(err error) *wire.Error {
	if e := (*wire.Error)(nil); errors.As(err, &e) {
		return e
	}
	return failure(condDecode, "%v", err)
}

// errorOf returns the *wire.Error that a handler refused with. What else it
// says is not for the peer.
func errorOf(err error) *wire.Error {
	if e := (*wire.Error)(nil); errors.As(err, &e) {
		return e
	}
	return failure(condInternal, "internal error")
}
