package twin_test

import (
	"bytes"
	"errors"
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
		{"null is absent", `{"a":1,"b":null,"c":null,"d":null}`, `{"a":null,"b":null,"d":1}`, `{"a":null,"d":1}`},
		{"an object that empties", `{"a":{"b":{"c":1}},"d":{}}`, `{"a":{"b":{}},"d":{}}`, `{"a":{"b":{"c":null}}}`},
		{"objects deep in arrays", `{"a":[{"b":1,"c":2},3]}`, `{"a":[{"c":2,"b":1},3]}`, `{}`},
		{"numbers are their text", `{"a":1,"b":[1.10],"c":1e0,"d":1}`, `{"a":1.0,"b":[1.1],"c":1E0,"d":1}`, `{"a":1.0,"b":[1.1],"c":1E0}`},
		{"strings are their characters", `{"a":"\u00e9","b":["<"]}`, `{"a":"é","b":["\u003c"]}`, `{}`},
		{"names that escapes hide", `{"\u0061":1}`, `{"a":2}`, `{"a":2}`},
		{"what the hub writes is left out", `{"$version":1,"a":1}`, `{"$version":2,"$metadata":{},"a":1}`, `{}`},
		{"a name that the hub refuses is not", `{"$a":1,"$b":1}`, `{"$b":2,"$c":3}`, `{"$a":null,"$b":2,"$c":3}`},
		{"no documents", ``, ``, `{}`},
		{"all of it", ``, `{"a":1}`, `{"a":1}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := twin.MergePatch([]byte(tt.old), []byte(tt.new))
			if diff := cmp.Diff(tt.want, string(got)); diff != "" || err != nil {
				t.Errorf("MergePatch(%s, %s): %v (-want +got):\n%s", tt.old, tt.new, err, diff)
			}
		})
	}
	for _, in := range []string{`null`, `[]`, `{"a":1`, deep(70)} {
		for _, args := range [][2]string{{`{}`, in}, {in, `{}`}} {
			got, err := twin.MergePatch([]byte(args[0]), []byte(args[1]))
			if _, ok := errors.AsType[*twin.Error](err); !ok {
				t.Errorf("MergePatch(%.20q, %.20q) = %s, %v, want an *Error", args[0], args[1], got, err)
			}
		}
	}
}

// The first was told by the service's team (Azure/azure-iot-sdk-csharp issue 954).
func TestReplacement(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"one goes, one stays, one is new", `{"a":1,"b":2}`, `{"a":1,"c":100}`, `{"a":1,"b":null,"c":100}`},
		{"at every depth", `{"a":{"b":{"c":1,"d":2},"e":3},"f":4}`, `{"a":{"b":{"d":2}}}`, `{"a":{"b":{"c":null,"d":2},"e":null},"f":null}`},
		{"the same", `{"a":{"b":[1]},"c":{}}`, `{"a":{"b":[1]},"c":{}}`, `{"a":{"b":[1]},"c":{}}`},
		{"all goes", `{"a":{"b":1},"c":[1]}`, `{}`, `{"a":null,"c":null}`},
		{"nothing goes", ``, ``, `{}`},
		{"an object that empties", `{"a":{"b":1}}`, `{"a":{}}`, `{"a":{"b":null}}`},
		{"an object for a value", `{"a":1,"b":[1]}`, `{"a":{"x":1},"b":{}}`, `{"a":{"x":1},"b":{}}`},
		{"a value for an object", `{"a":{"x":1}}`, `{"a":[{"y":1}]}`, `{"a":[{"y":1}]}`},
		{"a name of an older hub", `{"a#b":1}`, `{"c":1}`, `{"a#b":null,"c":1}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, string(twin.Replacement([]byte(tt.old), []byte(tt.new)))); diff != "" {
				t.Errorf("Replacement(%s, %s) (-want +got):\n%s", tt.old, tt.new, diff)
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

// FuzzMergePatch holds patches to their laws, with maps as the judge.
func FuzzMergePatch(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":{"c":[1,2],"x":{}}}`), []byte(`{"b":{"d":{},"x":{"y":{}}},"e":"x"}`))
	f.Add([]byte(`{"a":{},"b":{"c":1}}`), []byte(`{"a":0,"b":{}}`))
	f.Add([]byte(`{"\u0061":"\ud800","n":1.0}`), []byte(`{"a":"\ufffd","n":1}`))
	f.Add([]byte(`{"a":[{"b":null,"c":1}]}`), []byte(`{"a":[{"c":1,"b":null}]}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var docs [2][]byte
		for i, text := range [][]byte{first, second} {
			// As a twin has it: each name once, no nulls, nothing of the hub's.
			doc, err := twin.StripReadOnly(text)
			if err != nil {
				return
			}
			if docs[i], err = twin.Merge(nil, doc); err != nil {
				return
			}
		}
		before, after := docs[0], docs[1]
		patch, err := twin.MergePatch(before, after)
		if err != nil {
			t.Fatalf("MergePatch(%s, %s): %v", before, after, err)
		}
		got, err := twin.Merge(before, patch)
		if err != nil || !sameJSON(t, after, got) {
			t.Fatalf("%s patched with %s is %s, %v, want %s", before, patch, got, err, after)
		}
		if again, err := twin.Merge(got, patch); err != nil || !bytes.Equal(got, again) {
			t.Fatalf("%s patched with %s is %s, %v", got, patch, again, err)
		}
		if rest, err := twin.MergePatch(got, after); err != nil || string(rest) != "{}" {
			t.Fatalf("%s still differs from %s by %s, %v", got, after, rest, err)
		}
		same := sameJSON(t, before, after)
		if (string(patch) == "{}") != same || (len(twin.Diff(before, after)) == 0) != same {
			t.Fatalf("the patch from %s to %s is %s, the difference %v", before, after, patch, twin.Diff(before, after))
		}
		if told := twin.Replacement(before, after); !sameJSON(t, after, mustMerge(t, before, told)) || !sameJSON(t, after, mustMerge(t, nil, told)) {
			t.Fatalf("%s replaced by %s is told as %s", before, after, told)
		}
		old, now := decodeAny(t, before), decodeAny(t, after)
		for name := range decodeAny(t, patch) {
			a, had := old[name]
			if b, has := now[name]; had == has && cmp.Equal(a, b) {
				t.Fatalf("the patch from %s to %s names %q: %s", before, after, name, patch)
			}
		}
	})
}

func mustMerge(t *testing.T, doc, patch []byte) []byte {
	t.Helper()
	merged, err := twin.Merge(doc, patch)
	if err != nil {
		t.Fatalf("Merge(%s, %s): %v", doc, patch, err)
	}
	return merged
}

// FuzzReconcile holds three-way merges to their laws.
func FuzzReconcile(f *testing.F) {
	f.Add(`{"a":1,"b":{"c":2}}`, `{"a":2,"b":{"c":2}}`, `{"a":1,"b":{"d":[null]}}`)
	f.Add(`{"a":{}}`, `{"a":1}`, `{"a":{"":"x"}}`)
	f.Fuzz(func(t *testing.T, b, m, o string) {
		var docs [3][]byte
		for i, text := range []string{b, m, o} {
			doc, err := twin.StripReadOnly([]byte(text))
			if err != nil {
				return
			}
			if docs[i], err = twin.Merge(nil, doc); err != nil {
				return
			}
		}
		base, mine, theirs := docs[0], docs[1], docs[2]
		same := func(what string, want, got []byte) {
			t.Helper()
			if diff := twin.Diff(want, got); len(diff) > 0 {
				t.Errorf("%s: want %s, got %s", what, want, got)
			}
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
