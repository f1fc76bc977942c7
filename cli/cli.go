// Package cli is the command line of iotdm.
package cli

import "io"

// Main runs the command line args and returns the exit status.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	return 2
}
