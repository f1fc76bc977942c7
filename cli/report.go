package cli

import (
	"errors"
	"runtime"
	"strings"
	"syscall"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// report prints err on one line and returns the exit status.
func report(s output.Streams, err error) int {
	if err == nil {
		return 0
	}
	if readerGone(err) {
		return fail.Failed // it has what it wants
	}
	s.Note("iotdm: %s", strings.Join(strings.FieldsFunc(err.Error(), output.IsLineBreak), "; "))
	return fail.ExitStatus(err)
}

// readerGone reports whether err is that nobody reads standard output any more,
// as after "| head". Elsewhere than on Windows SIGPIPE ends the process.
func readerGone(err error) bool {
	const brokenPipe, noData = syscall.Errno(109), syscall.Errno(232) // ERROR_BROKEN_PIPE, ERROR_NO_DATA
	return runtime.GOOS == "windows" && (errors.Is(err, brokenPipe) || errors.Is(err, noData))
}
