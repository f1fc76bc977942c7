//go:build unix

package device

import (
	"syscall"

	"github.com/iotdm/iotdm/cli/internal/fail"
)

// otherDescriptors is how many files a process has open besides its connections.
const otherDescriptors = 50

// checkDescriptors fails when this process may not have so many connections. Package os has raised the
// limit as far as it goes.
func checkDescriptors(connections int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil // connecting will tell
	}
	if need := uint64(connections + otherDescriptors); uint64(limit.Cur) < need {
		return fail.Errorf(fail.Failed, "%d devices need as many file descriptors, and this process may have %d; allow more with \"ulimit -n %d\"",
			connections, limit.Cur, need)
	}
	return nil
}
