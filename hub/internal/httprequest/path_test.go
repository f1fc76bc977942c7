package httprequest

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSegments(t *testing.T) {
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
		if diff := cmp.Diff(want, Segments(raw)); diff != "" {
			t.Errorf("Segments(%q) (-want +got):\n%s", raw, diff)
		}
	}
}

// Whatever the path, an id that was escaped comes out as it went in.
func FuzzSegments(f *testing.F) {
	for _, seed := range []string{"/devices/d1", "/devices%2Fd1/", "/%2F%2f//%", "100%", "a#b?c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		segments := Segments(s)
		for _, segment := range segments {
			if len(segment) > len(s) {
				t.Errorf("Segments(%q) = %q", s, segments)
			}
		}
		if s == "" || strings.Contains(s, "/") {
			return
		}
		want := []string{"devices", s}
		if diff := cmp.Diff(want, Segments("/devices/"+url.PathEscape(s))); diff != "" {
			t.Errorf("escaped segment (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, Segments("/"+url.PathEscape("devices/"+url.PathEscape(s)))); diff != "" {
			t.Errorf("escaped path (-want +got):\n%s", diff)
		}
	})
}
