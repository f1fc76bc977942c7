package query_test

import (
	"cmp"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub/query"
)

// A sample is a document in both forms.
type sample struct {
	doc  any
	text query.Text
}

func (g generator) samples(n int) (list []sample) {
	for range n {
		twin := g.twin()
		list = append(list, sample{twin, query.Text(g.print(twin))})
	}
	return list
}

// parse parses a query that must be right, and checks that its canonical form is the same query.
func parse(t *testing.T, text string) *query.Query {
	t.Helper()
	q, err := query.Parse(text)
	if err != nil {
		t.Fatalf("Parse(%s): %v", text, err)
	}
	again, err := query.Parse(q.String())
	if err != nil || again.String() != q.String() {
		t.Fatalf("%s\nprints as %s\nwhich is parsed with error %v, and as\n%v", text, q, err, again)
	}
	return again
}

func TestRandomConditionsAgreeWithTheSecondEvaluator(t *testing.T) {
	g := newGenerator(1)
	samples := g.samples(200)
	matched := 0
	for range 2000 {
		c := g.condition(3)
		q := parse(t, "SELECT * FROM devices WHERE "+c.text)
		ids, updated := q.Ranges(query.DeviceID), q.UpdatedFrom()
		for range 25 {
			s := pick(g, samples...)
			want := c.eval(s.doc) == true
			if got := q.Match(s.text); got != want {
				t.Fatalf("%s\nas %s\nmatches %v, want %v:\n%s", c.text, q, got, want, s.text)
			}
			if !want {
				continue
			}
			matched++
			id := follow(s.doc, "deviceId").(string)
			inRange := false
			for _, r := range ids {
				inRange = inRange || r.Contains(id)
			}
			last := max(follow(s.doc, "properties", "desired", "$metadata", "$lastUpdated").(string),
				follow(s.doc, "properties", "desired", "$metadata", "a", "$lastUpdated").(string),
				follow(s.doc, "properties", "reported", "$metadata", "$lastUpdated").(string))
			if !inRange || last < updated {
				t.Fatalf("%s\nmatches device id %s, updated %s; its bounds are %v and %s", q, id, last, ids, updated)
			}
		}
	}
	if matched < 5_000 {
		t.Errorf("%d matches, the queries say too little", matched)
	}
}

func TestRandomProjectionsAgreeWithTheSecondEvaluator(t *testing.T) {
	g := newGenerator(2)
	samples := g.samples(100)
	for range 500 {
		var items []string
		var paths []refExpr
		var names []string
		for range 1 + g.IntN(4) {
			p, name := g.path()
			text := p.text
			if g.IntN(2) == 0 {
				name = pick(g, "x", "Some_Name", `we ird "name"`)
				text += " as [[" + name + "]]"
			}
			items, paths, names = append(items, text), append(paths, p), append(names, name)
		}
		q := parse(t, "SELECT "+strings.Join(items, ", ")+" FROM devices")
		for range 10 {
			s := pick(g, samples...)
			want := map[string]any{}
			for i, p := range paths {
				if v := p.eval(s.doc); v != any(undef{}) {
					want[names[i]] = v
				} else {
					delete(want, names[i])
				}
			}
			row, err := q.Project(nil, s.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(any(want), decode(t, row)); diff != "" {
				t.Fatalf("%s\nof %s\nis %s (-want +got):\n%s", q, s.text, row, diff)
			}
		}
	}
}

func TestRandomGroupsAgreeWithTheSecondEvaluator(t *testing.T) {
	g := newGenerator(3)
	samples := g.samples(100)
	for range 150 {
		by, _ := g.path()
		of := pick(g, refExpr{"version", func(doc any) any { return follow(doc, "version") }}, refExpr{"tags.a", func(doc any) any { return follow(doc, "tags", "a") }})
		text := "SELECT " + by.text + " AS k, count() AS n, Sum(" + of.text + ") AS s, AVG(" + of.text + ") AS a, MIN(" + of.text +
			") AS lo, MAX(" + of.text + ") AS hi FROM devices GROUP BY " + by.text
		q := parse(t, text)

		want := map[string]any{}
		for _, s := range samples {
			k := by.eval(s.doc)
			row, _ := want[jsonText(k)+typeName(k)].(map[string]any)
			if row == nil {
				row = map[string]any{"n": 0.0, "s": 0.0}
				if k != any(undef{}) {
					row["k"] = k
				}
				want[jsonText(k)+typeName(k)] = row
			}
			row["n"] = row["n"].(float64) + 1
			if f, ok := of.eval(s.doc).(float64); ok {
				m, _ := row["m"].(float64)
				row["m"] = m + 1
				row["s"] = row["s"].(float64) + f
				row["a"] = row["s"].(float64) / row["m"].(float64)
				if lo, ok := row["lo"].(float64); !ok || f < lo {
					row["lo"] = f
				}
				if hi, ok := row["hi"].(float64); !ok || f > hi {
					row["hi"] = f
				}
			}
		}
		wantRows := []any{}
		for _, row := range want {
			delete(row.(map[string]any), "m")
			wantRows = append(wantRows, row)
		}

		// In pages, each from a pass in three parts.
		gotRows, after := []any{}, ""
		for more := true; more; {
			parts := []*query.Groups{q.NewGroups(after, 3), q.NewGroups(after, 3), q.NewGroups(after, 3)}
			for i, s := range samples {
				if q.Match(s.text) {
					parts[i*3/len(samples)].Add(s.text)
				}
			}
			parts[0].Merge(parts[1])
			parts[0].Merge(parts[2])
			var rows []query.GroupRow
			var err error
			if rows, more, err = parts[0].Rows(1 + g.IntN(200)); err != nil {
				t.Fatal(err)
			}
			for _, row := range rows {
				if row.Key <= after || len(row.Key) > 82 {
					t.Fatalf("group %q behind %q", row.Key, after)
				}
				after = row.Key
				gotRows = append(gotRows, decode(t, row.JSON))
			}
		}
		anyOrder := cmpopts.SortSlices(func(a, b any) int { return cmp.Compare(jsonText(a), jsonText(b)) })
		if diff := gocmp.Diff(wantRows, gotRows, anyOrder, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", q, diff)
		}
	}
}

func typeName(v any) string {
	if v == any(undef{}) {
		return " undefined"
	}
	return ""
}
