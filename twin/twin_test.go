package twin_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/twin"
)

var (
	t0 = time.Date(2024, 5, 1, 10, 0, 0, 0, time.UTC)
	t1 = t0.Add(1500 * time.Millisecond)
	t2 = t0.Add(time.Minute)
)

// section is a Section as text, easier to read in a diff.
type section struct {
	Properties, Metadata string
	Version              int64
}

func text(s twin.Section) section {
	return section{string(s.Properties), string(s.Metadata), s.Version}
}

func mustPatch(t testing.TB, s twin.Section, kind twin.Kind, patch string, now time.Time) twin.Section {
	t.Helper()
	s, err := s.Patch(kind, []byte(patch), now)
	if err != nil {
		t.Fatalf("Patch(%s): %v", patch, err)
	}
	return s
}

func TestNew(t *testing.T) {
	want := section{`{}`, `{"$lastUpdated":"2024-05-01T10:00:00Z"}`, 1}
	if diff := cmp.Diff(want, text(twin.New(t0))); diff != "" {
		t.Errorf("New (-want +got):\n%s", diff)
	}
	if got, want := string(twin.New(time.Time{}).Service()), `{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00Z"},"$version":1}`; got != want {
		t.Errorf("new module: %s, want %s", got, want)
	}
}

func TestPatchStampsMetadata(t *testing.T) {
	const (
		at0 = `"$lastUpdated":"2024-05-01T10:00:00Z"`
		at1 = `"$lastUpdated":"2024-05-01T10:00:01.5Z"`
		at2 = `"$lastUpdated":"2024-05-01T10:01:00Z"`
	)
	tests := []struct {
		name          string
		kind          twin.Kind
		first, second string // patches at t1 and t2
		want          section
	}{
		{"the untouched keep their stamps", twin.Reported, `{"a":{"x":1,"y":2},"b":3}`, `{"a":{"y":4}}`,
			section{`{"a":{"x":1,"y":4},"b":3}`, `{` + at2 + `,"a":{` + at2 + `,"x":{` + at1 + `},"y":{` + at2 + `}},"b":{` + at1 + `}}`, 3}},
		{"desired properties have versions", twin.Desired, `{"a":{"x":1},"b":3}`, `{"b":4,"c":5}`,
			section{`{"a":{"x":1},"b":4,"c":5}`, `{` + at2 + `,"$lastUpdatedVersion":3,"a":{` + at1 + `,"$lastUpdatedVersion":2,"x":{` + at1 + `,"$lastUpdatedVersion":2}},` +
				`"b":{` + at2 + `,"$lastUpdatedVersion":3},"c":{` + at2 + `,"$lastUpdatedVersion":3}}`, 3}},
		{"a removed member stamps its parent", twin.Reported, `{"a":{"x":1,"y":2}}`, `{"a":{"x":null}}`,
			section{`{"a":{"y":2}}`, `{` + at2 + `,"a":{` + at2 + `,"y":{` + at1 + `}}}`, 3}},
		{"an array is a leaf", twin.Reported, `{"a":[{"x":1}]}`, `{"b":[[2]]}`,
			section{`{"a":[{"x":1}],"b":[[2]]}`, `{` + at2 + `,"a":{` + at1 + `},"b":{` + at2 + `}}`, 3}},
		{"an object that replaces a scalar has nodes for its members", twin.Reported, `{"a":1}`, `{"a":{"x":{"y":2}}}`,
			section{`{"a":{"x":{"y":2}}}`, `{` + at2 + `,"a":{` + at2 + `,"x":{` + at2 + `,"y":{` + at2 + `}}}}`, 3}},
		{"a scalar that replaces an object is a leaf", twin.Reported, `{"a":{"x":1}}`, `{"a":2}`,
			section{`{"a":2}`, `{` + at2 + `,"a":{` + at2 + `}}`, 3}},
		{"a value written again counts as written", twin.Reported, `{"a":1}`, `{"a":1}`,
			section{`{"a":1}`, `{` + at2 + `,"a":{` + at2 + `}}`, 3}},
		{"an empty reported patch is a change", twin.Reported, `{"a":1}`, `{}`,
			section{`{"a":1}`, `{` + at2 + `,"a":{` + at1 + `}}`, 3}},
		{"an empty desired patch is none", twin.Desired, `{"a":1}`, ` { } `,
			section{`{"a":1}`, `{` + at1 + `,"$lastUpdatedVersion":2,"a":{` + at1 + `,"$lastUpdatedVersion":2}}`, 2}},
		{"what desired patches carry of metadata is ignored", twin.Desired, `{}`, `{"$version":7,"a":1,"$metadata":{"a":{}}}`,
			section{`{"a":1}`, `{` + at2 + `,"$lastUpdatedVersion":2,"a":{` + at2 + `,"$lastUpdatedVersion":2}}`, 2}},
		{"names are compared decoded and stay as they are", twin.Reported, `{"a\u0062":1,"é":2}`, `{"ab":3,"\u00e9":4}`,
			section{`{"a\u0062":3,"é":4}`, `{` + at2 + `,"a\u0062":{` + at2 + `},"é":{` + at2 + `}}`, 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := mustPatch(t, twin.New(t0), tt.kind, tt.first, t1)
			s = mustPatch(t, s, tt.kind, tt.second, t2)
			if diff := cmp.Diff(tt.want, text(s)); diff != "" {
				t.Errorf("%s and then %s (-want +got):\n%s", tt.first, tt.second, diff)
			}
		})
	}
}

func TestReplace(t *testing.T) {
	s := mustPatch(t, twin.New(t0), twin.Desired, `{"a":1,"b":{"c":2}}`, t1)
	got, err := s.Replace(twin.Desired, []byte(`{"b":{},"$version":9}`), t2)
	if err != nil {
		t.Fatal(err)
	}
	const at2 = `"$lastUpdated":"2024-05-01T10:01:00Z","$lastUpdatedVersion":3`
	want := section{`{"b":{}}`, `{` + at2 + `,"b":{` + at2 + `}}`, 3}
	if diff := cmp.Diff(want, text(got)); diff != "" {
		t.Errorf("Replace (-want +got):\n%s", diff)
	}
	got, err = s.Replace(twin.Desired, []byte(`{}`), t2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(section{`{}`, `{` + at2 + `}`, 3}, text(got)); diff != "" {
		t.Errorf("Replace with nothing (-want +got):\n%s", diff)
	}
}

func TestViews(t *testing.T) {
	s := mustPatch(t, twin.New(t0), twin.Reported, `{"a":1}`, t1)
	tests := []struct {
		name      string
		got, want string
	}{
		{"the service sees metadata", string(s.Service()), `{"a":1,"$metadata":{"$lastUpdated":"2024-05-01T10:00:01.5Z","a":{"$lastUpdated":"2024-05-01T10:00:01.5Z"}},"$version":2}`},
		{"the device sees none", string(s.Device()), `{"a":1,"$version":2}`},
		{"a new section has only its version for the device", string(twin.New(t0).Device()), `{"$version":1}`},
		{"the zero section", string(twin.Section{}.Service()), `{"$metadata":{},"$version":0}`},
		{"a version after a patch with white space", string(twin.WithVersion([]byte("{ \"a\": null }\n"), 8)), `{ "a": null,"$version":8}`},
		{"a version alone", string(twin.WithVersion([]byte("{ }"), 8)), `{"$version":8}`},
		{"a version of nothing", string(twin.WithVersion(nil, 8)), `{"$version":8}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !json.Valid([]byte(tt.got)) {
				t.Errorf("%s is not JSON", tt.got)
			}
		})
	}
}

func TestPatchLeavesItsReceiver(t *testing.T) {
	s := mustPatch(t, twin.New(t0), twin.Reported, `{"a":{"x":1},"b":2}`, t1)
	before := text(s)
	mustPatch(t, s, twin.Reported, `{"a":{"x":null},"b":3,"c":4}`, t2)
	if _, err := s.Patch(twin.Reported, []byte(`{"b":5,"c":[null]}`), t2); err == nil {
		t.Error("a patch with a null in an array was accepted")
	}
	if diff := cmp.Diff(before, text(s)); diff != "" {
		t.Errorf("after two patches the first section is (-want +got):\n%s", diff)
	}
}

func TestStoredWhiteSpaceDoesNoHarm(t *testing.T) {
	s := twin.Section{Properties: []byte(" { \"a\" : 1 , \"b\" : { } } "), Metadata: []byte("{ }\n")}
	s = mustPatch(t, s, twin.Reported, `{"a":null,"b":{"c":2}}`, t1)
	s = mustPatch(t, s, twin.Reported, `{"d":3}`, t2)
	if diff := cmp.Diff(`{"b":{"c":2},"d":3,"$version":2}`, string(s.Device())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !json.Valid(s.Metadata) {
		t.Errorf("metadata %s", s.Metadata)
	}
}

// A section that was cut off in the store is not built upon.
func TestDamagedSectionIsAnError(t *testing.T) {
	for _, stored := range []string{`{`, `{"a"`, `{"a":`, `{"a":1`, `{"a"}`, `{"a":}`, `[1]`, `{1:2}`, `{"a":"x}`} {
		for _, s := range []twin.Section{{Properties: []byte(stored)}, {Properties: []byte(`{"a":1}`), Metadata: []byte(stored)}} {
			if got, err := s.Patch(twin.Reported, []byte(`{"a":{"c":1}}`), t0); err == nil {
				t.Errorf("a patch of %+v gave %+v", text(s), text(got))
			}
		}
	}
}

func TestFormatTime(t *testing.T) {
	tests := []struct {
		in   time.Time
		want string
	}{
		{time.Time{}, "0001-01-01T00:00:00Z"},
		{t0, "2024-05-01T10:00:00Z"},
		{t0.Add(123456789), "2024-05-01T10:00:00.1234567Z"},
		{t0.Add(785061000).In(time.FixedZone("", 7200)), "2024-05-01T10:00:00.785061Z"},
		{t0.Add(99), "2024-05-01T10:00:00Z"},
	}
	for _, tt := range tests {
		if got := twin.FormatTime(tt.in); got != tt.want {
			t.Errorf("FormatTime(%v) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

// oneKB is a reported section of about 1 KB, as a small gateway has it.
func oneKB(t testing.TB) twin.Section {
	t.Helper()
	var b strings.Builder
	b.WriteString(`{"firmware":{"version":"1.4.2","pending":null,"source":"https://example.com/fw/1.4.2.bin"}`)
	for i := range 24 {
		fmt.Fprintf(&b, `,"sensor%02d":{"unit":"C","value":%d.5}`, i, i)
	}
	b.WriteString(`,"rebootTime":"2024-05-01T10:00:00Z"}`)
	return mustPatch(t, twin.New(t0), twin.Reported, b.String(), t1)
}

func BenchmarkPatch(b *testing.B) {
	s := oneKB(b)
	for _, bb := range []struct{ name, patch string }{
		{"one of a 1 KB twin", `{"rebootTime":"2024-05-02T10:00:00Z"}`},
		{"three nested of a 1 KB twin", `{"sensor01":{"value":7.25},"sensor20":{"value":-3},"firmware":{"version":"1.5.0"}}`},
		{"no change of a 1 KB twin", `{}`},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(s.Properties)))
			patch := []byte(bb.patch)
			for b.Loop() {
				if _, err := s.Patch(twin.Reported, patch, t2); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMergePatch(b *testing.B) {
	old := oneKB(b)
	for _, bb := range []struct{ name, patch string }{
		{"the same 1 KB", `{}`},
		{"three nested of 1 KB", `{"sensor01":{"value":7.25},"sensor20":{"value":null},"firmware":{"size":1}}`},
	} {
		b.Run(bb.name, func(b *testing.B) {
			now := mustPatch(b, old, twin.Reported, bb.patch, t2)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := twin.MergePatch(old.Properties, now.Properties); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkValid is the yardstick: only checking that the same section is JSON.
func BenchmarkValid(b *testing.B) {
	s := oneKB(b)
	b.ReportAllocs()
	for b.Loop() {
		if !json.Valid(s.Properties) || !json.Valid(s.Metadata) {
			b.Fatal("not JSON")
		}
	}
}

func BenchmarkViews(b *testing.B) {
	s := oneKB(b)
	b.Run("Service", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Service()
		}
	})
	b.Run("Device", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Device()
		}
	})
}
