package service

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTwinDocument(t *testing.T) {
	tests := []struct {
		name, text    string
		asJSON        bool
		tags, desired string
		err           string
	}{
		{"numbers keep their text", "tags: {}\ndesired:\n  a: 1.10\n  b: 4503599627370495\n  c: 1e3\n", false, `{}`, `{"a":1.10,"b":4503599627370495,"c":1e3}`, ""},
		{"numbers of YAML", "tags: {}\ndesired: {a: 0x10, b: .5, c: +1}\n", false, `{}`, `{"a":16,"b":0.5,"c":1}`, ""},
		{"text that looks like something else", "tags: {a: 2026-01-02, b: no, c: 12:30, d: \"true\"}\ndesired: {}\n", false, `{"a":"2026-01-02","b":"no","c":"12:30","d":"true"}`, `{}`, ""},
		{"nothing removes", "# x\n\ntags:\ndesired:\n  a:\n  b: ~\n  c: [null]\n", false, `{}`, `{"c":[null]}`, ""},
		{"names that are no text", "tags: {1: a, true: b}\ndesired: {}\n", false, `{"1":"a","true":"b"}`, `{}`, ""},
		{"JSON below comments", "// a\n//\n{\"tags\": {\"a\": 1}, \"desired\": {\"b\": null}}\n", true, `{"a":1}`, `{}`, ""},
		{"a section is missing", "tags: {}\n", false, "", "", `desired is missing; write "desired: {}" to remove all of it`},
		{"a section too many", "tags: {}\ndesired: {}\nreported: {}\n", false, "", "", `"reported" is neither tags nor desired; only these can be changed`},
		{"a section that is no object", "tags: [1]\ndesired: {}\n", false, "", "", "tags is not an object"},
		{"a name twice", "tags:\n  a: 1\n  a: 2\ndesired: {}\n", false, "", "", `line 3: "a" is there twice`},
		{"an alias", "tags: &a {x: 1}\ndesired: *a\n", false, "", "", "line 2: aliases can't be used here"},
		{"no number of JSON", "tags: {}\ndesired: {a: .inf}\n", false, "", "", `line 2: ".inf" is no number that JSON has; put text in quotes`},
		{"two documents", "tags: {}\ndesired: {}\n---\na: 1\n", false, "", "", "there is more than one document in it"},
		{"no mapping", "- a\n", false, "", "", "the document has to consist of tags and desired"},
		{"no JSON", "// a\n{\"tags\": {},\n \"desired\": {,}}\n", true, "", "", "line 3: invalid character ',' looking for beginning of object key string"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseTwinDocument([]byte(tt.text), tt.asJSON)
			if (err != nil) != (tt.err != "") || err != nil && err.Error() != tt.err {
				t.Fatalf("parse %q: error %v, want %q", tt.text, err, tt.err)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff([]string{tt.tags, tt.desired}, []string{string(got.Tags), string(got.Desired)}); diff != "" {
				t.Errorf("parse %q (-want +got):\n%s", tt.text, diff)
			}
			for _, asJSON := range []bool{false, true} {
				text, err := writeTwinDocument(got, asJSON, []string{"a", "", "tags: 1"})
				if err != nil {
					t.Fatal(err)
				}
				again, err := parseTwinDocument(text, asJSON)
				if err != nil || string(again.Tags) != string(got.Tags) || string(again.Desired) != string(got.Desired) {
					t.Errorf("%s is read as %s, %s, %v", text, again.Tags, again.Desired, err)
				}
			}
		})
	}
}
