package words

import (
	"bytes"
	"encoding/json"
)

// Marshal prints v as JSON. Unlike json.Marshal it leaves "<", ">" and "&"
// alone: a user's text must come back byte for byte, since some sign it.
func Marshal(v any) ([]byte, error) {
	if m, ok := v.(json.Marshaler); ok {
		return m.MarshalJSON() // json.Encoder would copy and check it again
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

// MustMarshal prints what cannot fail to print: structs of strings and numbers.
func MustMarshal(v any) []byte {
	b, err := Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// Present returns a member, or nil if it is null: that means the same as if it
// were absent.
func Present(member json.RawMessage) json.RawMessage {
	if string(member) == "null" {
		return nil
	}
	return member
}
