package fail

import (
	"fmt"
	"os"
)

// PlainPathError words a file error without the name of the system call.
func PlainPathError(err error) error {
	if e, ok := err.(*os.PathError); ok {
		return fmt.Errorf("%s: %w", e.Path, e.Err)
	}
	return err
}
