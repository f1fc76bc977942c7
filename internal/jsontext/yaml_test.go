package jsontext_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// A text is the same in YAML as in JSON, whatever is in it and however it was
// escaped.
func FuzzForYAML(f *testing.F) {
	for _, text := range []string{`"a"`, `"\/"`, `"\ud83d\ude00"`, `"\ud83dx"`, `"\ud83d\ud83d\ude00"`, `"\\ud83d\""`, "\"\x7f\u0085\u2028\u2029\ufeff\"", `"\u0000\n\t\b\f\r\\"`, "\"\xff\"", `"𝄞 é "`, `"a: #b"`, "\t\"a\"\r\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var want string
		if text == "null" || json.Unmarshal([]byte(text), &want) != nil {
			return
		}
		var got string
		err := yaml.Unmarshal(jsontext.ForYAML([]byte(text)), &got)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q as %q: %v (-want +got):\n%s", text, jsontext.ForYAML([]byte(text)), err, diff)
		}
	})
}
