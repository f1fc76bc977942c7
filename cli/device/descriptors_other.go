//go:build !unix

package device

// checkDescriptors has nothing to check where connections are not counted.
func checkDescriptors(int) error { return nil }
