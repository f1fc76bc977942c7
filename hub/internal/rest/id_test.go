package rest_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// What may be an id, in paths as clients escape them. Ids of configurations have
// other characters than those of devices, modules and jobs.
func TestIDsInPaths(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Want(t, 200, "")
	collections := map[string]string{
		"/devices/":              `{}`,
		"/devices/dev1/modules/": `{}`,
		"/jobs/v2/":              `{"type":"scheduleUpdateTwin","updateTwin":{"etag":"*","tags":{"a":1}},"queryCondition":"deviceId = 'dev1'","startTime":"2026-03-14T10:00:00Z","maxExecutionTimeInSeconds":60}`,
		"/configurations/":       `{"content":{"deviceContent":{"properties.desired.a":1}},"targetCondition":"tags.a = 1","priority":1}`,
	}
	const all, named, configured = "devices jobs configurations", "devices jobs", "configurations"
	for id, legal := range map[string]string{
		"a": all, "0": all, "-": all, "a-:.+%_#*?!(),=@;$'z": all, "%": all, "%2f": all, "+": all, "#": all, "?": all, ";": all, "100%": all,
		strings.Repeat("x", 128): all,
		"A":                      named, "%2F": named,
		"a~b": configured, "a`b": configured,
		"a b": "", "a&b": "", "a^b": "", "a[b": "", "a]b": "", "a{b": "", "a|b": "", `a\b`: "", `a"b`: "", "a<b": "", "ä": "", "a\xff": "", "a\n": "", "a\x00": "",
		strings.Repeat("x", 129): "",
	} {
		for collection, body := range collections {
			put, get := 400, 404
			if first, _, _ := strings.Cut(collection[1:], "/"); strings.Contains(legal, first) {
				put, get = 200, 200
			}
			path := collection + url.PathEscape(id)
			if a := h.Do(wiretest.Call{Method: "PUT", Path: path, Body: body}); a.Status != put {
				t.Errorf("PUT %s is %d %s, want %d", path, a.Status, a.Body, put)
			}
			if a := h.Do(wiretest.Call{Method: "GET", Path: path}); a.Status != get {
				t.Errorf("GET %s is %d %s, want %d", path, a.Status, a.Body, get)
			}
		}
	}
}
