package query_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"os"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub/query"
)

// vectors are queries with their results, collected from public documents and tools; see notes in the file.
type vectors struct {
	Twins      []json.RawMessage
	DeviceJobs []json.RawMessage
	Cases      []struct {
		Name, Query string
		Expect      struct {
			IDs   *[]string
			Items *[]any
			Error string
		}
	}
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	data, err := os.ReadFile("testdata/query.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// rows returns the documents of a collection in the order of their ids.
func (v vectors) rows(from query.Collection) (docs []query.Text) {
	if from == query.Jobs {
		for _, d := range v.DeviceJobs {
			docs = append(docs, query.Text(d))
		}
		return docs
	}
	for _, d := range v.Twins {
		if isModule := bytes.Contains(d, []byte(`"moduleId"`)); isModule == (from == query.Modules) {
			docs = append(docs, query.Text(d))
		}
	}
	slices.SortFunc(docs, func(a, b query.Text) int { return cmp.Compare(rowID(a), rowID(b)) })
	return docs
}

// rowID returns what the vectors call a row's identity.
func rowID(doc []byte) string {
	var id struct{ DeviceID, ModuleID, JobID string }
	if err := json.Unmarshal(doc, &id); err != nil {
		panic(err)
	}
	if second := id.ModuleID + id.JobID; second != "" {
		return id.DeviceID + "/" + second
	}
	return id.DeviceID
}

// run answers a query as a hub does.
func run(t testing.TB, q *query.Query, docs []query.Text) (rows [][]byte) {
	t.Helper()
	if q.Aggregates() {
		groups := q.NewGroups("", 1000)
		for _, d := range docs {
			if q.Match(d) {
				groups.Add(d)
			}
		}
		result, _, err := groups.Rows(math.MaxInt)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range result {
			rows = append(rows, row.JSON)
		}
	} else {
		for _, d := range docs {
			if q.Match(d) {
				row, err := q.Project(nil, d)
				if err != nil {
					t.Fatal(err)
				}
				rows = append(rows, row)
			}
		}
	}
	if top := q.Top(); top > 0 && top < len(rows) {
		rows = rows[:top]
	}
	return rows
}

func TestVectors(t *testing.T) {
	v := readVectors(t)
	if len(v.Cases) != 114 {
		t.Errorf("%d cases, want 114", len(v.Cases))
	}
	for _, c := range v.Cases {
		t.Run(c.Name, func(t *testing.T) {
			q, err := query.Parse(c.Query)
			var refused *query.Error
			if errors.As(err, &refused) && refused.Class.String() == c.Expect.Error {
				return
			}
			if err != nil || c.Expect.Error != "" {
				t.Fatalf("Parse(%s): error %v, want %q", c.Query, err, c.Expect.Error)
			}
			if again, err := query.Parse(q.String()); err != nil || again.String() != q.String() {
				t.Errorf("%s\nprints as %s\nwhich is parsed with error %v, and as\n%v", c.Query, q, err, again)
			}
			rows := run(t, q, v.rows(q.From()))
			if c.Expect.IDs != nil {
				ids := []string{}
				for _, row := range rows {
					ids = append(ids, rowID(row))
				}
				sorted := cmpopts.SortSlices(cmp.Less[string])
				if diff := gocmp.Diff(*c.Expect.IDs, ids, sorted); diff != "" {
					t.Errorf("%s (-want +got):\n%s", c.Query, diff)
				}
				return
			}
			items := []any{}
			for _, row := range rows {
				var item any
				if err := json.Unmarshal(row, &item); err != nil {
					t.Fatalf("row %s: %v", row, err)
				}
				items = append(items, item)
			}
			anyOrder := cmpopts.SortSlices(func(a, b any) bool { return jsonText(a) < jsonText(b) })
			if diff := gocmp.Diff(*c.Expect.Items, items, anyOrder, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.Query, diff)
			}
		})
	}
}

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
