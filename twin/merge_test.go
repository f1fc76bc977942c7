package twin_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/twin"
)

func TestMerge(t *testing.T) {
	tests := []struct{ name, doc, patch, want string }{
		{"new members come last, in the patch's order", `{"b":1,"a":2}`, `{"d":3,"a":4,"c":5}`, `{"b":1,"a":4,"d":3,"c":5}`},
		{"null removes", `{"a":1,"b":2}`, `{"a":null}`, `{"b":2}`},
		{"null for what isn't there", `{"a":1}`, `{"b":null}`, `{"a":1}`},
		{"what follows a removed member stays", `{"a":{"x":1,"y":[2]},"b":3}`, `{"a":{"x":null}}`, `{"a":{"y":[2]},"b":3}`},
		{"what follows a removed first member stays", `{"a":1,"b":{"x":2},"c":3}`, `{"a":null}`, `{"b":{"x":2},"c":3}`},
		{"an empty patch", `{"a":1,"b":{"x":2}}`, `{}`, `{"a":1,"b":{"x":2}}`},
		{"an empty patch of an empty document", `{}`, `{}`, `{}`},
		{"objects merge", `{"a":{"x":1,"y":2}}`, `{"a":{"y":3,"z":4}}`, `{"a":{"x":1,"y":3,"z":4}}`},
		{"removing the last member leaves an empty object", `{"a":{"x":1}}`, `{"a":{"x":null}}`, `{"a":{}}`},
		{"an object of nulls for what isn't there", `{}`, `{"p":{"q":null}}`, `{"p":{}}`},
		{"an object replaces a scalar without its nulls", `{"a":1}`, `{"a":{"x":{"y":null,"z":1},"w":null}}`, `{"a":{"x":{"z":1}}}`},
		{"an object replaces an array", `{"a":[1]}`, `{"a":{"x":1}}`, `{"a":{"x":1}}`},
		{"a scalar replaces an object", `{"a":{"x":1}}`, `{"a":false}`, `{"a":false}`},
		{"arrays never merge", `{"a":[1,2,{"x":1}]}`, `{"a":[{"y":2}]}`, `{"a":[{"y":2}]}`},
		{"the text of numbers and strings stays", `{"a":1.50}`, `{"b":1e3,"c":"\u00e9\/"}`, `{"a":1.50,"b":1e3,"c":"\u00e9\/"}`},
		{"white space goes", " { \"a\" : [ 1 , 2 ] }\n", "\t{ \"b\" : { \"c\" : true } }", `{"a":[1,2],"b":{"c":true}}`},
		{"the last of equal names counts", `{"a":1}`, `{"b":{"x":1},"c":2,"b":{"y":1,"y":2},"\u0061":3,"a":4}`, `{"a":4,"b":{"y":2},"c":2}`},
		{"the last of equal names in an array", `{}`, `{"a":[{"x":1,"x":2},[{"y":{"z":1,"z":2}}]]}`, `{"a":[{"x":2},[{"y":{"z":2}}]]}`},
		{"the last of equal names is null", `{"a":1}`, `{"a":2,"a":null}`, `{}`},
		{"quotes and backslashes in strings", `{"a\"b":"x\\","c":"\\\""}`, `{"a\u0022b":"{"}`, `{"a\"b":"{","c":"\\\""}`},
		{"the version is a member as any other", `{"a":1,"$version":4}`, `{"b":2,"$version":5}`, `{"a":1,"$version":5,"b":2}`},
		{"no document", ``, `{"a":1,"b":null}`, `{"a":1}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := twin.Merge([]byte(tt.doc), []byte(tt.patch))
			if err != nil {
				t.Fatalf("Merge(%s, %s): %v", tt.doc, tt.patch, err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("Merge(%s, %s) (-want +got):\n%s", tt.doc, tt.patch, diff)
			}
			again, err := twin.Merge(got, []byte(tt.patch))
			if err != nil || !bytes.Equal(again, got) {
				t.Errorf("the same patch again gives %s, %v, want %s", again, err, got)
			}
		})
	}
}

// A patch with more members than are compared one by one.
func TestMergeOfManyMembers(t *testing.T) {
	var doc, patch, want []string
	for i := range 200 {
		doc = append(doc, fmt.Sprintf(`"m%d":%d`, i, i))
		switch i % 3 {
		case 0:
			patch = append(patch, fmt.Sprintf(`"m%d":null`, i))
		case 1:
			patch = append(patch, fmt.Sprintf(`"m%d":-%d`, i, i))
			want = append(want, fmt.Sprintf(`"m%d":-%d`, i, i))
		default:
			want = append(want, doc[i])
		}
	}
	object := func(members []string) []byte { return []byte("{" + strings.Join(members, ",") + "}") }
	got, err := twin.Merge(object(doc), object(append(patch, `"m1":"last"`)))
	if err != nil {
		t.Fatal(err)
	}
	want[0] = `"m1":"last"`
	if diff := cmp.Diff(string(object(want)), string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMergeRefuses(t *testing.T) {
	if _, err := twin.Merge(nil, []byte(deep(60))); err != nil {
		t.Errorf("60 levels: %v", err)
	}
	for _, in := range []string{``, `null`, `[]`, `"x"`, `{"a":1`, `{"a":1}{}`, "{\"a\":\"\xff\"}", deep(70), deep(20000)} {
		for _, args := range [][2]string{{`{}`, in}, {in, `{}`}} {
			if args[0] == "" { // no document is an empty one
				continue
			}
			got, err := twin.Merge([]byte(args[0]), []byte(args[1]))
			var e *twin.Error
			if !errors.As(err, &e) {
				t.Errorf("Merge(%.20q, %.20q) = %.20q, %v, want an *Error", args[0], args[1], got, err)
			}
		}
	}
}

func deep(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }

func TestTags(t *testing.T) {
	got, err := twin.MergeTags([]byte(`{"a":1,"b":{"c":2}}`), []byte(`{"b":{"c":null},"d":{"e":null}}`))
	if err != nil || string(got) != `{"a":1,"b":{},"d":{}}` {
		t.Errorf("MergeTags = %s, %v", got, err)
	}
	got, err = twin.ReplaceTags([]byte(` {"a": 1, "b": {}, "a": 2} `))
	if err != nil || string(got) != `{"a":2,"b":{}}` {
		t.Errorf("ReplaceTags = %s, %v", got, err)
	}
	if got, err = twin.MergeTags(nil, []byte(`{"$version":1}`)); err == nil {
		t.Errorf("MergeTags of a $version = %s", got)
	}
}

func TestStripReadOnly(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"nothing to strip", ` {"a": 1 } `, `{"a":1}`},
		{"both, in any place", `{"$metadata":{"a":{}},"a":{"$version":1},"$version":3,"b":null}`, `{"a":{"$version":1},"b":null}`},
		{"only them", `{"$version":3,"\u0024metadata":0}`, `{}`},
		{"other names stay", `{"$other":1}`, `{"$other":1}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := twin.StripReadOnly([]byte(tt.in))
			if err != nil || string(got) != tt.want {
				t.Errorf("StripReadOnly(%s) = %s, %v, want %s", tt.in, got, err, tt.want)
			}
		})
	}
	for _, in := range []string{``, `[]`, `null`, `{`} {
		if got, err := twin.StripReadOnly([]byte(in)); err == nil {
			t.Errorf("StripReadOnly(%.20q) = %s", in, got)
		}
	}
}

// slowMerge is the merge that section 5.2 of the twin article describes, on maps.
func slowMerge(doc any, patch map[string]any) map[string]any {
	old, _ := doc.(map[string]any)
	merged := make(map[string]any)
	for k, v := range old {
		merged[k] = v
	}
	for k, v := range patch {
		if v == nil {
			delete(merged, k)
		} else if object, ok := v.(map[string]any); ok {
			merged[k] = slowMerge(merged[k], object)
		} else {
			merged[k] = v
		}
	}
	return merged
}

// slowMeta is the metadata after slowMerge.
func slowMeta(meta map[string]any, doc any, patch map[string]any, now string) map[string]any {
	old, _ := doc.(map[string]any)
	merged := make(map[string]any)
	if old != nil {
		for k, v := range meta {
			merged[k] = v
		}
	}
	merged["$lastUpdated"] = now
	for k, v := range patch {
		if v == nil {
			delete(merged, k)
		} else if object, ok := v.(map[string]any); ok {
			node, _ := merged[k].(map[string]any)
			merged[k] = slowMeta(node, old[k], object, now)
		} else {
			merged[k] = map[string]any{"$lastUpdated": now}
		}
	}
	return merged
}

func decodeAny(t *testing.T, text []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s is not JSON: %v", text, err)
	}
	return v
}

func FuzzPatch(f *testing.F) {
	f.Add([]byte(`{"a":{"x":1,"y":[1,{"z":2}]},"b":"s"}`), []byte(`{"a":{"x":null,"y":{}},"c":1.5e2}`))
	f.Add([]byte(`{"a":1,"a":{"b":{"c":true}}}`), []byte(`{"a":{"b":{"c":null},"d":{"e":null}}}`))
	f.Add([]byte(`{"é":"\ud83d\ude00","\u00e8":"\\\""}`), []byte(`{"\u00e9":null,"è":[[]]}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		s := twin.New(t0)
		meta := map[string]any{"$lastUpdated": twin.FormatTime(t0)}
		doc := map[string]any{}
		for i, patch := range [][]byte{first, second} {
			now := t0.Add(time.Duration(i+1) * time.Second)
			next, err := s.Patch(twin.Reported, patch, now)
			if err != nil {
				var e *twin.Error
				if !errors.As(err, &e) || e.Message == "" || e.Reason == 0 {
					t.Fatalf("Patch(%s): %#v", patch, err)
				}
				continue
			}
			p := decodeAny(t, patch)
			meta = slowMeta(meta, doc, p, twin.FormatTime(now))
			doc = slowMerge(doc, p)
			if diff := cmp.Diff(doc, decodeAny(t, next.Properties)); diff != "" {
				t.Fatalf("%s patched with %s (-want +got):\n%s", s.Properties, patch, diff)
			}
			if diff := cmp.Diff(meta, decodeAny(t, next.Metadata)); diff != "" {
				t.Fatalf("metadata of %s patched with %s (-want +got):\n%s", s.Properties, patch, diff)
			}
			again, err := next.Patch(twin.Reported, patch, now)
			if err != nil {
				t.Fatalf("Patch(%s) again: %v", patch, err)
			}
			if diff := cmp.Diff(section{string(next.Properties), string(next.Metadata), next.Version + 1}, text(again)); diff != "" {
				t.Fatalf("Patch(%s) again (-want +got):\n%s", patch, diff)
			}
			merged, err := twin.Merge(s.Properties, patch)
			if err != nil || !bytes.Equal(merged, next.Properties) {
				t.Fatalf("Merge(%s, %s) = %s, %v; Patch gave %s", s.Properties, patch, merged, err, next.Properties)
			}
			if changes := twin.Diff(s.Properties, next.Properties); (len(changes) == 0) != sameJSON(t, s.Properties, next.Properties) {
				t.Fatalf("Diff(%s, %s) = %v", s.Properties, next.Properties, changes)
			}
			s = next
		}
		if changes := twin.Diff(s.Properties, s.Properties); changes != nil {
			t.Fatalf("Diff of %s with itself = %v", s.Properties, changes)
		}
	})
}

func sameJSON(t *testing.T, a, b []byte) bool {
	return cmp.Equal(decodeAny(t, a), decodeAny(t, b))
}

// A patch that has null for every member leaves nothing.
func TestNullsRemoveEverything(t *testing.T) {
	s := oneKB(t)
	nulls := make(map[string]any)
	for name := range decodeAny(t, s.Properties) {
		nulls[name] = nil
	}
	patch, err := json.Marshal(nulls)
	if err != nil {
		t.Fatal(err)
	}
	want := section{`{}`, `{"$lastUpdated":"2024-05-01T10:01:00Z"}`, 3}
	if diff := cmp.Diff(want, text(mustPatch(t, s, twin.Reported, string(patch), t2))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
