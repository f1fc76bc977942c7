//go:build !linux

package outbox

import "os"

// syncData makes the content of f durable, and its size.
func syncData(f *os.File) error { return f.Sync() }
