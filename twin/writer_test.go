package twin_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/twin"
)

func TestWriters(t *testing.T) {
	s := mustPatch(t, twin.New(t0), twin.Desired, `{"a":{"x":1,"y":2},"own":3,"gone":4}`, t0)
	const patch = `{"a":{"x":10,"z":[1]},"new":{"deep":{"\u0065":true}},"gone":null,"empty":{}}`
	s = mustPatch(t, s, twin.Desired, patch, t1)
	properties := string(s.Properties)
	s = s.WrittenBy([]byte(patch), func(property []string) (string, string) {
		if path := strings.Join(property, "."); path != "a.z" {
			return "of " + path, "7"
		}
		return "", ""
	})
	const (
		first  = `"$lastUpdated":"2024-05-01T10:00:00Z","$lastUpdatedVersion":2`
		second = `"$lastUpdated":"2024-05-01T10:00:01.5Z","$lastUpdatedVersion":3`
	)
	want := section{properties, `{` + second +
		`,"a":{` + second + `,"x":{` + second + `,"$lastUpdatedBy":"of a.x","$lastUpdatedByDigest":"7"},"y":{` + first + `},"z":{` + second + `}}` +
		`,"own":{` + first + `}` +
		`,"new":{` + second + `,"deep":{` + second + `,"\u0065":{` + second + `,"$lastUpdatedBy":"of new.deep.e","$lastUpdatedByDigest":"7"}}}` +
		`,"empty":{` + second + `}}`, 3}
	if diff := cmp.Diff(want, text(s)); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	// They go with the next change, of this property only.
	s = mustPatch(t, s, twin.Desired, `{"a":{"x":11}}`, t2)
	if strings.Contains(string(s.Metadata), "of a.x") || !strings.Contains(string(s.Metadata), "of new.deep.e") {
		t.Errorf("after a change of a.x the metadata is %s", s.Metadata)
	}
}
