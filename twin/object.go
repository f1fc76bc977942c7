package twin

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// WithVersion returns object, which is a JSON object or nothing, with the member $version as its last. A
// notification of desired properties is a patch with $version.
func WithVersion(object []byte, version int64) json.RawMessage {
	b := make([]byte, 0, len(object)+32)
	b = openObject(b, object)
	b = append(b, `"$version":`...)
	b = strconv.AppendInt(b, version, 10)
	return append(b, '}')
}

// openObject appends object without its closing brace, ready for one more member.
func openObject(b, object []byte) []byte {
	object = bytes.TrimSpace(object)
	if len(object) == 0 {
		return append(b, '{')
	}
	b = append(b, bytes.TrimRight(object[:len(object)-1], " \t\r\n")...)
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return b
}

// StripReadOnly returns object without white space and without the members $metadata and $version
// of its root, which a service that sends a whole twin back doesn't mean to write. The error is an
// [*Error] if it is no JSON object.
func StripReadOnly(object []byte) (json.RawMessage, error) {
	b, err := compact(object)
	if err != nil {
		return nil, err
	}
	return stripReadOnly(b), nil
}

func stripReadOnly(object []byte) []byte {
	if bytes.IndexByte(object, '$') < 0 && bytes.IndexByte(object, '\\') < 0 { // that may stand for one
		return object
	}
	found := false
	for c := jsontext.Walk(object); c.Member(); {
		found = found || isReadOnly(c.Key())
	}
	if !found {
		return object
	}
	b := append(make([]byte, 0, len(object)), '{')
	for c := jsontext.Walk(object); c.Member(); {
		if !isReadOnly(c.Key()) {
			b = append(appendKey(b, c.Key()), c.Value()...)
		}
	}
	return append(b, '}')
}

func isReadOnly(key []byte) bool {
	name := string(jsontext.Unquote(key))
	return name == "$metadata" || name == "$version"
}

func isObject(value []byte) bool { return len(value) > 0 && value[0] == '{' }
func isArray(value []byte) bool  { return len(value) > 0 && value[0] == '[' }
func isNull(value []byte) bool   { return len(value) > 0 && value[0] == 'n' }
