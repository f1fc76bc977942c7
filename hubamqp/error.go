package hubamqp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/Azure/go-amqp"

	"github.com/iotdm/iotdm/internal/dial"
)

// What callers branch on, with errors.Is.
var (
	// ErrNotFound: no such device, module, consumer group or event hub.
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized: the credential is wrong or expired, or lacks the right.
	ErrUnauthorized = errors.New("not authorized")
	// ErrLimit: the device's queue of messages is full, or the consumer group has as many readers as it may have.
	ErrLimit = errors.New("a limit is reached")
	// ErrTooLarge: the message is larger than the hub takes.
	ErrTooLarge = errors.New("too large for the hub")
	// ErrThrottled: the hub has too much to do, for this client or at all.
	ErrThrottled = errors.New("the hub is busy")
	// ErrStolen: another reader of the partition has taken this one's place.
	ErrStolen = errors.New("another reader has taken over")

	// ErrConnectionLost: the connection broke, or could not be made. What was under way may have been done or not.
	ErrConnectionLost = errors.New("connection lost")
	// ErrNoAnswer: something accepts connections but the hub did not answer in time.
	ErrNoAnswer = fmt.Errorf("the hub did not answer within %v", connectTimeout)
	// ErrClosed: the client has been closed.
	ErrClosed = errors.New("the client is closed")
)

// A ProxyError is the failure to reach the hub through a proxy that the environment names.
type ProxyError = dial.ProxyError

// Conditions of errors; see the enumeration of the AMQP SDKs and section 2.8 of the specification.
const (
	condNotFound     = string(amqp.ErrCondNotFound)
	condUnauthorized = string(amqp.ErrCondUnauthorizedAccess)
	condLimit        = string(amqp.ErrCondResourceLimitExceeded)
	condTooLarge     = string(amqp.ErrCondMessageSizeExceeded)
	condStolen       = string(amqp.ErrCondStolen)
	condNotAllowed   = string(amqp.ErrCondNotAllowed)
	condNoSuchCall   = string(amqp.ErrCondNotImplemented)
	condInternal     = string(amqp.ErrCondInternalError)
	condArgument     = "com.microsoft:argument-error"
	condRange        = "com.microsoft:argument-out-of-range"
	condDisabled     = "com.microsoft:entity-disabled"
	condNoHub        = "com.microsoft:iot-hub-not-found-error"
	condSuspended    = "com.microsoft:iot-hub-suspended"
	condAuthFailed   = "com.microsoft:auth-failed"
	condThrottled    = "com.microsoft:device-container-throttled"
	condBusy         = "com.microsoft:server-busy"
	condQuota        = "com.microsoft:quota-exceeded"
)

// An Error is the refusal of a hub: of a message, a link, a token or a connection.
type Error struct {
	Condition  string // such as amqp:not-found; empty if the answer was a status
	Status     int    // of a token or a question, as HTTP has it; 0 if the answer was a condition
	Message    string // the hub's own words
	TrackingID string // for the hub's operator to find the case by
}

// Error returns the condition or status, and the words.
func (e *Error) Error() string {
	s := "the hub answered " + e.Condition
	if e.Condition == "" {
		s += fmt.Sprint(e.Status)
		if text := http.StatusText(e.Status); text != "" && e.Message == "" {
			s += " " + text
		}
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Is matches the errors of this package that e stands for.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Condition == condNotFound || e.Condition == condNoHub || e.Status == http.StatusNotFound
	case ErrUnauthorized:
		return e.Condition == condUnauthorized || e.Condition == condAuthFailed || e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	case ErrLimit:
		return e.Condition == condLimit || e.Condition == condQuota
	case ErrTooLarge:
		return e.Condition == condTooLarge
	case ErrThrottled:
		return e.Condition == condThrottled || e.Condition == condBusy || e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable
	case ErrStolen:
		return e.Condition == condStolen
	}
	return false
}

// final reports whether a reader that failed with err would only fail again.
func final(err error) bool {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return errors.Is(err, ErrClosed) || errors.Is(err, errEndless)
	}
	switch e.Condition {
	case condNotAllowed, condNoSuchCall, condArgument, condRange, condDisabled, condSuspended:
		return true
	case "":
		return e.Status >= 400 && e.Status < 500 && e.Status != http.StatusRequestTimeout && e.Status != http.StatusTooManyRequests
	}
	return errors.Is(e, ErrUnauthorized) || errors.Is(e, ErrNotFound) || errors.Is(e, ErrLimit) || errors.Is(e, ErrStolen)
}

// wireError makes of an error of package amqp one of this package: the peer's refusal an *Error, and what else ends
// a link ErrConnectionLost. The end of ctx comes before both.
func wireError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if over(ctx) {
		return context.Cause(ctx)
	}
	if refusal, ok := errors.AsType[*amqp.Error](err); ok {
		return newError(refusal)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	text := oneLine(strings.TrimPrefix(err.Error(), "amqp: "))
	if text == "" || text == "connection closed" || text == "link closed" || text == "session closed" || strings.HasSuffix(text, "EOF") {
		return ErrConnectionLost
	}
	return fmt.Errorf("%w: %s", ErrConnectionLost, text)
}

// over reports whether ctx has ended, or is about to: the deadline of a connection comes a little before that of the
// context it was made from.
func over(ctx context.Context) bool {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		<-ctx.Done()
	}
	return ctx.Err() != nil
}

// newError makes an *Error of one on the wire.
func newError(e *amqp.Error) *Error {
	text := e.Description
	tracking, _ := e.Info["com.microsoft:tracking-id"].(string)
	// The service's words end with it.
	if before, id, found := strings.Cut(text, "Tracking Id:"); found {
		text = strings.TrimRight(before, " \t\r\n,;")
		if tracking == "" {
			tracking, _, _ = strings.Cut(id, "-TimeStamp")
		}
	}
	return &Error{Condition: oneLine(string(e.Condition)), Message: oneLine(text), TrackingID: oneLine(tracking)}
}

// oneLine returns the beginning of s without control characters and runs of blanks: a peer wrote it.
func oneLine(s string) string {
	const limit = 500
	s = strings.ToValidUTF8(s[:min(len(s), limit)], "")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}
