package bulk

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hubrest"
)

// readBulk reads a file whole: its lines, and why it ended early.
func readBulk(t *testing.T, text, format string) ([]Line, error) {
	t.Helper()
	r, err := NewReader(strings.NewReader(text), format)
	if err != nil {
		return nil, err
	}
	var lines []Line
	for {
		l, err := r.next()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		lines = append(lines, l)
	}
}

func TestBulkLines(t *testing.T) {
	tests := []struct {
		name, text string
		want       hubrest.BulkEntry
		err        string
	}{
		{"an id is enough", `{"id":"d1"}`, hubrest.BulkEntry{ID: "d1"}, ""},
		{"an identity of a list", `{"deviceId":"d1","status":"Disabled"}`, hubrest.BulkEntry{ID: "d1", Status: hubrest.Disabled}, ""},
		{"an exported twin without what only the hub writes", `{"id":"d1","eTag":"\"MQ==\"","importMode":"UPDATE","tags":{"a":1},"properties":{"desired":{"b":2,"$metadata":{},"$version":7},"reported":{"$metadata":{},"$version":1}}}`,
			hubrest.BulkEntry{ID: "d1", ETag: "MQ==", ImportMode: hubrest.ImportUpdate, Tags: []byte(`{"a":1}`), Properties: hubrest.BulkProperties{Desired: []byte(`{"b":2}`)}}, ""},
		{"keys that IoT Hub left out", `{"id":"d1","authentication":{"symmetricKey":{"primaryKey":null,"secondaryKey":null},"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"type":"SAS"}}`,
			hubrest.BulkEntry{ID: "d1", Authentication: hubrest.Authentication{Type: hubrest.AuthSAS}}, ""},
		{"not JSON", `{"id":`, hubrest.BulkEntry{}, "is not JSON: unexpected end of JSON input at byte 6"},
		{"no object", `["d1"]`, hubrest.BulkEntry{}, "is a JSON array, not an object"},
		{"a wrong type", `{"id":"d1","status":5}`, hubrest.BulkEntry{}, "status must not be a JSON number"},
		{"no id", `{"tags":{}}`, hubrest.BulkEntry{}, "has no id"},
		{"one key", `{"id":"d1","authentication":{"symmetricKey":{"primaryKey":"AAAAAAAAAAAAAAAAAAAAAA=="}}}`, hubrest.BulkEntry{}, "primaryKey and secondaryKey go together"},
		{"an unknown mode", `{"id":"d1","importMode":"upsert"}`, hubrest.BulkEntry{}, `importMode "upsert" is none of IoT Hub's`},
		{"tags that are no object", `{"id":"d1","tags":[1]}`, hubrest.BulkEntry{}, "tags is not a JSON object"},
		{"a line that is too long", `{"id":"d1","tags":{"a":"` + strings.Repeat("x", maxLineBytes) + `"}}`, hubrest.BulkEntry{}, "longer than 4 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// Between two good ones, which a bad line must not harm.
			lines, err := readBulk(t, "{\"id\":\"a\"}\r\n\r\n"+tt.text+"\n{\"id\":\"z\"}", "ndjson")
			if err != nil || len(lines) != 3 {
				t.Fatalf("read %d lines, %v; want 3", len(lines), err)
			}
			if got := []int{lines[0].number, lines[1].number, lines[2].number}; !cmp.Equal([]int{1, 3, 4}, got) {
				t.Errorf("lines %v, want 1, 3, 4", got)
			}
			if lines[0].entry.ID != "a" || lines[2].entry.ID != "z" {
				t.Errorf("the neighbours are %+v and %+v", lines[0].entry.ID, lines[2].entry.ID)
			}
			l := lines[1]
			if text := errorText(l.err); text != tt.err {
				t.Fatalf("%s: error %q, want %q", tt.text[:min(80, len(tt.text))], text, tt.err)
			}
			if tt.err == "" {
				if diff := cmp.Diff(tt.want, l.entry); diff != "" {
					t.Errorf("%s (-want +got):\n%s", tt.text, diff)
				}
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestBulkCSV(t *testing.T) {
	text := "\ufeffDeviceId,moduleId,iotEdge,primaryThumbprint,tags,tags.site,properties.desired.a.b,desired.n\n" +
		"d1,,true,,\"{\"\"x\"\":null}\",north,\"two\nlines\",60\n" +
		"d2,m1,,0123456789012345678901234567890123456789,,\"\"\"7\"\"\",,\n" +
		"d3,,maybe,,,,,\n" +
		"d4,,,,7,,,\n" +
		"d5,,,,\"{\"\"site\"\":1}\",,,,too many\n" +
		"\"d6\"x,,,\n" +
		"d7\n" +
		"d8,,,,,caf\xe9\n"
	lines, err := readBulk(t, text, "")
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Line  int
		Entry hubrest.BulkEntry
		Err   string
	}
	var got []row
	for _, l := range lines {
		r := row{Line: l.number, Entry: l.entry, Err: errorText(l.err)}
		if l.err != nil {
			r.Entry = hubrest.BulkEntry{}
		}
		got = append(got, r)
	}
	want := []row{
		{Line: 2, Entry: hubrest.BulkEntry{ID: "d1", Capabilities: &hubrest.Capabilities{IoTEdge: true}, Tags: []byte(`{"site":"north","x":null}`),
			Properties: hubrest.BulkProperties{Desired: []byte(`{"a":{"b":"two\nlines"},"n":60}`)}}},
		{Line: 4, Entry: hubrest.BulkEntry{ID: "d2", ModuleID: "m1", Tags: []byte(`{"site":"7"}`),
			Authentication: hubrest.Authentication{X509Thumbprint: hubrest.X509Thumbprint{PrimaryThumbprint: "0123456789012345678901234567890123456789"}}}},
		{Line: 5, Err: `iotEdge "maybe" is neither true nor false`},
		{Line: 6, Err: "tags is not a JSON object; a single property has a column of its own, such as tags.site"},
		{Line: 7, Err: "has 9 cells, but there are 8 columns"},
		{Line: 8, Err: `is not CSV: extraneous or missing " in quoted-field at line 8, column 4`},
		{Line: 9, Entry: hubrest.BulkEntry{ID: "d7"}},
		{Line: 10, Err: "is not in UTF-8"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%q (-want +got):\n%s", text, diff)
	}
}

func TestBulkFilesThatCannotBeRead(t *testing.T) {
	tests := []struct{ name, text, err string }{
		{"a JSON array", "\n[{}]", `begins with "[", but each line has to be an object; "jq -c '.[]'" makes lines of an array`},
		{"no column of ids", "name,status\n", `has an unknown column "name"`},
		{"a column without ids", "status\n", `has no column "id" in its first line, which names the columns`},
		{"a misspelt column", "id,statsu\n", `has an unknown column "statsu", did you mean "status"?`},
		{"a column twice", "id,deviceId\n", `has two columns "id"`},
		{"a quote that never ends", "id,tags.a\nd1,\"" + strings.Repeat("x\n", maxLineBytes), "a record is longer than 4 MiB; is there a quote without its partner?"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := readBulk(t, tt.text, ""); errorText(err) != tt.err {
				t.Errorf("error %q, want %q", errorText(err), tt.err)
			}
		})
	}
}

// FuzzBulkLines holds the readers to: no panic, lines in order, and what was
// read is written and read again the same, in either format.
func FuzzBulkLines(f *testing.F) {
	for _, seed := range []string{
		`{"id":"d1","tags":{"a":1},"properties":{"desired":{"b":{"c":[1,null]},"$version":3}}}` + "\n\n{\n",
		"id,moduleId,tags,tags.a.b,desired.c,parentScopes\nd1,m1,\"{\"\"a\"\":null}\",1,\"x\ny\",a b\n\"\n",
		"\xef\xbb\xbfid,iotEdge\nd1,TRUE\n", "[", "id,tags\nd1,null", "id,reported.a..b\nd1,1",
	} {
		f.Add(seed, "")
	}
	f.Add(`{"id":"d1"}`, "csv")
	f.Fuzz(func(t *testing.T, text, format string) {
		if format != "csv" && format != "ndjson" {
			format = ""
		}
		lines, _ := readBulk(t, text, format)
		last := 0
		for _, l := range lines {
			if l.number <= last {
				t.Fatalf("line %d after line %d of %q", l.number, last, text)
			}
			last = l.number
			if l.err != nil {
				continue
			}
			l.entry.ImportMode = "" // not exported
			for _, format := range []string{"ndjson", "csv"} {
				var file bytes.Buffer
				w, err := NewWriter(&file, format, true)
				if err != nil {
					t.Fatal(err)
				}
				copied := l.entry
				if err := errors.Join(w.write(&copied), w.Flush()); err != nil {
					t.Fatal(err)
				}
				again, err := readBulk(t, file.String(), format)
				if err != nil || len(again) != 1 || again[0].err != nil {
					t.Fatalf("%s %q is read as %v, %v", format, file.String(), again, err)
				}
				if format == "csv" && !plainCells(l.entry) {
					continue // cells have no space around them
				}
				if diff := cmp.Diff(l.entry, again[0].entry, cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("%s %q (-want +got):\n%s", format, file.String(), diff)
				}
			}
		}
	})
}

// plainCells reports whether a table can hold the texts of e as they are.
func plainCells(e hubrest.BulkEntry) bool {
	for _, c := range identityColumns {
		text := c.get(&e)
		if text != strings.TrimSpace(text) || strings.Contains(text, "\r") {
			return false
		}
	}
	return strings.Join(strings.Fields(strings.Join(e.ParentScopes, " ")), " ") == strings.Join(e.ParentScopes, " ") && !hasEmpty(e.ParentScopes)
}

func hasEmpty(list []string) bool {
	for _, text := range list {
		if text == "" || strings.ContainsAny(text, " \t") {
			return true
		}
	}
	return false
}
