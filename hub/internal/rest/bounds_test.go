package rest_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// many repeats a value of JSON, with commas between, up to n bytes.
func many(value string, n int) string {
	return strings.TrimSuffix(strings.Repeat(value+",", n/(len(value)+1)), ",")
}

// members is members of JSON up to n bytes, each with a name of its own.
func members(format string, n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, format, fmt.Sprintf("%x", i))
	}
	return b.String()
}

// Whatever a body of the largest size holds, the hub makes no more of it than a
// few times its size.
func TestABodyBecomesNoMoreThanAFewTimesItsSize(t *testing.T) {
	const (
		bulk  = 6 << 20
		usual = 1<<20 - 200
		batch = 500 << 10
		job   = 150 << 10
		// Both sides are in this process, and so is the store.
		times, more = 12, 8 << 20
	)
	h := wiretest.StartREST(t, node.Options{})
	device := h.Device("dev1")
	ownToken := wiretest.Sign(t, "localhost/devices/dev1", "", device.SharedAccessKey, h.Now().Add(time.Hour))
	config := func(content string) string { return `{"id":"c1","content":{` + content + `}}` }
	desired := func(text string) string { return `{"properties":{"desired":{` + text + `}}}` }
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
		want               string // in the answer
	}{
		"bulk entries without anything": {"POST", "/devices", "[" + many("{}", bulk) + "]", 400, "a list in the body has more than 100 entries"},
		"bulk entries that are null":    {"POST", "/devices", "[" + many("null", bulk) + "]", 400, "a list in the body has more than 100 entries"},
		"bulk parent scopes":            {"POST", "/devices", `[{"id":"a","parentScopes":[` + many(`""`, bulk) + "]}]", 400, "a list in the body has more than 100 entries"},
		"bulk tags":                     {"POST", "/devices", `[{"id":"a","tags":{` + members(`"%s":1`, bulk) + "}}]", 400, "'Tags' size should be less than 8192 bytes."},
		"bulk tags of one name":         {"POST", "/devices", `[{"id":"a","tags":{` + many(`"a":1`, bulk) + "}}]", 400, "'Tags' size should be less than 8192 bytes."},
		"bulk reported":                 {"POST", "/devices", `[{"id":"a","properties":{"reported":{` + members(`"%s":1`, bulk) + "}}}]", 400, "'Properties.Reported' size should be less than 32768 bytes."},
		"bulk members nobody knows":     {"POST", "/devices", "[{" + members(`"%s":1`, bulk) + "}]", 400, "every entry needs an id"},
		"bulk depth":                    {"POST", "/devices", strings.Repeat("[", bulk), 400, "exceeded max depth"},
		"bulk depth nobody looks at":    {"POST", "/devices", `[{"a":` + strings.Repeat(`{"a":`, bulk/6), 400, "exceeded max depth"},
		"parent scopes":                 {"PUT", "/devices/dev2", `{"deviceId":"dev2","parentScopes":[` + many(`""`, usual) + "]}", 400, "a list in the body has more than 100 entries"},
		"keys":                          {"POST", "/devices/keys/regenerate", `{"policyKey":"both","devices":[` + many("{}", usual) + "]}", 400, "a list in the body has more than 100 entries"},
		"tags":                          {"PATCH", "/twins/dev1", `{"tags":{` + members(`"%s":1`, usual) + "}}", 403, "'Tags' size should be less than 8192 bytes."},
		"tags to remove":                {"PATCH", "/twins/dev1", `{"tags":{` + members(`"%s":null`, usual) + "}}", 403, "'Tags' size should be less than 8192 bytes."},
		"desired properties":            {"PATCH", "/twins/dev1", desired(members(`"%s":1`, usual)), 403, "'Properties.Desired' size should be less than 32768 bytes."},
		"desired properties to remove":  {"PATCH", "/twins/dev1", desired(members(`"%s":null`, usual)), 403, "'Properties.Desired' size should be less than 32768 bytes."},
		"desired elements":              {"PATCH", "/twins/dev1", desired(`"a":[` + many("{}", usual) + "]"), 403, "'Properties.Desired' size should be less than 32768 bytes."},
		"desired objects in an array":   {"PATCH", "/twins/dev1", desired(`"a":[` + many(`{"a":{"a":{"a":1}}}`, usual) + "]"), 403, "'Properties.Desired' size should be less than 32768 bytes."},
		"a whole twin":                  {"PUT", "/twins/dev1", desired(members(`"%s":{}`, usual)), 403, "'Properties.Desired' size should be less than 32768 bytes."},
		"a job's tags":                  {"PUT", "/jobs/v2/j1", `{"type":"scheduleUpdateTwin","queryCondition":"*","updateTwin":{"etag":"*","tags":{` + members(`"%s":1`, job) + "}}}", 403, "'Tags' size should be less than 8192 bytes."},
		"a job's start":                 {"PUT", "/jobs/v2/j1", `{"type":"scheduleUpdateTwin","queryCondition":"*","startTime":[` + many("{}", job) + "]}", 400, "startTime must be"},
		"labels":                        {"PUT", "/configurations/c1", `{"id":"c1","labels":{` + members(`"%s":""`, usual) + "}}", 400, "an object in the body has more than 1000 members"},
		"metrics":                       {"PUT", "/configurations/c1", `{"id":"c1","metrics":{"queries":{` + members(`"%s":""`, usual) + "}}}", 400, "an object in the body has more than 1000 members"},
		"metrics to test":               {"POST", "/configurations/testQueries", `{"targetCondition":"","customMetricQueries":{` + members(`"%s":""`, usual) + "}}", 400, "an object in the body has more than 1000 members"},
		"paths":                         {"PUT", "/configurations/c1", config(`"deviceContent":{` + members(`"properties.desired.%s":1`, usual) + "}"), 400, "content has at most 1000 paths for a twin"},
		"paths of a module":             {"PUT", "/configurations/c1", config(`"modulesContent":{"m":{` + members(`"properties.desired.%s":1`, usual) + "}}"), 400, "content has at most 1000 paths for a twin"},
		"one path":                      {"PUT", "/configurations/c1", config(`"deviceContent":{"properties.desired.a":{` + members(`"%s":1`, usual) + "}}"), 400, "'Properties.Desired' size should be less than 32768 bytes."},
		"modules":                       {"PUT", "/configurations/c1", config(`"modulesContent":{` + members(`"%s":{}`, usual) + "}"), 400, "an IoT Edge device has at most 50 modules"},
		"a system module":               {"PUT", "/configurations/c1", config(`"modulesContent":{"$edgeAgent":{"properties.desired":{` + members(`"%s":{}`, usual) + "}}}"), 400, "'Properties.Desired' size should be less than 32768 bytes."},
		"modules to be run":             {"PUT", "/configurations/c1", config(`"modulesContent":{"$edgeAgent":{"properties.desired":{"modules":{` + members(`"%s":{}`, usual) + "}}}}"), 400, "'Properties.Desired' size should be less than 32768 bytes."},
		"modules to apply":              {"POST", "/devices/dev1/applyConfigurationContent", `{"modulesContent":{` + members(`"%s":{}`, usual) + "}}", 400, "an IoT Edge device has at most 50 modules"},
		"a target":                      {"PUT", "/configurations/c1", `{"id":"c1","content":{"deviceContent":{"properties.desired.a":1}},"targetCondition":"` + strings.Repeat("(", usual) + `"}`, 400, "the query has"},
		"a query":                       {"POST", "/devices/query", `{"query":"` + strings.Repeat("(", usual) + `"}`, 412, "the query has"},
		"a payload":                     {"POST", "/twins/dev1/methods", `{"methodName":"a","payload":[` + many("{}", 128000) + "]}", 404, "404103"},
		"a batch":                       {"POST", "/devices/dev1/messages/events", "[" + many("{}", batch) + "]", 413, "a batch has at most 500 messages"},
		"the properties of a batch":     {"POST", "/devices/dev1/messages/events", `[{"body":"","properties":{` + members(`"%s":""`, batch) + "}}]", 400, "an object in the body has more than 1000 members"},
	} {
		t.Run(name, func(t *testing.T) {
			c := wiretest.Call{Method: tt.method, Path: tt.path, Body: tt.body}
			if strings.HasSuffix(tt.path, "/messages/events") {
				c.Token, c.Header = ownToken, map[string]string{"Content-Type": "application/vnd.microsoft.iothub.json"}
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			a := h.Do(c)
			runtime.ReadMemStats(&after)
			if a.Status != tt.status || !strings.Contains(a.Body, tt.want) {
				t.Errorf("%d %.300s, want %d with %q", a.Status, a.Body, tt.status, tt.want)
			}
			if made := after.TotalAlloc - before.TotalAlloc; made > uint64(times*len(tt.body)+more) {
				t.Errorf("of %d bytes the hub made %d", len(tt.body), made)
			}
		})
	}
}
