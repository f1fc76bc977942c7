package twin_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/twin"
)

func TestDiff(t *testing.T) {
	type change struct{ Path, Old, New string }
	tests := []struct {
		name, old, new string
		want           []change
	}{
		{"nothing", `{"a":1}`, `{ "a": 1 }`, nil},
		{"a value", `{"a":1,"b":2}`, `{"a":1,"b":3}`, []change{{"b", "2", "3"}}},
		{"removed and new", `{"a":1,"b":2}`, `{"c":3,"b":2,"d":{"e":4}}`, []change{{"a", "1", ""}, {"c", "", "3"}, {"d", "", `{"e":4}`}}},
		{"below", `{"a":{"b":{"c":1,"d":2}},"e":5}`, `{"a":{"b":{"c":6,"f":7}},"e":8}`,
			[]change{{"a.b.c", "1", "6"}, {"a.b.d", "2", ""}, {"a.b.f", "", "7"}, {"e", "5", "8"}}},
		{"another type", `{"a":{"b":1}}`, `{"a":[1]}`, []change{{"a", `{"b":1}`, `[1]`}}},
		{"an array is compared as a whole", `{"a":[1,{"x":1,"y":2}]}`, `{"a":[1,{"y":2,"x":1}]}`, nil},
		{"a longer array", `{"a":[1]}`, `{"a":[1,2]}`, []change{{"a", `[1]`, `[1,2]`}}},
		{"an escape is no change", `{"a":"\u00e9","\u0062":1}`, `{"a":"é","b":1}`, nil},
		{"the version and metadata of the root", `{"$version":1,"a":1}`, `{"$version":2,"$metadata":{},"a":1}`, nil},
		{"nothing before", ``, `{"a":1}`, []change{{"a", "", "1"}}},
		{"no JSON after", `{"a":1}`, `x`, []change{{"a", "1", ""}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []change
			for _, c := range twin.Diff([]byte(tt.old), []byte(tt.new)) {
				got = append(got, change{c.Path, string(c.Old), string(c.New)})
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Diff(%s, %s) (-want +got):\n%s", tt.old, tt.new, diff)
			}
		})
	}
}
