package amqp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// The conditions of errors: those of the specification, and those that clients
// of IoT Hub know besides.
const (
	condNotFound       wire.Symbol = "amqp:not-found"
	condUnauthorized   wire.Symbol = "amqp:unauthorized-access"
	condNotAllowed     wire.Symbol = "amqp:not-allowed"
	condStolen         wire.Symbol = "amqp:link:stolen"
	condRedirect       wire.Symbol = "amqp:link:redirect"
	condDetached       wire.Symbol = "amqp:link:detach-forced"
	condTooLarge       wire.Symbol = "amqp:link:message-size-exceeded"
	condLimit          wire.Symbol = "amqp:resource-limit-exceeded"
	condInternal       wire.Symbol = "amqp:internal-error"
	condPrecondition   wire.Symbol = "amqp:precondition-failed"
	condNotImplemented wire.Symbol = "amqp:not-implemented"
	condDecode         wire.Symbol = "amqp:decode-error"
	condForced         wire.Symbol = "amqp:connection:forced"
	condArgument       wire.Symbol = "com.microsoft:argument-error"
	condLockLost       wire.Symbol = "com.microsoft:message-lock-lost"
	condThrottled      wire.Symbol = "com.microsoft:device-container-throttled"
	condTimeout        wire.Symbol = "com.microsoft:timeout"
)

// trackingID is the key of the info in which clients look for it.
const trackingID = "com.microsoft:tracking-id"

// refuse returns an error with a condition.
func refuse(condition wire.Symbol, format string, args ...any) *wire.Error {
	return &wire.Error{Condition: condition, Description: fmt.Sprintf(format, args...)}
}

// noEntity refuses what does not exist in words of Event Hubs: by them the clients
// for Java, .NET and Node know that it is of no use to try again.
func noEntity(condition wire.Symbol, format string, args ...any) *wire.Error {
	return refuse(condition, "The messaging entity of this address could not be found: "+format, args...)
}

// conditionOf is the condition of a refusal of the rules. Node's and .NET's
// clients make their exceptions of it.
func conditionOf(e *hub.Error) wire.Symbol {
	switch e.Code {
	case hub.ErrInvalidOperation.Code:
		return condNotAllowed
	case hub.ErrQueueFull.Code, hub.ErrTooManyMethodCalls.Code, hub.ErrTwinTooLarge.Code, hub.ErrQuotaExceeded.Code:
		return condLimit
	case hub.ErrMessageLockLost.Code:
		return condLockLost
	}
	return conditionOfStatus(e.Status)
}

// conditionOfStatus is the condition of an HTTP status.
func conditionOfStatus(status int) wire.Symbol {
	switch status {
	case http.StatusBadRequest:
		return condArgument
	case http.StatusUnauthorized:
		return condUnauthorized
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusConflict:
		return condNotAllowed
	case http.StatusNotFound:
		return condNotFound
	case http.StatusPreconditionFailed:
		return condPrecondition
	case http.StatusRequestEntityTooLarge:
		return condTooLarge
	case http.StatusTooManyRequests:
		return condThrottled
	case http.StatusGatewayTimeout:
		return condTimeout
	}
	return condInternal // which they try again
}

// refusalOf turns an error of the rules into AMQP's, with the tracking id that
// the log has too. A *wire.Error is one already.
func (c *conn) refusalOf(err error) *wire.Error {
	var done *wire.Error
	if errors.As(err, &done) {
		return done
	}
	refusal := hub.RefusalOf(err)
	if refusal.Code == hub.ErrUnauthorizedAccess.Code {
		// Why is for the hub's operator alone.
		refusal = hub.ErrUnauthorizedAccess
	}
	id := words.NewRequestID()
	attrs := []slog.Attr{
		slog.String(words.LogRemote, c.remote()), slog.Int(words.LogStatus, refusal.Status),
		slog.String(words.LogTracking, id.Compact()), slog.String(words.LogReason, err.Error()),
	}
	switch refusal.Status {
	case http.StatusInternalServerError:
		c.door.log.LogAttrs(c.door.ctx, slog.LevelError, "refused", attrs...)
	default:
		c.door.far.Info("refused", attrs...)
	}
	tracking := id.TrackingID(c.door.hub.Now())
	return &wire.Error{
		Condition:   conditionOf(refusal),
		Description: refusal.Error() + " Tracking Id:" + tracking,
		Info:        wire.Fields{{Key: wire.Symbol(trackingID), Value: tracking}},
	}
}
