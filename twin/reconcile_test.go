package twin_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/twin"
)

func TestMergePatch(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"nothing", `{"a":1,"b":{"c":[1,{"d":2}]}}`, ` {"b": {"c": [1, {"d": 2}]}, "a": 1}`, `{}`},
		{"what is new, changed and gone", `{"a":1,"b":2,"c":3}`, `{"a":1,"b":"2","d":{"e":{}}}`, `{"b":"2","c":null,"d":{"e":{}}}`},
		{"inside an object", `{"a":{"b":1,"c":2},"d":{"e":1}}`, `{"a":{"b":1,"c":3},"d":{}}`, `{"a":{"c":3},"d":{"e":null}}`},
		{"an object for a value and back", `{"a":1,"b":{"c":1}}`, `{"a":{"x":1},"b":1}`, `{"a":{"x":1},"b":1}`},
		{"an array is one value", `{"a":[1,2]}`, `{"a":[1]}`, `{"a":[1]}`},
		{"null removes", `{"a":1}`, `{"a":null,"b":null}`, `{"a":null}`},
		{"numbers are their text", `{"a":1.10}`, `{"a":1.1}`, `{"a":1.1}`},
		{"names that escapes hide", `{"\u0061":1}`, `{"a":2}`, `{"a":2}`},
		{"what the hub writes is left out", `{"$version":1,"a":1}`, `{"$version":2,"$metadata":{},"a":1}`, `{}`},
		{"no documents", ``, `[]`, `{}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, string(twin.MergePatch([]byte(tt.old), []byte(tt.new)))); diff != "" {
				t.Errorf("MergePatch(%s, %s) (-want +got):\n%s", tt.old, tt.new, diff)
			}
		})
	}
}

func TestReconcile(t *testing.T) {
	tests := []struct {
		name, base, mine, theirs string
		want                     string
		conflicts                []twin.Conflict
	}{
		{"different members", `{"a":1,"b":1,"c":1}`, `{"a":2,"b":1,"c":1}`, `{"a":1,"b":2}`, `{"a":2,"b":2}`, nil},
		{"different members deep in an object", `{"a":{"b":{"x":1,"y":1}}}`, `{"a":{"b":{"x":2,"y":1}}}`, `{"a":{"b":{"x":1,"z":3}}}`, `{"a":{"b":{"x":2,"z":3}}}`, nil},
		{"the same change", `{"a":1}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`, nil},
		{"both made the object", `{}`, `{"a":{"x":1}}`, `{"a":{"y":2}}`, `{"a":{"y":2,"x":1}}`, nil},
		{"both removed it", `{"a":1,"b":1}`, `{"b":1}`, `{"b":1}`, `{"b":1}`, nil},
		{"two values", `{"a":{"b":1}}`, `{"a":{"b":2}}`, `{"a":{"b":3}}`, `{"a":{"b":2}}`, []twin.Conflict{{"a.b", []byte("1"), []byte("2"), []byte("3")}}},
		{"I remove, they change", `{"a":{"b":1},"c":1}`, `{"c":1}`, `{"a":{"b":2},"c":1}`, `{"c":1}`, []twin.Conflict{{"a", []byte(`{"b":1}`), nil, []byte(`{"b":2}`)}}},
		{"I change, they remove", `{"a":1}`, `{"a":2}`, `{}`, `{"a":2}`, []twin.Conflict{{"a", []byte("1"), []byte("2"), nil}}},
		{"arrays are one value", `{"a":[1]}`, `{"a":[1,2]}`, `{"a":[0,1]}`, `{"a":[1,2]}`, []twin.Conflict{{"a", []byte("[1]"), []byte("[1,2]"), []byte("[0,1]")}}},
		{"what the hub writes is left out", `{"$version":1}`, `{"$version":1,"a":1}`, `{"$version":2,"$metadata":{}}`, `{"a":1}`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, conflicts := twin.Reconcile([]byte(tt.base), []byte(tt.mine), []byte(tt.theirs))
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("Reconcile(%s, %s, %s) (-want +got):\n%s", tt.base, tt.mine, tt.theirs, diff)
			}
			if diff := cmp.Diff(tt.conflicts, conflicts); diff != "" {
				t.Errorf("conflicts of Reconcile(%s, %s, %s) (-want +got):\n%s", tt.base, tt.mine, tt.theirs, diff)
			}
		})
	}
}

// FuzzReconcile holds patches and three-way merges to their laws.
func FuzzReconcile(f *testing.F) {
	f.Add(`{"a":1,"b":{"c":2}}`, `{"a":2,"b":{"c":2}}`, `{"a":1,"b":{"d":[null]}}`)
	f.Add(`{"a":{}}`, `{"a":1}`, `{"a":{"":"x"}}`)
	f.Fuzz(func(t *testing.T, b, m, o string) {
		var docs [3][]byte
		for i, text := range []string{b, m, o} {
			// As a twin has it: each name once, no nulls, nothing of the hub's.
			doc, err := twin.Merge(nil, []byte(text))
			if err != nil {
				return
			}
			docs[i], _ = twin.Reconcile(doc, doc, doc)
		}
		base, mine, theirs := docs[0], docs[1], docs[2]
		same := func(what string, want, got []byte) {
			t.Helper()
			if diff := twin.Diff(want, got); len(diff) > 0 {
				t.Errorf("%s: want %s, got %s", what, want, got)
			}
		}
		patched, err := twin.Merge(base, twin.MergePatch(base, mine))
		if err != nil {
			t.Fatal(err)
		}
		same("the patch", mine, patched)
		if patch := twin.MergePatch(mine, mine); string(patch) != "{}" {
			t.Errorf("a patch from %s to itself is %s", mine, patch)
		}
		for _, law := range []struct {
			what               string
			base, mine, theirs []byte
			want               []byte
		}{
			{"only I changed it", base, mine, base, mine},
			{"only they changed it", base, base, theirs, theirs},
			{"both changed it alike", base, mine, mine, mine},
		} {
			merged, conflicts := twin.Reconcile(law.base, law.mine, law.theirs)
			same(law.what, law.want, merged)
			if len(conflicts) > 0 {
				t.Errorf("%s: conflicts %v", law.what, conflicts)
			}
		}
		if _, conflicts := twin.Reconcile(base, mine, theirs); len(conflicts) > 0 {
			_, other := twin.Reconcile(base, theirs, mine)
			if len(conflicts) != len(other) {
				t.Errorf("%d conflicts one way and %d the other", len(conflicts), len(other))
			}
		}
	})
}
