package twin_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/twin"
)

// nested returns a document whose value is n levels deep.
func nested(n int, open, value, end string) string {
	return `{"a":` + strings.Repeat(open, n) + value + strings.Repeat(end, n) + `}`
}

func TestPatchAccepts(t *testing.T) {
	tests := []struct{ name, patch string }{
		{"ten levels of objects with a property inside", nested(10, `{"a":`, `1`, `}`)},
		{"ten levels of arrays", nested(10, `[`, `1`, `]`)},
		{"the smallest and the largest integer", `{"a":-4503599627370496,"b":4503599627370495}`},
		{"a large number with a fraction", `{"a":4503599627370496.0,"b":1e300}`},
		{"the longest string", `{"a":"` + strings.Repeat("x", 4096) + `"}`},
		{"the longest string in escapes", `{"a":"` + strings.Repeat(`\u0041`, 4096) + `"}`},
		{"the longest name", `{"` + strings.Repeat("x", 1024) + `":1}`},
		{"names with punctuation and letters of any script", `{"a+b-c/d[]{}\"":1,"ключ":2,"\u00e9":3}`},
		{"a hash in a name that an older hub has stored and that goes", `{"a#b":null,"a":{"#":null}}`},
		{"every type", `{"a":true,"b":1,"c":"","d":{},"e":[],"f":null}`},
		{"an empty array in an array", `{"a":[[],{}]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mustPatch(t, twin.New(t0), twin.Reported, tt.patch, t1)
		})
	}
}

func TestPatchRefuses(t *testing.T) {
	const (
		null    = "Value of Property or Tag cannot be null. Error in Property/Tag "
		chars   = "Property or Tag name has invalid characters. Error in Property/Tag "
		allowed = ". Must not contain Control Characters, '.', '$', '#', or ' '."
		length  = "Property or Tag name should be 1 to 1024 bytes. Error in Property/Tag "
		text    = "Property or Tag value should be maximum 4096 bytes. Error in Property/Tag "
		integer = "Property or Tag value should be an integer from -4503599627370496 to 4503599627370495. Error in Property/Tag "
		double  = "Property or Tag value should be a number of double precision. Error in Property/Tag "
		depth   = "Property or Tag should be nested at most 10 levels deep. Error in Property/Tag "
		json    = "The document is not valid JSON: "
		object  = "The document is not a JSON object."
	)
	long := strings.Repeat("x", 64) + "..."
	tests := []struct {
		name, patch string
		want        twin.Error
	}{
		{"null in an array", `{"a":[1,null]}`, twin.Error{Reason: twin.Invalid, Path: "a[1]", Message: null + "a (a[1])"}},
		// The message up to "b" was recorded from IoT Hub.
		{"null in an object in an array", `{"a":[{"b":null}]}`, twin.Error{Reason: twin.Invalid, Path: "a[0].b", Message: null + "b (a[0].b)"}},
		{"null further down in an array", `{"x":{"a":[[{"b":{"c":null}}]]}}`, twin.Error{Reason: twin.Invalid, Path: "x.a[0][0].b.c", Message: null + "c (x.a[0][0].b.c)"}},
		{"a dot in a name", `{"a":{"b.c":1}}`, twin.Error{Reason: twin.Invalid, Path: "a.b.c", Message: chars + "b.c" + allowed + " (a.b.c)"}},
		{"a dollar in a name", `{"b$":1}`, twin.Error{Reason: twin.Invalid, Path: "b$", Message: chars + "b$" + allowed}},
		// The message was recorded from IoT Hub.
		{"a hash in a name", `{"m2(<#a":1}`, twin.Error{Reason: twin.Invalid, Path: "m2(<#a", Message: chars + "m2(<#a" + allowed}},
		{"a hash in a name with an object", `{"b":{"#":{"c":null}}}`, twin.Error{Reason: twin.Invalid, Path: "b.#", Message: chars + "#" + allowed + " (b.#)"}},
		{"a hash in a name in an array", `{"b":[{"#":1}]}`, twin.Error{Reason: twin.Invalid, Path: "b[0].#", Message: chars + "#" + allowed + " (b[0].#)"}},
		{"a space in a name", `{"b c":1}`, twin.Error{Reason: twin.Invalid, Path: "b c", Message: chars + "b c" + allowed}},
		{"an escaped control character in a name", `{"b\u0007":1}`, twin.Error{Reason: twin.Invalid, Path: "b\a", Message: chars + "b\a" + allowed}},
		{"a delete character in a name", "{\"b\x7f\":1}", twin.Error{Reason: twin.Invalid, Path: "b\x7f", Message: chars + "b\x7f" + allowed}},
		{"a C1 control character in a name", "{\"b\u0085\":1}", twin.Error{Reason: twin.Invalid, Path: "b\u0085", Message: chars + "b\u0085" + allowed}},
		{"a bad name in an array", `{"a":[{"$b":1}]}`, twin.Error{Reason: twin.Invalid, Path: "a[0].$b", Message: chars + "$b" + allowed + " (a[0].$b)"}},
		{"a bad name with null", `{"$b":null}`, twin.Error{Reason: twin.Invalid, Path: "$b", Message: chars + "$b" + allowed}},
		{"$version from a device", `{"$version":1}`, twin.Error{Reason: twin.Invalid, Path: "$version", Message: chars + "$version" + allowed}},
		{"$metadata from a device", `{"a":1,"$metadata":{}}`, twin.Error{Reason: twin.Invalid, Path: "$metadata", Message: chars + "$metadata" + allowed}},
		{"an empty name", `{"a":{"":1}}`, twin.Error{Reason: twin.Invalid, Path: `a.""`, Message: length + `"" (a."")`}},
		{"a name that is too long", `{"a":{"` + strings.Repeat("x", 1025) + `":1}}`, twin.Error{Reason: twin.Invalid, Path: "a." + long, Message: length + long + " (a." + long + ")"}},
		{"a string that is too long", `{"a":{"b":"` + strings.Repeat("x", 4097) + `"}}`, twin.Error{Reason: twin.Invalid, Path: "a.b", Message: text + "b (a.b)"}},
		{"a string of wide characters that is too long", `{"b":"` + strings.Repeat("é", 2049) + `"}`, twin.Error{Reason: twin.Invalid, Path: "b", Message: text + "b"}},
		{"an integer that is too large", `{"b":4503599627370496}`, twin.Error{Reason: twin.Invalid, Path: "b", Message: integer + "b"}},
		{"an integer that is too small", `{"b":[-4503599627370497]}`, twin.Error{Reason: twin.Invalid, Path: "b[0]", Message: integer + "b (b[0])"}},
		{"an integer of many digits", `{"b":123456789012345678901234567890}`, twin.Error{Reason: twin.Invalid, Path: "b", Message: integer + "b"}},
		{"a number beyond double precision", `{"b":1e999}`, twin.Error{Reason: twin.Invalid, Path: "b", Message: double + "b"}},
		{"a number of too many digits", `{"b":0.` + strings.Repeat("1", 200) + `}`, twin.Error{Reason: twin.Invalid, Path: "b",
			Message: "Property or Tag value should be a number of maximum 128 characters. Error in Property/Tag b"}},
		{"eleven levels of objects", nested(11, `{"a":`, `1`, `}`), twin.Error{Reason: twin.Invalid,
			Path: "a.a.a.a.a.a.a.a.a.a.a", Message: depth + "a (a.a.a.a.a.a.a.a.a.a.a)"}},
		{"eleven levels of arrays", nested(11, `[`, ``, `]`), twin.Error{Reason: twin.Invalid,
			Path: "a[0][0][0][0][0][0][0][0][0][0]", Message: depth + "a (a[0][0][0][0][0][0][0][0][0][0])"}},
		{"cut JSON", `{"a":1`, twin.Error{Reason: twin.Malformed, Message: json + "unexpected end of JSON input"}},
		{"no text", ``, twin.Error{Reason: twin.Malformed, Message: json + "unexpected end of JSON input"}},
		{"text that isn't UTF-8", "{\"a\":\"\xff\"}", twin.Error{Reason: twin.Malformed, Message: json + "its text is not UTF-8"}},
		{"an array", `[]`, twin.Error{Reason: twin.Invalid, Message: object}},
		{"a string", `"x"`, twin.Error{Reason: twin.Invalid, Message: object}},
		{"null", `null`, twin.Error{Reason: twin.Invalid, Message: object}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := twin.New(t0)
			_, err := s.Patch(twin.Reported, []byte(tt.patch), t1)
			var e *twin.Error
			if !errors.As(err, &e) {
				t.Fatalf("Patch(%.99s): %v, want an *Error", tt.patch, err)
			}
			if diff := cmp.Diff(&tt.want, e); diff != "" {
				t.Errorf("error of Patch(%.99s) (-want +got):\n%s", tt.patch, diff)
			}
			if _, err := s.Replace(twin.Reported, []byte(tt.patch), t1); err == nil {
				t.Errorf("Replace(%.99s) was accepted", tt.patch)
			}
			if _, err := twin.MergeTags(nil, []byte(tt.patch)); err == nil {
				t.Errorf("MergeTags(%.99s) was accepted", tt.patch)
			}
			if _, err := twin.ReplaceTags([]byte(tt.patch)); err == nil {
				t.Errorf("ReplaceTags(%.99s) was accepted", tt.patch)
			}
		})
	}
}

// What replaces a section removes nothing: null has no meaning in it, whatever the depth.
func TestReplaceRefusesNull(t *testing.T) {
	const null = "Value of Property or Tag cannot be null. Error in Property/Tag "
	tests := []struct {
		name, doc string
		want      twin.Error
	}{
		// The message was recorded from IoT Hub.
		{"at the root", `{"a":1,"my-tag":null}`, twin.Error{Reason: twin.Invalid, Path: "my-tag", Message: null + "my-tag"}},
		{"in an object", `{"a":{"b":{"c":null}}}`, twin.Error{Reason: twin.Invalid, Path: "a.b.c", Message: null + "c (a.b.c)"}},
		{"in an array", `{"a":[{"b":null}]}`, twin.Error{Reason: twin.Invalid, Path: "a[0].b", Message: null + "b (a[0].b)"}},
		{"with a name that could only be removed", `{"a#b":null}`, twin.Error{Reason: twin.Invalid, Path: "a#b",
			Message: "Property or Tag name has invalid characters. Error in Property/Tag a#b. Must not contain Control Characters, '.', '$', '#', or ' '."}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, desired := twin.New(t0).Replace(twin.Desired, []byte(tt.doc), t1)
			_, tags := twin.ReplaceTags([]byte(tt.doc))
			for _, err := range []error{desired, tags} {
				e, _ := errors.AsType[*twin.Error](err)
				if diff := cmp.Diff(&tt.want, e); diff != "" {
					t.Errorf("%s (-want +got):\n%s", tt.doc, diff)
				}
			}
		})
	}
}

// Services may send back $metadata and $version, but nowhere else than at the root.
func TestDesiredPatchRefusesOtherDollars(t *testing.T) {
	for _, patch := range []string{`{"$etag":1}`, `{"a":{"$version":1}}`, `{"a":[{"$metadata":1}]}`} {
		if got, err := twin.New(t0).Patch(twin.Desired, []byte(patch), t1); err == nil {
			t.Errorf("Patch(%s) = %s", patch, got.Properties)
		}
	}
}

// strings64 returns n members with values of 64 bytes together: 4 for the name, 60 for the value.
func strings64(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%04d":"%s"`, i, strings.Repeat("x", 60))
	}
	return "{" + b.String()[1:] + "}"
}

func TestSizeLimit(t *testing.T) {
	tests := []struct {
		kind    twin.Kind
		fits    int // members of 64 bytes that fit
		message string
	}{
		{twin.Desired, 512, "'Properties.Desired' size should be less than 32768 bytes."},
		{twin.Reported, 512, "'Properties.Reported' size should be less than 32768 bytes."},
		{twin.Tags, 128, "'Tags' size should be less than 8192 bytes."},
	}
	for _, tt := range tests {
		t.Run(tt.message, func(t *testing.T) {
			full := mustPatch(t, twin.New(t0), tt.kind, strings64(tt.fits), t1)
			want := &twin.Error{Reason: twin.TooLarge, Message: tt.message}
			for _, patch := range []string{`{"x":true}`, `{"x":1}`, `{"x":"1"}`, `{"x":[1]}`, `{"x":{}}`, `{"0000":{"x":"` + strings.Repeat("x", 60) + `"}}`} {
				_, err := full.Patch(tt.kind, []byte(patch), t2)
				var e *twin.Error
				errors.As(err, &e)
				if diff := cmp.Diff(want, e); diff != "" {
					t.Errorf("%s more than fits (-want +got):\n%s", patch, diff)
				}
			}
			if _, err := full.Replace(tt.kind, []byte(strings64(tt.fits+1)), t2); err == nil {
				t.Error("Replace with one more than fits was accepted")
			}
			for _, patch := range []string{`{"0000":"y"}`, `{"0000":null,"0":1}`, `{}`, `{"0001":"\u0007\u0007` + strings.Repeat("y", 60) + `"}`} {
				mustPatch(t, full, tt.kind, patch, t2)
			}
		})
	}
}

// A section that was stored when the limit was another may shrink and change, not grow.
func TestTooLargeSectionMayShrink(t *testing.T) {
	s := twin.Section{Properties: []byte(strings64(600))}
	for _, patch := range []string{`{"0000":null}`, `{"0000":"short"}`, `{"0000":"` + strings.Repeat("y", 60) + `"}`} {
		mustPatch(t, s, twin.Reported, patch, t1)
	}
	if _, err := s.Patch(twin.Reported, []byte(`{"x":1}`), t1); err == nil {
		t.Error("it grew")
	}
}

// Text that the size doesn't count is bounded too.
func TestUncountedTextIsBounded(t *testing.T) {
	for name, patch := range map[string]string{
		"empty arrays":       `{"a":[` + strings.Repeat(`[],`, 100_000) + `[]]}`,
		"control characters": `{"a":["` + strings.Repeat(strings.Repeat(`\u0007`, 4000)+`","`, 20) + `"]}`,
	} {
		_, err := twin.New(t0).Patch(twin.Reported, []byte(patch), t1)
		var e *twin.Error
		if !errors.As(err, &e) || e.Reason != twin.TooLarge {
			t.Errorf("%s: %v, want too large", name, err)
		}
	}
}

// A change with more members than any section can have is refused before anything is made of it,
// even if it only removes.
func TestAChangeHasNoMoreMembersThanASectionCan(t *testing.T) {
	patch := func(n int) []byte {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"%x":null`, i)
		}
		return []byte("{" + b.String()[1:] + "}")
	}
	for kind, most := range map[twin.Kind]int{twin.Desired: 32 << 10, twin.Reported: 32 << 10} {
		if _, err := twin.New(time.Time{}).Patch(kind, patch(most), time.Time{}); err != nil {
			t.Errorf("kind %d: %d members: %v", kind, most, err)
		}
		_, err := twin.New(time.Time{}).Patch(kind, patch(most+1), time.Time{})
		if e, ok := errors.AsType[*twin.Error](err); !ok || e.Reason != twin.TooLarge {
			t.Errorf("kind %d: %d members: %v, want too large", kind, most+1, err)
		}
	}
}
