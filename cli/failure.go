package cli

import (
	"context"
	"errors"
	"fmt"
)

// Exit statuses. They are part of what scripts rely on.
const (
	statusFailed       = 1
	statusUsage        = 2
	statusNotFound     = 3 // not found, or not online
	statusUnauthorized = 4
	statusTimeout      = 5
)

// A failure is an error with an exit status, worded for the user: what failed,
// on what, what to do.
type failure struct {
	status int
	text   string
	cause  error // for errors.Is; nil where nobody asks
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

func failf(status int, format string, args ...any) error {
	return &failure{status: status, text: fmt.Sprintf(format, args...)}
}

// because is failf for a failure that errors.Is is to find cause in.
func because(cause error, status int, format string, args ...any) error {
	return &failure{status: status, text: fmt.Sprintf(format, args...), cause: cause}
}

func usagef(format string, args ...any) error { return failf(statusUsage, format, args...) }

// firstError returns the first of errs that is one.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// exitStatus is the exit status of a command that fails with err.
func exitStatus(err error) int {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.status
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return statusTimeout
	}
	return statusFailed
}
