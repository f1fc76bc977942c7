package rest

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
)

func TestSplitPath(t *testing.T) {
	for raw, want := range map[string][]string{
		"":                        nil,
		"/":                       nil,
		"/devices":                {"devices"},
		"/devices/":               {"devices"},
		"/devices/d1":             {"devices", "d1"},
		"/devices//":              {"devices", ""},
		"/devices/a%2Fb":          {"devices", "a/b"},
		"/devices/a+b":            {"devices", "a+b"},
		"/devices%2Fd1":           {"devices", "d1"},
		"/devices%2fd1%2Fmodules": {"devices", "d1", "modules"},
		"/%2Fdigitaltwins%2Fd1":   {"digitaltwins", "d1"},
		"/devices%2Fa%2523":       {"devices", "a#"},
		"/$iothub/websocket":      {"$iothub", "websocket"},
		"/%24iothub/websocket":    {"$iothub", "websocket"},
		"/devices/100%":           {"devices", "100%"},
		"/devices/a%2541":         {"devices", "a%41"},
		"/devices/a%252Fb":        {"devices", "a%2Fb"},
		"/devices%2Fa%25252Fb":    {"devices", "a%2Fb"},
		"/devices/a;b=c,d":        {"devices", "a;b=c,d"},
		"/devices/%23%3F%3B%3D":   {"devices", "#?;="},
		"/devices/../x":           {"devices", "..", "x"},
		"/devices/%2E%2E":         {"devices", ".."},
	} {
		if diff := cmp.Diff(want, splitPath(raw)); diff != "" {
			t.Errorf("splitPath(%q) (-want +got):\n%s", raw, diff)
		}
	}
}

// Whatever the path, an id that was escaped comes out as it went in.
func FuzzSplitPath(f *testing.F) {
	for _, seed := range []string{"/devices/d1", "/devices%2Fd1/", "/%2F%2f//%", "100%", "a#b?c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		segments := splitPath(s)
		match("GET", segments)
		for _, segment := range segments {
			if len(segment) > len(s) {
				t.Errorf("splitPath(%q) = %q", s, segments)
			}
		}
		if s == "" || strings.Contains(s, "/") {
			return
		}
		want := []string{"devices", s}
		if diff := cmp.Diff(want, splitPath("/devices/"+url.PathEscape(s))); diff != "" {
			t.Errorf("escaped segment (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, splitPath("/"+url.PathEscape("devices/"+url.PathEscape(s)))); diff != "" {
			t.Errorf("escaped path (-want +got):\n%s", diff)
		}
	})
}

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
		m := match(r.method, splitPath("/"+fill.Replace(r.path)))
		if m.route != r {
			t.Errorf("%s /%s goes to %v", r.method, r.path, m.route)
		}
	}
}
