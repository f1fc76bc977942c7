// Package yamltext words what is wrong with a text in YAML.
package yamltext

import (
	"errors"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Complaint is the first complaint of a YAML decoder, in one line which knows
// nothing of Go.
func Complaint(err error) string {
	if types, ok := errors.AsType[*yaml.TypeError](err); ok {
		return goTypes.ReplaceAllString(types.Errors[0], "")
	}
	return strings.TrimPrefix(err.Error(), "yaml: ")
}

// goTypes is where a decoder names a Go type.
var goTypes = regexp.MustCompile(` (in|into) (type )?[\w.\[\]*]+( \{\})?$`)
