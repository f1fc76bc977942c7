package rest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/node"
)

// The laws of documents that a caller puts: whatever they are, the hub goes on,
// says 200 or a refusal of its own, has nothing of what it refused, and reads
// what it took as the caller meant it.

// hostile are values that seldom stand where they are put.
var hostile = []string{
	"null", "true", "0", "-1", "1.5", "1e400", "9223372036854775808", `""`, `"x"`, `"\ud800\u0000"`, `"2026-01-01"`,
	"[]", "[null]", "{}", `{"x":null}`, `{"$x":1}`, `{"properties.desired.x":{}}`, nested(70), `{"a":1,"a":{"A":2}}`,
}

// spoiled returns the document with its nth value replaced. Without a
// replacement, and if it is no JSON, it stays as it is.
func spoiled(document string, n int, with string) string {
	var v any
	d := json.NewDecoder(strings.NewReader(document))
	d.UseNumber()
	if with == "" || d.Decode(&v) != nil {
		return document
	}
	if !json.Valid([]byte(with)) {
		text, _ := json.Marshal(with) // a string can always be printed
		with = string(text)
	}
	text, err := json.Marshal(replaceNth(v, &n, json.RawMessage(with)))
	if err != nil {
		return document
	}
	return string(text)
}

func replaceNth(v any, n *int, with any) any {
	if *n--; *n == -1 {
		return with
	}
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			v[name] = replaceNth(v[name], n, with)
		}
	case []any:
		for i := range v {
			v[i] = replaceNth(v[i], n, with)
		}
	}
	return v
}

// addSpoiled adds the documents, and the first with one of its values replaced by
// each hostile one, so that a fuzz target begins with all of them. All values
// with all hostile ones are for a test that runs once: see eachSpoiled.
func addSpoiled(f *testing.F, documents ...string) {
	for _, document := range documents {
		f.Add(document, 0, "")
	}
	for n, with := range hostile {
		f.Add(documents[0], n%values(documents[0]), with)
	}
}

// eachSpoiled calls check with each document that differs from the given ones in
// one value, which is a hostile one.
func eachSpoiled(check func(document string), documents ...string) {
	for _, document := range documents {
		for _, with := range hostile {
			for n := range values(document) {
				check(spoiled(document, n, with))
			}
		}
	}
}

// values is no fewer than the document has values.
func values(document string) int {
	return 1 + strings.Count(document, ":") + strings.Count(document, ",")
}

// decodeLoosely reads JSON as clients write it: names in any case.
func decodeLoosely(t testing.TB, text string, v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		t.Fatalf("the hub took what is not JSON, or printed it: %q: %v", text, err)
	}
}

// A jobText is what a caller says of a job.
type jobText struct {
	Type           string
	QueryCondition string
	StartTime      *string
	Max            json.Number `json:"maxExecutionTimeInSeconds"`
	Method         *struct {
		MethodName                                        string
		Payload                                           any
		ResponseTimeoutInSeconds, ConnectTimeoutInSeconds *json.Number
	} `json:"cloudToDeviceMethod"`
	Twin *struct {
		Tags       any
		Properties *struct{ Desired any }
	} `json:"updateTwin"`
}

// plain returns the job with what the hub adds, and without what it ignores.
func (j jobText) plain() jobText {
	number := func(n **json.Number, absent json.Number) {
		if *n == nil {
			*n = &absent
		}
	}
	if j.Max == "" || j.Max == "0" {
		j.Max = "3600"
	}
	if j.Type == string(jobs.Method) {
		j.Twin = nil
		number(&j.Method.ResponseTimeoutInSeconds, "30")
		number(&j.Method.ConnectTimeoutInSeconds, "0")
	} else {
		j.Method = nil
		if p := j.Twin.Properties; p != nil && p.Desired == nil { // or an order to clear them
			j.Twin.Properties = nil
		}
	}
	j.StartTime = nil
	return j
}

// putJobBodies are jobs of which all that is read of one is in some.
var putJobBodies = []string{
	twinJobBody,
	methodJobBody,
	changed(methodJobBody, `null`, `[1e2,"\ud83d",{"a":-0}]`),
	changed(methodJobBody, `"payload"`, `"connectTimeoutInSeconds":0,"timeoutInSeconds":7,"payload"`),
	`{"type":"scheduleUpdateTwin","updateTwin":{"etag":"*"},"queryCondition":"deviceId = 'dev'","startTime":"2027-01-01T00:00:00+01:00"}`,
}

// startForJobs starts a hub with a device, and returns what checks a job's
// document.
func startForJobs(f testing.TB) (put func(t testing.TB, body string)) {
	h := startBare(f, node.Options{MaxJobs: 1 << 20})
	wiretest.Create(f, h.Node, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	var made atomic.Int64
	return func(t testing.TB, body string) { putJob(t, h, fmt.Sprint("job-", made.Add(1)), body) }
}

func putJob(t testing.TB, h *bareHub, id, body string) {
	t.Helper()
	path := "/jobs/v2/" + id
	created := h.do("PUT", path, body)
	if refused(t, created) {
		h.do("GET", path, "").Want(t, 404, "")
		return
	}
	defer func() {
		_, _ = h.Jobs.Cancel(id) // if it has not ended
		if _, err := h.Jobs.Wait(t.Context(), id); err != nil {
			t.Error(err)
		}
	}()
	var asked, got, read jobText
	decodeLoosely(t, body, &asked)
	decodeLoosely(t, created.Body, &got)
	if diff := cmp.Diff(asked.plain(), got.plain()); diff != "" {
		t.Errorf("%s\nthe job (-want +got):\n%s", body, diff)
	}
	if _, err := time.Parse(time.RFC3339, *got.StartTime); err != nil {
		t.Errorf("startTime: %v", err)
	}
	decodeLoosely(t, h.get(t, path), &read)
	if diff := cmp.Diff(got, read); diff != "" {
		t.Errorf("%s\nthe job that is read (-created +read):\n%s", body, diff)
	}
}

func FuzzPutJob(f *testing.F) {
	put := startForJobs(f)
	addSpoiled(f, putJobBodies...)
	f.Fuzz(func(t *testing.T, body string, n int, with string) { put(t, spoiled(body, n, with)) })
}

func TestJobsWithOneValueSpoiled(t *testing.T) {
	put := startForJobs(t)
	eachSpoiled(func(body string) { put(t, body) }, putJobBodies...)
	for condition := range badConditions {
		put(t, changed(methodJobBody, `"*"`, string(mustJSON(t, condition))))
	}
}

// A configurationText is what a caller says of a configuration.
type configurationText struct {
	SchemaVersion   *string
	Labels          map[string]string
	Content         struct{ DeviceContent, ModuleContent, ModulesContent map[string]any }
	TargetCondition string
	Priority        json.Number
	Metrics         struct{ Queries map[string]string }
}

// plain returns the configuration without the ways to say nothing.
func (c configurationText) plain() configurationText {
	for _, part := range []*map[string]any{&c.Content.DeviceContent, &c.Content.ModuleContent, &c.Content.ModulesContent} {
		if len(*part) == 0 {
			*part = nil
		}
	}
	if len(c.Metrics.Queries) == 0 {
		c.Metrics.Queries = nil
	}
	if c.Priority == "" || c.Priority == "-0" {
		c.Priority = "0"
	}
	return c
}

// putConfigurationBodies are configurations of which all that is read of one is
// in some.
var putConfigurationBodies = []string{
	changed(configurationBody, `tags.a = 1`, `*`),
	configurationBody,
	`{"content":{"deviceContent":{"properties.desired.a":{"b":null,"c":[{"d":1e3}]},"properties.desired.a.b":"<\u0001>","properties.desired.$version":3}},"targetCondition":"*"}`,
	`{"content":{"deviceContent":{"properties.desired.a":{"b":null,"c":[{"d":1e3}]},"properties.desired.a.b":"<\u0001>"}},"targetCondition":"*"}`,
	`{"content":{"moduleContent":{"properties.desired.a":null}},"targetCondition":"FROM devices.modules WHERE true","labels":{"a":"\ud800"},"schemaVersion":""}`,
	`{"content":{"modulesContent":` + wiretest.BaseDeployment("camera") + `},"targetCondition":"*","priority":-1}`,
	`{"content":{"modulesContent":{"$edgeAgent":{"properties.desired":{"modules":{"a":null}},"properties.desired.modules.b":{}},"c":null}},"targetCondition":"true"}`,
}

// startForConfigurations starts a hub with twins of every kind, and returns what
// checks a configuration's document.
func startForConfigurations(f testing.TB) (put func(t testing.TB, body string)) {
	h := startBare(f, node.Options{})
	wiretest.Create(f, h.Node, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	wiretest.Create(f, h.Node, hub.ID{Device: "dev", Module: "m"}, hub.IdentitySpec{})
	wiretest.Create(f, h.Node, hub.ID{Device: "edge"}, hub.IdentitySpec{IoTEdge: true})
	return func(t testing.TB, body string) { putConfiguration(t, h, body) }
}

func putConfiguration(t testing.TB, h *bareHub, body string) {
	t.Helper()
	const path = "/configurations/cfg"
	created := h.do("PUT", path, body)
	if refused(t, created) {
		h.do("GET", path, "").Want(t, 404, "")
		return
	}
	defer func() {
		h.do("DELETE", path, "").Want(t, 204, "")
		// Without it all is as it was, but for the modules of a deployment.
		wiretest.WantConfigured(t, h.Node, hub.ID{Device: "dev"}, `{} `)
		wiretest.WantConfigured(t, h.Node, hub.ID{Device: "dev", Module: "m"}, `{} `)
	}()
	var asked, got configurationText
	decodeLoosely(t, body, &asked)
	decodeLoosely(t, created.Body, &got)
	if diff := cmp.Diff(asked.plain(), got.plain()); diff != "" {
		t.Errorf("%s\nthe configuration (-want +got):\n%s", body, diff)
	}
	// What is applied is applied once: nothing is left to change.
	twins := func() (all string) {
		for _, id := range []hub.ID{{Device: "dev"}, {Device: "dev", Module: "m"}, {Device: "edge"}, {Device: "edge", Module: "$edgeAgent"}} {
			wiretest.Configured(t, h.Node, id)
			all += h.twin(t, id) + "\n"
		}
		return all
	}
	before := twins()
	again := h.do("PUT", path, created.Body, "If-Match", "*").Want(t, 200, "")
	decodeLoosely(t, again.Body, &asked)
	if diff := cmp.Diff(got.plain(), asked.plain()); diff != "" {
		t.Errorf("%s\nthe configuration sent back (-want +got):\n%s", body, diff)
	}
	if diff := cmp.Diff(before, twins()); diff != "" {
		t.Errorf("%s\nthe twins change again (-want +got):\n%s", body, diff)
	}
}

func FuzzPutConfiguration(f *testing.F) {
	put := startForConfigurations(f)
	addSpoiled(f, putConfigurationBodies...)
	f.Fuzz(func(t *testing.T, body string, n int, with string) { put(t, spoiled(body, n, with)) })
}

func TestConfigurationsWithOneValueSpoiled(t *testing.T) {
	put := startForConfigurations(t)
	for _, body := range putConfigurationBodies {
		put(t, body)
	}
	// One for devices, one for modules and one for IoT Edge devices: each that is
	// taken is applied three times.
	eachSpoiled(func(body string) { put(t, body) }, putConfigurationBodies[0], putConfigurationBodies[4], putConfigurationBodies[6])
	for condition := range badConditions {
		put(t, changed(configurationBody, `"tags.a = 1"`, string(mustJSON(t, condition))))
	}
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b.Bytes())
}
