package service

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/cli/internal/output"
)

// runOnFile runs a query on standard input.
func runOnFile(t *testing.T, text, input string) (gjson.Result, error) {
	t.Helper()
	var out bytes.Buffer
	o := queryOptions{query: text, from: "-"}
	o.Output.Format = "json"
	err := runFileQuery(t.Context(), output.Streams{In: strings.NewReader(input), Out: &out}, o, text)
	return gjson.ParseBytes(out.Bytes()), err
}

func TestFilesAnswerTheSameQueriesAsHubs(t *testing.T) {
	data, err := os.ReadFile("../../hub/query/testdata/query.json")
	if err != nil {
		t.Fatal(err)
	}
	vectors := gjson.ParseBytes(data)
	var lines strings.Builder
	for _, list := range []string{"twins", "deviceJobs"} {
		for _, doc := range vectors.Get(list).Array() {
			lines.WriteString(doc.Raw + "\n")
		}
	}
	for _, c := range vectors.Get("cases").Array() {
		t.Run(c.Get("name").String(), func(t *testing.T) {
			text := c.Get("query").String()
			rows, err := runOnFile(t, text, lines.String())
			if refused := c.Get("expect.error").Exists(); refused != (err != nil) {
				t.Fatalf("error %v", err)
			}
			var want, got []string
			for _, id := range c.Get("expect.ids").Array() {
				want = append(want, id.String())
			}
			for _, item := range c.Get("expect.items").Array() {
				want = append(want, canonical(t, item.Raw))
			}
			for _, row := range rows.Array() {
				if !c.Get("expect.ids").Exists() {
					got = append(got, canonical(t, row.Raw))
					continue
				}
				id := row.Get("deviceId").String()
				if second := row.Get("moduleId").String() + row.Get("jobId").String(); second != "" {
					id += "/" + second
				}
				got = append(got, id)
			}
			if strings.Contains(text, "SELECT TOP") { // which ones is up to the order of the file
				want, got = want[:0], got[len(want):]
			}
			if diff := gocmp.Diff(want, got, cmpopts.SortSlices(cmp.Less[string]), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", text, diff)
			}
		})
	}
}

// canonical is JSON with its members in order, and numbers without the noise of
// their last digits.
func canonical(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	if members, ok := v.(map[string]any); ok {
		for name, member := range members {
			if n, ok := member.(float64); ok {
				members[name] = float64(float32(n))
			}
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFilesOfTwins(t *testing.T) {
	const all = "SELECT * FROM devices"
	for _, tt := range []struct{ name, query, input, want, err string }{
		{"nothing", all, " \n", "[]", ""},
		{"an array behind a byte order mark", all, "\ufeff [{\"deviceId\":\"a\"}]", `[{"deviceId":"a"}]`, ""},
		{"an empty array", all, "[]", "[]", ""},
		{"not on lines of their own", all, `{"deviceId":"a"}{"deviceId":"b"}`, `[{"deviceId":"a"},{"deviceId":"b"}]`, ""},
		{"the service's export", "SELECT deviceId FROM devices WHERE id != 'b'", `{"id":"a"} {"id":"b"}`, `[{"deviceId":"a"}]`, ""},
		{"modules of the devices", "SELECT moduleId FROM devices.modules", `{"deviceId":"a"} {"deviceId":"a","moduleId":"m"}`, `[{"moduleId":"m"}]`, ""},
		{"a number", all, "{\"deviceId\":\"a\"}\n7", "", "standard input: document 2 is not a JSON object"},
		{"no twin", all, "{}", "", "standard input: document 1 has no deviceId"},
		{"cut short", all, "{\"deviceId\":\"a\"}\n{\"deviceId\"", "", "standard input: document 2 is cut short: the file ends within it"},
		{"an array cut short", all, `[{"deviceId":"a"}`, "", "standard input: document 2 is cut short: the file ends within it"},
		{"more than an array", all, "[] []", "", "standard input: document 1 stands behind the end of the array"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := runOnFile(t, tt.query, tt.input)
			message := ""
			if err != nil {
				message = err.Error()
			}
			if message != tt.err {
				t.Errorf("error %q, want %q", message, tt.err)
			}
			if diff := gocmp.Diff(tt.want, got.Get("@ugly").Raw); err == nil && diff != "" {
				t.Errorf("%s on %q (-want +got):\n%s", tt.query, tt.input, diff)
			}
		})
	}
}
