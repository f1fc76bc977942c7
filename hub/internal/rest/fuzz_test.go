package rest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
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

// addSpoiled adds the documents, and each with every one of its values replaced
// by every hostile one.
func addSpoiled(f *testing.F, documents ...string) {
	for _, document := range documents {
		f.Add(document, 0, "")
		for _, with := range hostile {
			for n := range 1 + strings.Count(document, ":") + strings.Count(document, ",") { // no fewer than it has values
				f.Add(document, n, with)
			}
		}
	}
}

// decodeLoosely reads JSON as clients write it: names in any case.
func decodeLoosely(t *testing.T, text string, v any) {
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

func FuzzPutJob(f *testing.F) {
	var made atomic.Int64
	started := wiretest.StartREST(f, node.Options{Logger: slog.New(slog.DiscardHandler), MaxJobs: 1 << 20})
	wiretest.Create(f, started.Node, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	for _, name := range slices.Sorted(maps.Keys(badJobs)) {
		if body := badJobs[name].body; len(body) < 1<<14 {
			f.Add(body, 0, "")
		}
	}
	for _, condition := range slices.Sorted(maps.Keys(badConditions)) {
		f.Add(changed(methodJobBody, `"*"`, string(mustJSON(f, condition))), 0, "")
	}
	addSpoiled(f, twinJobBody, methodJobBody,
		changed(methodJobBody, `null`, `[1e2,"\ud83d",{"a":-0}]`),
		changed(methodJobBody, `"payload"`, `"connectTimeoutInSeconds":0,"timeoutInSeconds":7,"payload"`),
		`{"type":"scheduleUpdateTwin","updateTwin":{"etag":"*"},"queryCondition":"deviceId = 'dev'","startTime":"2027-01-01T00:00:00+01:00"}`)
	f.Fuzz(func(t *testing.T, body string, n int, with string) {
		h, body := started.In(t), spoiled(body, n, with)
		id := fmt.Sprint("job-", made.Add(1))
		path := "/jobs/v2/" + id
		created := h.Do(wiretest.Call{Method: "PUT", Path: path, Body: body})
		if h.Refused(t, path, created) {
			return
		}
		defer func() {
			_, _ = h.Jobs.Cancel(id) // if it has not ended
			if _, err := h.Jobs.Wait(t.Context(), id); err != nil {
				t.Error(err)
			}
		}()
		var asked, got jobText
		decodeLoosely(t, body, &asked)
		decodeLoosely(t, created.Body, &got)
		if diff := cmp.Diff(asked.plain(), got.plain()); diff != "" {
			t.Errorf("%s\nthe job (-want +got):\n%s", body, diff)
		}
		if _, err := time.Parse(time.RFC3339, *got.StartTime); err != nil {
			t.Errorf("startTime: %v", err)
		}
		var read jobText
		decodeLoosely(t, h.Do(wiretest.Call{Method: "GET", Path: path}).Want(t, 200, "").Body, &read)
		if diff := cmp.Diff(got, read); diff != "" {
			t.Errorf("%s\nthe job that is read (-created +read):\n%s", body, diff)
		}
	})
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

func FuzzPutConfiguration(f *testing.F) {
	started := wiretest.StartREST(f, node.Options{Logger: slog.New(slog.DiscardHandler)})
	wiretest.Create(f, started.Node, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	wiretest.Create(f, started.Node, hub.ID{Device: "dev", Module: "m"}, hub.IdentitySpec{})
	wiretest.Create(f, started.Node, hub.ID{Device: "edge"}, hub.IdentitySpec{IoTEdge: true})
	for _, name := range slices.Sorted(maps.Keys(badConfigurations)) {
		if body := badConfigurations[name].body; len(body) < 1<<14 {
			f.Add(body, 0, "")
		}
	}
	for _, condition := range slices.Sorted(maps.Keys(badConditions)) {
		f.Add(changed(configurationBody, `"tags.a = 1"`, string(mustJSON(f, condition))), 0, "")
	}
	everywhere := changed(configurationBody, `tags.a = 1`, `*`)
	addSpoiled(f, configurationBody, everywhere,
		changed(everywhere, `:1}}`, `:{"b":null,"c":[{"d":1e3}]},"properties.desired.a.b":"<\u0001>","properties.desired.$version":3}}`),
		`{"content":{"moduleContent":{"properties.desired.a":null}},"targetCondition":"FROM devices.modules WHERE true","labels":{"a":"\ud800"},"schemaVersion":""}`,
		`{"content":{"modulesContent":`+wiretest.BaseDeployment("camera")+`},"targetCondition":"*","priority":-1}`,
		`{"content":{"modulesContent":{"$edgeAgent":{"properties.desired":{"modules":{"a":null}},"properties.desired.modules.b":{}},"c":null}},"targetCondition":"true"}`)
	f.Fuzz(func(t *testing.T, body string, n int, with string) {
		h, body := started.In(t), spoiled(body, n, with)
		const path = "/configurations/cfg"
		created := h.Do(wiretest.Call{Method: "PUT", Path: path, Body: body})
		if h.Refused(t, path, created) {
			return
		}
		defer func() {
			h.Do(wiretest.Call{Method: "DELETE", Path: path}).Want(t, 204, "")
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
				v, err := h.Twin(id)
				if err != nil {
					t.Fatal(err)
				}
				doc, err := v.MarshalJSON()
				if err != nil {
					t.Fatal(err)
				}
				all += string(doc) + "\n"
			}
			return all
		}
		before := twins()
		again := h.Do(wiretest.Call{Method: "PUT", Path: path, Body: created.Body, Header: map[string]string{"If-Match": "*"}}).Want(t, 200, "")
		decodeLoosely(t, again.Body, &asked)
		if diff := cmp.Diff(got.plain(), asked.plain()); diff != "" {
			t.Errorf("%s\nthe configuration sent back (-want +got):\n%s", body, diff)
		}
		if diff := cmp.Diff(before, twins()); diff != "" {
			t.Errorf("%s\nthe twins change again (-want +got):\n%s", body, diff)
		}
	})
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
