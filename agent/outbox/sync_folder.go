//go:build !windows

package outbox

import (
	"errors"
	"os"
)

// syncFolder makes the creation of a file in dir durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
