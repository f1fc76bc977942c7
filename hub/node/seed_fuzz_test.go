package node

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
)

// A seed is refused in the words of its file, or a hub begins with all of it,
// twice the same. One in JSON means what JSON means.
func FuzzSeed(f *testing.F) {
	for _, text := range []string{
		"policies:\n- name: service\n  rights: [ServiceConnect]\n  primaryKey: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\ndevices:\n- deviceId: d1\n  tags: {since: 2026-01-01, n: 1e3}\n  desired: {a: {b: [1, x]}}\n  modules:\n  - moduleId: m\n    tags: {a: 1}\n",
		`{"devices":[{"deviceId":"d1","tags":{"a":{"b":[1,true,"\u00e9\/"]}},"desired":{"n":-0.5,"m":12345678},"status":"disabled","statusReason":"x","iotEdge":true}]}`,
		"devices:\n- deviceId: d1\n  tags: {a: .nan}\n", "devices:\n- deviceId: d1\n  tags: {a: {1: b}}\n", "devices:\n- deviceId: d1\n  tags: &t {a: *t}\n",
		"devices:\n- deviceId: d 1\n", "devices:\n- deviceId: d1\n  primaryThumbprint: aa\n", "policies: [{name: x}]", "devices: {}", "x: 1", "", "\xff", "a: &a [x, x]\nb: [*a, *a]",
		"devices:\n- deviceId: d1\n  desired: {a: !!binary aGk=, b: 0x10, c: 1_000, d: yes, e: 2026-01-01T00:00:00Z, f: ~, g: ''}\n",
		`{"devices":[{"deviceId":"d1","tags":{"a":"\ud83d\ude00"}}]}`,
	} {
		f.Add([]byte(text))
	}
	f.Add([]byte("devices:\n- deviceId: d1\n  tags: n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseSeed(text)
		if err != nil {
			for _, word := range []string{"interface {}", "map[", "json: ", "panic"} {
				if strings.Contains(err.Error(), word) && !strings.Contains(string(text), word) {
					t.Errorf("%q: %v", text, err)
				}
			}
			return
		}
		n, err := New(Options{Seed: s})
		if err != nil {
			t.Fatalf("%q was checked: %v", text, err)
		}
		defer n.Close()
		read := func() (all string) {
			for i, err := range n.Devices() {
				if err != nil {
					t.Fatal(err)
				}
				v, err := n.Twin(i.ID)
				if err != nil {
					t.Fatal(err)
				}
				doc, err := v.MarshalJSON()
				if err != nil {
					t.Fatal(err)
				}
				all += string(doc) + "\n"
			}
			return all
		}
		before := read()
		if err := s.apply(n); err != nil {
			t.Errorf("%q, once more: %v", text, err)
		}
		if diff := cmp.Diff(before, read()); diff != "" {
			t.Errorf("%q, once more (-before +after):\n%s", text, diff)
		}
		var plain struct {
			Devices []struct {
				DeviceID string         `json:"deviceId"`
				Tags     map[string]any `json:"tags"`
			} `json:"devices"`
		}
		if json.Unmarshal(text, &plain) != nil || strings.Count(string(text), `"deviceId"`) != 1 || len(plain.Devices) != 1 {
			return // not JSON, or names that JSON compares more loosely
		}
		v, err := n.Twin(hub.ID{Device: plain.Devices[0].DeviceID})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		doc, err := v.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Tags map[string]any }
		if err := json.Unmarshal(doc, &got); err != nil {
			t.Fatal(err)
		}
		if want := withoutNulls(plain.Devices[0].Tags); len(want)+len(got.Tags) > 0 {
			if diff := cmp.Diff(want, got.Tags); diff != "" {
				t.Errorf("%s: tags (-want +got):\n%s", text, diff)
			}
		}
	})
}

func TestSeedsAreReadAsTheyAreMeant(t *testing.T) {
	for name, tt := range map[string]struct{ text, tags, err string }{
		"JSON as Python writes it": {text: `{"devices":[{"deviceId":"d1","tags":{"a":"\ud83d\ude00 \/"}}]}`, tags: `{"a":"😀 /"}`},
		"a date is a text":         {text: "devices:\n- deviceId: d1\n  tags: {a: 2026-01-01, b: '2026-01-01'}\n", tags: `{"a":"2026-01-01","b":"2026-01-01"}`},
		"no number":                {text: "devices:\n- deviceId: d1\n  tags: {a: .nan}\n", err: "line 3: a value must be what JSON can hold: names that are texts, and finite numbers"},
		"a name that is a number":  {text: "devices:\n- deviceId: d1\n  tags: {a: {1: b}}\n", err: "line 3: a value must be what JSON can hold: names that are texts, and finite numbers"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := ParseSeed([]byte(tt.text))
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("%v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			n, err := New(Options{Seed: s})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			v, err := n.Twin(hub.ID{Device: "d1"})
			if err != nil {
				t.Fatal(err)
			}
			doc, err := v.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			var got struct{ Tags json.RawMessage }
			if err := json.Unmarshal(doc, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.tags, string(got.Tags)); diff != "" {
				t.Errorf("tags (-want +got):\n%s", diff)
			}
		})
	}
}

// The help has every field of a seed.
func TestTheHelpExplainsEveryFieldOfASeed(t *testing.T) {
	text, err := os.ReadFile("../../cli/topics/seed.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var check func(of reflect.Type)
	check = func(of reflect.Type) {
		switch of.Kind() {
		case reflect.Slice:
			check(of.Elem())
		case reflect.Struct:
			for i := range of.NumField() {
				name, _, _ := strings.Cut(of.Field(i).Tag.Get("yaml"), ",")
				if name != "" && !regexp.MustCompile(`\b`+name+`\b`).Match(text) {
					t.Errorf("help seed lacks %s", name)
				}
				check(of.Field(i).Type)
			}
		}
	}
	check(reflect.TypeFor[seedContent]())
}

// withoutNulls is what is left of a patch that was merged into nothing.
func withoutNulls(v map[string]any) map[string]any {
	for name, value := range v {
		switch value := value.(type) {
		case nil:
			delete(v, name)
		case map[string]any:
			withoutNulls(value)
		}
	}
	return v
}

// What a hub has written of its policies and of itself is read as it was, and
// what has become of the files else is an error that names the file.
func FuzzFolderFiles(f *testing.F) {
	key := "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	f.Add([]byte(`[{"name":"service","rights":["ServiceConnect"],"primaryKey":"`+key+`","secondaryKey":"`+key+`"}]`), []byte(`{"running":true,"hostName":"localhost","pid":1}`))
	f.Add([]byte(`[{"name":"a b","rights":[],"primaryKey":"x"}]`), []byte(`[]`))
	f.Add([]byte(`null`), []byte(`{"pid":"x"}`))
	f.Add([]byte(`[null]`), []byte{})
	f.Fuzz(func(t *testing.T, policies, info []byte) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, policiesFile), policies)
		write(t, filepath.Join(dir, infoFile), info)
		list, err := readPolicies(filepath.Join(dir, policiesFile))
		if err != nil && !strings.Contains(err.Error(), policiesFile) {
			t.Errorf("%q: %v", policies, err)
		}
		for _, p := range list {
			if err := p.Validate(); err != nil {
				t.Errorf("%q has %s: %v", policies, p.Name, err)
			}
		}
		if err == nil {
			text, err := json.Marshal(list)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, policiesFile), text)
			again, err := readPolicies(filepath.Join(dir, policiesFile))
			if diff := cmp.Diff(list, again, cmpopts.EquateEmpty()); diff != "" || err != nil {
				t.Errorf("%q as %q: %v (-read +again):\n%s", policies, text, err, diff)
			}
		}
		if _, err := readState(dir); err != nil && !strings.Contains(err.Error(), infoFile) {
			t.Errorf("%q: %v", info, err)
		}
	})
}

func write(t testing.TB, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
