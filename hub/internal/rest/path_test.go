package rest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/httprequest"
)

func TestParseIfMatch(t *testing.T) {
	for header, want := range map[string]hub.Match{
		"":           {},
		`""`:         {},
		"*":          {Any: true},
		`"*"`:        {Any: true},
		`"MQ=="`:     {ETag: "MQ=="},
		` "MQ==" `:   {ETag: "MQ=="},
		`W/"MQ=="`:   {ETag: "MQ=="},
		"MQ==":       {},
		`"MQ==`:      {},
		`"`:          {},
		`"a", "b"`:   {ETag: `a", "b`},
		`W/`:         {},
		"AAAAAAAAAE": {},
	} {
		if diff := cmp.Diff(want, parseIfMatch(header)); diff != "" {
			t.Errorf("parseIfMatch(%q) (-want +got):\n%s", header, diff)
		}
	}
}

// A condition that a client wrote is never mistaken for "anything goes".
func FuzzParseIfMatch(f *testing.F) {
	for _, seed := range []string{"", "*", "MQ==", "\"", "a\"b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if m := parseIfMatch(s); s == "" && m != (hub.Match{}) {
			t.Errorf("parseIfMatch(%q) = %v", s, m)
		}
		if s == "" || s == "*" {
			return
		}
		if m := parseIfMatch(`"` + s + `"`); m != (hub.Match{ETag: s}) {
			t.Errorf("parseIfMatch(%q) = %v", `"`+s+`"`, m)
		}
	})
}

// Every route can be reached: none hides behind one before it.
func TestNoRouteIsHidden(t *testing.T) {
	fill := strings.NewReplacer("{device}", "some-device", "{module}", "some-module", "{name}", "some-name")
	for i := range routes {
		r := &routes[i]
		m := match(r.method, httprequest.Segments("/"+fill.Replace(r.path)))
		if m.route != r {
			t.Errorf("%s /%s goes to %v", r.method, r.path, m.route)
		}
	}
}
