package jsontext

import (
	"bytes"
	"encoding/json"
)

// Marshal is json.Marshal that leaves "<", ">" and "&" as they are: a user's text comes back byte
// for byte, since some sign it. What v's own MarshalJSON returns is neither copied nor checked.
func Marshal(v any) ([]byte, error) {
	if m, ok := v.(json.Marshaler); ok {
		return m.MarshalJSON()
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}
