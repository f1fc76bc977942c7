//go:build !linux && !darwin

package agent

// bootID returns nothing: these systems have no id for a boot.
func bootID() (string, error) { return "", nil }
