package fail

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// PlainPathError words a file error without the name of the system call.
func PlainPathError(err error) error {
	if e, ok := err.(*os.PathError); ok {
		return fmt.Errorf("%s: %w", e.Path, e.Err)
	}
	return err
}

// PlainYAMLError is the first complaint of a YAML decoder, which knows nothing
// of Go.
func PlainYAMLError(err error) string {
	if types, ok := errors.AsType[*yaml.TypeError](err); ok {
		return goTypes.ReplaceAllString(types.Errors[0], "")
	}
	return strings.TrimPrefix(err.Error(), "yaml: ")
}

// goTypes is where a decoder names a Go type.
var goTypes = regexp.MustCompile(` (in|into) (type )?[\w.\[\]*]+( \{\})?$`)
