package fail

import (
	"context"
	"errors"
	"fmt"
)

// Exit statuses. They are part of what scripts rely on.
const (
	Failed       = 1
	Usage        = 2
	NotFound     = 3 // not found, or not online
	Unauthorized = 4
	TimedOut     = 5
)

// An Error is an error with an exit status, worded for the user: what failed,
// on what, what to do.
type Error struct {
	Status int
	text   string
	cause  error // for errors.Is; nil where nobody asks
}

func (f *Error) Error() string { return f.text }
func (f *Error) Unwrap() error { return f.cause }

func Errorf(status int, format string, args ...any) error {
	return &Error{Status: status, text: fmt.Sprintf(format, args...)}
}

// Wrapf is failf for a failure that errors.Is is to find cause in.
func Wrapf(cause error, status int, format string, args ...any) error {
	return &Error{Status: status, text: fmt.Sprintf(format, args...), cause: cause}
}

func Usagef(format string, args ...any) error { return Errorf(Usage, format, args...) }

// First returns the first of errs that is one.
func First(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// ExitStatus is the exit status of a command that fails with err.
func ExitStatus(err error) int {
	if f, ok := errors.AsType[*Error](err); ok {
		return f.Status
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return TimedOut
	}
	return Failed
}
