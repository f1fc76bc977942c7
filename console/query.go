package console

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/phrase"
)

// maxQueryColumns is how many columns a table of a result has.
const maxQueryColumns = 40

// queryPage is the data of the page of queries.
type queryPage struct {
	Query    string
	View     string // "json", or a table
	Size     int
	Sizes    []int
	Examples []queryExample
	Problem  string
	Asked    bool
	Columns  []string
	Rows     []queryRow
	More     int // columns that are not shown
	Plan     hubrest.QueryPlan
	ActPath  string // where something is done to the devices; empty: it is not a query of devices
	TablePath, JSONPath,
	CSVPath, NDJSONPath string
	Pager pager
}

// A queryRow is a row of a result.
type queryRow struct {
	Device string // the device that it is about, to be linked; empty: none
	Cells  []cell
	Text   string // the whole row as JSON
}

// A queryExample is a query to begin with.
type queryExample struct{ Name, Query string }

// Path is the address of its result.
func (e queryExample) Path() string { return "/queries?" + url.Values{"query": {e.Query}}.Encode() }

var queryExamples = []queryExample{
	{"Devices per connection state", "SELECT connectionState, COUNT() AS number FROM devices GROUP BY connectionState"},
	{"Devices per site", "SELECT tags.site AS site, COUNT() AS number FROM devices GROUP BY tags.site"},
	{"When devices were rebooted", "SELECT deviceId, properties.reported.rebootTime FROM devices WHERE IS_DEFINED(properties.reported.rebootTime)"},
	{"What has changed today", ""},
	{"Modules", "SELECT deviceId, moduleId, connectionState FROM devices.modules"},
	{"Outcomes of jobs that failed", "SELECT * FROM devices.jobs WHERE devices.jobs.status = 'failed'"},
}

// examples are queryExamples, with the date that one of them has.
func (c *Console) examples() []queryExample {
	list := slices.Clone(queryExamples)
	for i := range list {
		if list[i].Query == "" {
			list[i].Query = "SELECT * FROM devices WHERE properties.reported.$metadata.$lastUpdated > '" + c.now().UTC().Format("2006-01-02") + "T00:00:00Z'"
		}
	}
	return list
}

func (c *Console) queries(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	p := queryPage{Query: strings.TrimSpace(v.Get("query")), View: v.Get("view"), Size: pageSize(v), Sizes: pageSizes, Examples: c.examples()}
	p.Asked = p.Query != ""
	status := 0
	if p.Asked {
		if err := c.runQuery(r, v, &p); err != nil {
			if !ofQuery(err) {
				return err
			}
			status = http.StatusBadRequest
			p.Problem = c.explain(r.Context(), err)
		}
	}
	c.render(w, r, page{Template: "queries", Title: "Queries", Section: "Queries", Status: status, Data: p})
	return nil
}

func (c *Console) runQuery(r *http.Request, v url.Values, p *queryPage) error {
	got, err := c.opt.Client.QueryPage(r.Context(), p.Query, hubrest.PageRequest{Size: p.Size, From: v.Get("from"), Explain: true})
	if err != nil {
		return err
	}
	p.Plan = got.Plan
	p.Columns = namesOf(got.Rows)
	if p.More = len(p.Columns) - maxQueryColumns; p.More > 0 {
		p.Columns = p.Columns[:maxQueryColumns]
	}
	for _, doc := range got.Rows {
		p.Rows = append(p.Rows, newQueryRow(doc, p.Columns, p.View == "json"))
	}
	asked := url.Values{"query": {p.Query}}
	place := withValue(v, "query", p.Query)
	place.Del("view")
	p.TablePath, p.JSONPath = address("/queries", place), address("/queries", withValue(place, "view", "json"))
	p.CSVPath, p.NDJSONPath = address("/queries/export", withValue(asked, "format", "csv")), address("/queries/export", withValue(asked, "format", "ndjson"))
	if where, ok := conditionOf(p.Query); ok {
		p.ActPath = "/devices/act?" + url.Values{"where": {where}}.Encode()
	}
	p.Pager = newPager("/queries", v, got.Next)
	return nil
}

// queryOfDevices is one whose rows are devices, unless it groups them.
var queryOfDevices = regexp.MustCompile(`(?is)^\s*SELECT\s.+?\sFROM\s+devices(?:\s+WHERE\s+(.+?))?\s*$`)

// conditionOf returns the condition of a query whose rows are devices, "*" for all.
func conditionOf(query string) (string, bool) {
	found := queryOfDevices.FindStringSubmatch(query)
	switch {
	case found == nil || groupBy.MatchString(found[1]):
		return "", false
	case found[1] == "":
		return "*", true
	}
	return found[1], true
}

var groupBy = regexp.MustCompile(`(?i)\sGROUP\s+BY\s`)

func newQueryRow(doc json.RawMessage, columns []string, whole bool) queryRow {
	if whole {
		return queryRow{Text: indented(doc)}
	}
	var row queryRow
	values := map[string]json.RawMessage{}
	for _, m := range membersOf(doc) {
		values[m.Name] = m.Value
	}
	for _, name := range columns {
		row.Cells = append(row.Cells, newCell(values[name]))
	}
	row.Device = cellOf(values["deviceId"])
	return row
}

// moreColumn holds, in a table that is exported, the members that no column is for.
const moreColumn = "more"

// exportQuery answers with all rows of a query as a file.
func (c *Console) exportQuery(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	query, format := strings.TrimSpace(v.Get("query")), v.Get("format")
	switch {
	case query == "":
		return invalid("there is no query")
	case format != "csv" && format != "ndjson":
		return invalid(fmt.Sprintf("the format %q is neither csv nor ndjson", phrase.Clip(format)))
	}
	out := c.newDownload(w, "query", format)
	write := func(row json.RawMessage) error {
		_, err := out.Write(append(slices.Clip(row), '\n'))
		return err
	}
	finish := func() error { return nil }
	if format == "csv" {
		table := &rowTable{csv: csv.NewWriter(out)}
		write, finish = table.write, table.finish
	}
	for row, err := range c.opt.Client.Query(r.Context(), query, pageSizes[len(pageSizes)-1]) {
		if err == nil {
			err = write(row)
		}
		if err != nil {
			return out.end(err)
		}
	}
	return out.end(finish())
}

// A rowTable writes rows as CSV. Its columns are those of the first rows; what later ones have besides goes into one more.
type rowTable struct {
	csv     *csv.Writer
	columns []string
	first   []json.RawMessage
	begun   bool
}

// firstRows is how many rows are waited for, to see which columns there are.
const firstRows = 1000

func (t *rowTable) write(row json.RawMessage) error {
	if t.begun {
		return t.record(row)
	}
	if t.first = append(t.first, slices.Clone(row)); len(t.first) < firstRows {
		return nil
	}
	return t.begin(true)
}

// begin writes the names of the columns, and the first rows.
func (t *rowTable) begin(more bool) error {
	t.begun, t.columns = true, namesOf(t.first)
	if more {
		t.columns = append(t.columns, moreColumn)
	}
	header := make([]string, len(t.columns))
	for i, name := range t.columns {
		header[i] = harmless(name)
	}
	if len(header) == 0 {
		return nil
	}
	if err := t.csv.Write(header); err != nil {
		return err
	}
	for _, row := range t.first {
		if err := t.record(row); err != nil {
			return err
		}
	}
	t.first = nil
	return nil
}

func (t *rowTable) record(row json.RawMessage) error {
	record := make([]string, len(t.columns))
	rest := map[string]json.RawMessage{}
	for _, m := range membersOf(row) {
		i := slices.Index(t.columns, m.Name)
		if i < 0 {
			rest[m.Name] = m.Value
			continue
		}
		record[i] = cellOf(m.Value)
		if len(m.Value) > 0 && m.Value[0] == '"' {
			record[i] = harmless(record[i])
		}
	}
	if len(rest) > 0 {
		text, err := json.Marshal(rest)
		if err != nil {
			return err
		}
		record[len(record)-1] = string(text)
	}
	return t.csv.Write(record)
}

func (t *rowTable) finish() error {
	if !t.begun {
		if err := t.begin(false); err != nil {
			return err
		}
	}
	t.csv.Flush()
	return t.csv.Error()
}

// harmless is text that a spreadsheet does not take for a formula, which devices could have written.
func harmless(text string) string {
	if strings.IndexAny(text, "=+-@\t\r") == 0 {
		return "'" + text
	}
	return text
}
