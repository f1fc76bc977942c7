package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPrint(t *testing.T) {
	object := Result{Value: json.RawMessage(`{"z": "a<b", "a": 1.10, "n": {"t": "true", "l": [1, 2], "e": {}}, "no": null}`)}
	list := Result{
		Value:   json.RawMessage(`[{"id": "d1", "n": {"x": 1}}, {"id": "d\t2", "n": {"x": [1, 2]}}, {"id": "d3"}]`),
		Columns: []Column{{"ID", "id"}, {"X", "n.x"}},
	}
	rows := Result{Value: json.RawMessage(`[{"b": 1, "a.c": "x"}, {"d": null, "b": 2}]`)}
	text := object
	text.Text = func(w io.Writer) error {
		_, err := fmt.Fprintln(w, "for people")
		return err
	}
	for _, tt := range []struct {
		name       string
		result     Result
		format, jq string
		want       string
	}{
		{"text for people", text, "", "", "for people\n"},
		{"JSON of what has text for people", text, "", ".a", "1.10\n"},
		{"a document for people is JSON", object, "", "",
			"{\n  \"z\": \"a<b\",\n  \"a\": 1.10,\n  \"n\": {\n    \"t\": \"true\",\n    \"l\": [\n      1,\n      2\n    ],\n    \"e\": {}\n  },\n  \"no\": null\n}\n"},
		{"YAML keeps the order and tells text from truth", object, "yaml", "",
			"z: \"a<b\"\na: 1.10\n\"n\":\n  t: \"true\"\n  l:\n    - 1\n    - 2\n  e: {}\n\"no\": null\n"},
		{"YAML of JSON as Python writes it", Result{Value: json.RawMessage(`{"a": "\ud83d\ude00\/"}`)}, "yaml", "", "a: \"\\U0001F600/\"\n"},
		{"a document as a table", object, "table", "", "z    a<b\na    1.10\nn    {\"t\":\"true\",\"l\":[1,2],\"e\":{}}\nno\n"},
		{"a document as TSV", object, "tsv", "", "z\ta<b\na\t1.10\nn\t{\"t\":\"true\",\"l\":[1,2],\"e\":{}}\nno\t\n"},
		{"a list for people is a table", list, "", "", "ID     X\nd1     1\nd\\t2   [1,2]\nd3\n"},
		{"a list as TSV", list, "tsv", "", "d1\t1\nd\\t2\t[1,2]\nd3\t\n"},
		{"rows of which nothing is known", rows, "table", "", "b   a.c   d\n1   x\n2\n"},
		{"plain values", Result{Value: json.RawMessage(`[3, "x"]`)}, "table", "", "VALUE\n3\nx\n"},
		{"jq prints strings without quotes", list, "", ".[0].id, .[1].n.x", "d1\n[\n  1,\n  2\n]\n"},
		{"jq may find nothing", list, "json", "empty", ""},
		{"jq halts", list, "json", "halt", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			o := Options{Format: tt.format, jq: tt.jq}
			if err := o.Check(); err != nil {
				t.Fatal(err)
			}
			if err := o.Print(Streams{Out: &out}, tt.result); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("print with format %q and jq %q (-want +got):\n%s", tt.format, tt.jq, diff)
			}
		})
	}
}

func TestPrintEventIsOneLine(t *testing.T) {
	var out bytes.Buffer
	o := Options{Format: "json"}
	for range 2 {
		if err := o.PrintEvent(Streams{Out: &out}, Result{Value: map[string]any{"a": []int{1}}}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff("{\"a\":[1]}\n{\"a\":[1]}\n", out.String()); diff != "" {
		t.Errorf("two events (-want +got):\n%s", diff)
	}
}

func TestFilterFails(t *testing.T) {
	o := Options{jq: ".a.b"}
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	err := o.Print(Streams{Out: io.Discard}, Result{Value: map[string]any{"a": 1}})
	if want := `--jq ".a.b": expected an object but got: number (1)`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
