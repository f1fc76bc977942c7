//go:build unix

package serve

import "syscall"

// maxFiles returns how many files the process may have open, or 0 if that is
// not known or more than it could use. Go has raised it to what the system
// allows at most.
func maxFiles() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur == 0 || uint64(r.Cur) > 1<<30 {
		return 0
	}
	return int(r.Cur)
}
