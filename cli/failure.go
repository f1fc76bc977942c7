package cli

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
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

func usagef(format string, args ...any) error { return failf(statusUsage, format, args...) }

// report prints err on one line and returns the exit status.
func report(s streams, err error) int {
	if err == nil {
		return 0
	}
	if readerGone(err) {
		return statusFailed // it has what it wants
	}
	status := statusFailed
	if f, ok := errors.AsType[*failure](err); ok {
		status = f.status
	} else if errors.Is(err, context.DeadlineExceeded) {
		status = statusTimeout
	}
	s.note("iotdm: %s", strings.Join(strings.FieldsFunc(err.Error(), isLineBreak), "; "))
	return status
}

// readerGone reports whether err is that nobody reads standard output any more,
// as after "| head". Elsewhere than on Windows SIGPIPE ends the process.
func readerGone(err error) bool {
	const brokenPipe, noData = syscall.Errno(109), syscall.Errno(232) // ERROR_BROKEN_PIPE, ERROR_NO_DATA
	return runtime.GOOS == "windows" && (errors.Is(err, brokenPipe) || errors.Is(err, noData))
}

func isLineBreak(r rune) bool { return r == '\n' || r == '\r' }

// firstError returns the first of errs that is one.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
