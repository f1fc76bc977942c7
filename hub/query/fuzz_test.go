package query_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub/query"
)

// Whatever the text and the document, nothing panics. A query prints as one that is the same. A mistake is one line
// without a semicolon, at which the Node SDK would cut it.
func FuzzQuery(f *testing.F) {
	v := readVectors(f)
	for i, c := range v.Cases {
		f.Add(c.Query, []byte(v.Twins[i%len(v.Twins)]))
	}
	f.Add(`SELECT tags.a[1] AS [[x y]], AVG(tags.b) FROM devices WHERE -(0x1F+1.5e3)/tags.c >= tags.d[0] GROUP BY tags.a[1]`, []byte(`{"tags":{"a":[1,"\u00e9`))
	f.Add(`SELECT * FROM devices.jobs WHERE devices.jobs.x NIN [ [1], '\ud83d\ude00', /* ; */ [[group]] ]`, []byte(`{"a" : {"b":`))
	f.Add("SELECT [[a;]], COUNT() FROM devices", []byte("{}"))
	f.Fuzz(func(t *testing.T, text string, doc []byte) {
		q, err := query.Parse(text)
		var mistake *query.Error
		if err != nil {
			if !errors.As(err, &mistake) || strings.ContainsAny(err.Error(), ";\r\n") || len(err.Error()) > 300 {
				t.Fatalf("Parse(%q): %v", text, err)
			}
			return
		}
		again, err := query.Parse(q.String())
		if err != nil {
			// The canonical form may be longer than is allowed: of brackets around names and escapes.
			if errors.As(err, &mistake) && mistake.Class == query.QueryTooLong {
				return
			}
			t.Fatalf("%q\nprints as %s\nwhich is refused: %v", text, q, err)
		}
		if again.String() != q.String() {
			t.Fatalf("%q\nprints as %s\nand again as %s", text, q, again)
		}
		row := query.Text(doc)
		matches := q.Match(row)
		if again.Match(row) != matches {
			t.Fatalf("%s and its canonical form do not agree on %s", text, doc)
		}
		q.Ranges(query.DeviceID)
		q.UpdatedFrom()
		var result []byte
		if q.Aggregates() {
			groups := q.NewGroups("", 10)
			groups.Add(row)
			var rows []query.GroupRow
			if rows, _, err = groups.Rows(1); err == nil {
				result = rows[0].JSON
			}
		} else {
			result, err = q.Project(nil, row)
		}
		if errors.Is(err, query.ErrRowTooLarge) {
			return
		}
		if json.Valid(doc) && len(doc) > 0 && doc[0] == '{' && !json.Valid(result) {
			t.Fatalf("%s of %s is no JSON: %s", text, doc, result)
		}
	})
}
