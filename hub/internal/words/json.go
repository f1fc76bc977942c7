package words

import (
	"encoding/json"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// MustMarshal prints what cannot fail to print: structs of strings and numbers.
func MustMarshal(v any) []byte {
	b, err := jsontext.Marshal(v)
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
