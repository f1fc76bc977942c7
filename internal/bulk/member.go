package bulk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/internal/phrase"
)

// maxPath bounds how deep a member may lie; a twin is 10 deep.
const maxPath = 20

// WithMember returns the object doc with the member at path, such as led.color,
// whose objects are made where they are missing. A value that is JSON, such as 60,
// true or "60", stays so, and all else is text.
func WithMember(doc []byte, path, value string) (json.RawMessage, error) {
	return withMember(doc, strings.Split(path, "."), cellValue(value))
}

// cellValue is JSON for a cell: what is JSON already, such as 60, true or
// "60", stays so, and all else is text.
func cellValue(cell string) json.RawMessage {
	if json.Valid([]byte(cell)) {
		return json.RawMessage(cell)
	}
	text, _ := jsontext.Marshal(cell) // a string
	return text
}

func withMember(doc []byte, path []string, value json.RawMessage) (json.RawMessage, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("lies deeper than %d members", maxPath)
	}
	members := map[string]json.RawMessage{}
	if doc = bytes.TrimSpace(doc); len(doc) > 0 {
		if err := json.Unmarshal(doc, &members); err != nil {
			return nil, fmt.Errorf("there is a value where an object was to be: %s", phrase.Clip(string(doc)))
		}
	}
	if members == nil { // doc was null
		members = map[string]json.RawMessage{}
	}
	name := path[0]
	if name == "" {
		return nil, errors.New("has an empty name in its path")
	}
	if len(path) > 1 {
		inner, err := withMember(members[name], path[1:], value)
		if err != nil {
			return nil, err
		}
		value = inner
	}
	members[name] = value
	return jsontext.Marshal(members)
}
