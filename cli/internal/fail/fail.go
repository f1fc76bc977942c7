// Package fail is how a command fails: with an exit status, and one line for the
// user that says what failed, on what, and what to do.
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
	Interrupted  = 130 // by Ctrl-C or SIGTERM, before all was done; what is meant to run until then exits with 0
)

// An Error is an error with an exit status, worded for the user: what failed,
// on what, what to do.
type Error struct {
	Status int // the exit status
	text   string
	cause  error // for errors.Is; nil where nobody asks
}

// Error returns the line for the user.
func (f *Error) Error() string { return f.text }

// Unwrap returns the cause, nil where nobody asks for it.
func (f *Error) Unwrap() error { return f.cause }

// Errorf returns an [Error] with an exit status other than 0.
func Errorf(status int, format string, args ...any) error {
	return &Error{Status: status, text: fmt.Sprintf(format, args...)}
}

// Wrapf is Errorf for an error that errors.Is is to find cause in.
func Wrapf(cause error, status int, format string, args ...any) error {
	return &Error{Status: status, text: fmt.Sprintf(format, args...), cause: cause}
}

// Usagef is Errorf for a command line that cannot be carried out as it stands.
func Usagef(format string, args ...any) error { return Errorf(Usage, format, args...) }

// First returns the first of errs that is not nil.
func First(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// ExitStatus is the exit status of a command that fails with err, of whatever
// type that is.
func ExitStatus(err error) int {
	if f, ok := errors.AsType[*Error](err); ok {
		return f.Status
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return TimedOut
	}
	return Failed
}
