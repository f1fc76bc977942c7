package agent

import "golang.org/x/sys/unix"

// bootID returns the UUID that the kernel makes for each boot.
func bootID() (string, error) { return unix.Sysctl("kern.bootsessionuuid") }
