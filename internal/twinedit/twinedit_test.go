package twinedit

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/twin"
)

// document parses what is right.
func document(t *testing.T, text string) Document {
	t.Helper()
	d, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOfATwin(t *testing.T) {
	var full hubrest.Twin
	text := `{"deviceId":"d","tags":{"site":"A"},"properties":{"desired":{"a":1.10,"$metadata":{},"$version":3},"reported":{"$version":1}}}`
	if err := json.Unmarshal([]byte(text), &full); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		twin hubrest.Twin
		want string
	}{
		{"of a device", full, `{"tags":{"site":"A"},"desired":{"a":1.10}}`},
		{"with nothing in it", hubrest.Twin{}, `{"tags":{},"desired":{}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Of(tt.twin).JSON()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("Of (-want +got):\n%s", diff)
			}
			if again := document(t, string(got)); !cmp.Equal(again, Of(tt.twin)) {
				t.Errorf("%s is read as %s, %s", got, again.Tags, again.Desired)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                                     "the document has to consist of tags and desired",
		`null`:                                   "the document has to consist of tags and desired",
		`{"tags":{}}`:                            `desired is missing; write "desired: {}" to remove all of it`,
		`{"tags":[1],"desired":{}}`:              "tags is not an object",
		`{"tags":{},"desired":{},"reported":{}}`: `"reported" is neither tags nor desired; only these can be changed`,
	} {
		if _, err := Parse([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("Parse(%s): %v, want %q", text, err, want)
		}
	}
}

func TestTwoWriters(t *testing.T) {
	base := document(t, `{"tags":{"site":"A"},"desired":{"a":1,"b":{"c":1,"d":1}}}`)
	mine := document(t, `{"tags":{"site":"B"},"desired":{"a":1,"b":{"c":2,"d":1}}}`)
	theirs := document(t, `{"tags":{"site":"C"},"desired":{"a":2,"b":{"c":1}}}`)

	change, err := Patch(base, mine)
	if err != nil {
		t.Fatal(err)
	}
	want := hubrest.TwinChange{Tags: json.RawMessage(`{"site":"B"}`), Desired: json.RawMessage(`{"b":{"c":2}}`)}
	if diff := cmp.Diff(want, change); diff != "" {
		t.Errorf("Patch (-want +got):\n%s", diff)
	}
	if none, err := Patch(base, base); err != nil || none != (hubrest.TwinChange{}) {
		t.Errorf("Patch to the same: %+v, %v", none, err)
	}

	merged, conflicts := Reconcile(base, mine, theirs)
	if diff := cmp.Diff(document(t, `{"tags":{"site":"B"},"desired":{"a":2,"b":{"c":2}}}`), merged); diff != "" {
		t.Errorf("Reconcile (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]twin.Conflict{{Path: "tags.site", Base: json.RawMessage(`"A"`), Mine: json.RawMessage(`"B"`), Theirs: json.RawMessage(`"C"`)}}, conflicts); diff != "" {
		t.Errorf("conflicts (-want +got):\n%s", diff)
	}

	var paths []string
	for _, c := range Diff(base, theirs) {
		paths = append(paths, c.Path)
	}
	if diff := cmp.Diff([]string{"tags.site", "desired.a", "desired.b.d"}, paths); diff != "" {
		t.Errorf("Diff (-want +got):\n%s", diff)
	}
}
