package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
)

// fleetRoutes are the pages and actions about many devices.
func (c *Console) fleetRoutes() []route {
	importing := post("/devices/import", nothing, c.rehearseImport) // what it needs depends on the file
	importing.limit = maxUpload
	return append(c.enrollmentRoutes(), []route{
		get("/devices", c.devices),
		get("/devices/new", c.newDevice),
		post("/devices", register, c.createDevice),
		get("/devices/act", c.act),
		post("/devices/act/method", schedule, c.actMethod),
		post("/devices/act/twin", schedule, c.actTwin),
		post("/devices/act/status", register, c.actStatus),
		post("/devices/act/delete", register, c.actDelete),
		get("/devices/import", c.importForm),
		importing,
		get("/devices/export", c.exportForm),
		post("/devices/export", nothing, c.export),
		get("/queries", c.queries),
		get("/queries/export", c.exportQuery),
		get("/jobs", c.jobs),
		get("/job/{id}", c.job),
		post("/job/{id}/cancel", schedule, c.cancelJob),
		get("/configurations", c.configurations),
		get("/configurations/new", c.newConfiguration),
		post("/configurations", configure, c.createConfiguration),
		get("/configuration/{id}", c.configuration),
		post("/configuration/{id}", configure, c.updateConfiguration),
		post("/configuration/{id}/delete", configure, c.deleteConfiguration),
		get("/run/{id}", c.showRun),
		post("/run/{id}/cancel", nothing, c.cancelRun),
		post("/run/{id}/import", nothing, c.applyImport),
	}...)
}

const (
	maxColumns = 12
	maxChoices = 40 // of columns that are offered
)

// devicesPage is the data of the list of devices.
type devicesPage struct {
	Filter    deviceFilter
	Terms     []filterTerm // of the filter, and an empty one
	Operators []operator
	Columns   []string
	Choices   []columnChoice
	Size      int
	Sizes     []int
	Filtered  bool
	Condition string // of the filter; "*" for all
	Problem   string // why there are no rows
	Rows      []deviceRow
	Plan      hubrest.QueryPlan
	Scope     *scope // how many there are; nil: nobody has asked
	CountPath string
	Pager     pager
}

// A columnChoice is a column that the list may have.
type columnChoice struct {
	Path  string
	Shown bool
}

// A deviceRow is a device in the list.
type deviceRow struct {
	DeviceID         string         `json:"deviceId"`
	Status           hubrest.Status `json:"status"`
	ConnectionState  string         `json:"connectionState"`
	LastActivityTime hubrest.Time   `json:"lastActivityTime"`

	Cells []cell `json:"-"`
}

// A cell is a value in a table.
type cell struct {
	Text string
	Full string // if Text is only its beginning
}

// Class is how the stylesheet sees the cell: a long one gets room for its lines.
func (c cell) Class() string {
	if len(c.Text) > 40 {
		return "value long"
	}
	return "value"
}

func newCell(value json.RawMessage) cell {
	full := cellOf(value)
	if text := clipped(full); text != full {
		return cell{text, full}
	}
	return cell{Text: full}
}

// pageSizes are how many rows a page of a list may have: IoT Hub's pages have 100 at most.
var pageSizes = []int{25, 50, 100}

func pageSize(v url.Values) int {
	if n, err := strconv.Atoi(v.Get("size")); err == nil && slices.Contains(pageSizes, n) {
		return n
	}
	return 50
}

// A pager leads to the pages of a list. There is no way back but to the first: a hub's list goes forward.
type pager struct {
	Number      int    // of this page, from 1
	First, Next string // addresses; empty: there is none
}

// newPager returns the pager of a list at path, whose pages have the values v besides.
func newPager(path string, v url.Values, next string) pager {
	p := pager{Number: 1}
	if n, err := strconv.Atoi(v.Get("page")); err == nil && n > 1 && v.Get("from") != "" {
		p.Number = n
	}
	to := url.Values{}
	for name, values := range v {
		if name != "from" && name != "page" && name != "count" {
			to[name] = values
		}
	}
	if v.Get("from") != "" {
		p.First = address(path, to)
	}
	if next != "" {
		to.Set("from", next)
		to.Set("page", strconv.Itoa(p.Number+1))
		p.Next = address(path, to)
	}
	return p
}

func address(path string, v url.Values) string {
	if len(v) == 0 {
		return path
	}
	return path + "?" + v.Encode()
}

func (c *Console) devices(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	d := devicesPage{Filter: readFilter(v), Operators: operators, Size: pageSize(v), Sizes: pageSizes}
	d.Terms = append(slices.Clone(d.Filter.Terms), filterTerm{Operator: "="})
	err := c.listDevices(r.Context(), v, &d)
	status := 0
	if err != nil {
		if !ofQuery(err) {
			return err
		}
		status = http.StatusBadRequest
		d.Problem = c.explain(r.Context(), err)
	}
	c.render(w, r, page{Template: "devices", Title: "Devices", Section: "Devices", Status: status, Data: d})
	return nil
}

func (c *Console) listDevices(ctx context.Context, v url.Values, d *devicesPage) error {
	where, err := d.Filter.condition()
	if err != nil {
		return err
	}
	d.Condition, d.Filtered = where, where != ""
	if where == "" {
		d.Condition = "*"
	}
	for _, path := range v["column"] {
		for path := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == ',' || r == ' ' }) {
			full, err := twinPath(path)
			if err != nil {
				return err
			}
			if !slices.Contains(d.Columns, full) {
				d.Columns = append(d.Columns, full)
			}
		}
	}
	if len(d.Columns) > maxColumns {
		return invalid(fmt.Sprintf("a list has up to %d columns of your own", maxColumns))
	}
	got, err := c.opt.Client.QueryPage(ctx, "SELECT * FROM devices"+condition.Where(d.Condition),
		hubrest.PageRequest{Size: d.Size, From: v.Get("from"), Explain: true})
	if err != nil {
		return err
	}
	d.Plan = got.Plan
	for _, doc := range got.Rows {
		var row deviceRow
		if err := json.Unmarshal(doc, &row); err != nil {
			return fmt.Errorf("list the devices: the hub's answer is not as documented: %w", err)
		}
		for _, path := range d.Columns {
			row.Cells = append(row.Cells, newCell(valueAt(doc, path)))
		}
		d.Rows = append(d.Rows, row)
	}
	d.Choices = columnChoices(got.Rows, d.Columns)
	shown := d.values()
	d.Pager = newPager("/devices", withValue(shown, "from", v.Get("from"), "page", v.Get("page")), got.Next)
	d.CountPath = address("/devices", withValue(shown, "from", v.Get("from"), "page", v.Get("page"), "count", "1"))
	if v.Get("count") != "" {
		d.Scope, err = c.countScope(ctx, d.Condition)
	}
	return err
}

// values are what the list is asked for by, apart from the place.
func (d *devicesPage) values() url.Values {
	v := d.Filter.values()
	v["column"] = d.Columns
	v.Set("size", strconv.Itoa(d.Size))
	return v
}

// withValue returns v with more values, those that are not empty.
func withValue(v url.Values, pairs ...string) url.Values {
	more := url.Values{}
	for name, values := range v {
		more[name] = values
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			more.Set(pairs[i], pairs[i+1])
		}
	}
	return more
}

// columnChoices are the columns that are shown, and then those that the rows could have.
func columnChoices(rows []json.RawMessage, shown []string) []columnChoice {
	var all []columnChoice
	seen := map[string]bool{}
	for _, path := range shown {
		all, seen[path] = append(all, columnChoice{path, true}), true
	}
	add := func(path string) {
		if !seen[path] && len(all) < maxChoices {
			if full, err := twinPath(path); err == nil {
				all = append(all, columnChoice{Path: full})
			}
			seen[path] = true
		}
	}
	for _, section := range []string{"tags", "properties.reported", "properties.desired"} {
		for _, doc := range rows {
			for _, m := range membersOf(valueAt(doc, section)) {
				if !strings.HasPrefix(m.Name, "$") && !strings.Contains(m.Name, ".") {
					add(section + "." + m.Name)
				}
			}
		}
	}
	for _, path := range []string{"statusReason", "authenticationType", "cloudToDeviceMessageCount", "version"} {
		add(path)
	}
	return all
}

// A scope is how many devices a condition chooses, as they were counted.
type scope struct {
	Condition string // as jobs have it: "*" is all
	Devices   int
	Connected int
}

// countScope asks the hub, once, how many devices meet a condition.
func (c *Console) countScope(ctx context.Context, where string) (*scope, error) {
	sc := &scope{Condition: where}
	for row, err := range c.opt.Client.Query(ctx, "SELECT connectionState, COUNT() AS n FROM devices"+condition.Where(where)+" GROUP BY connectionState", 0) {
		if err != nil {
			return nil, err
		}
		var group struct {
			ConnectionState string
			N               int
		}
		if err := json.Unmarshal(row, &group); err != nil {
			return nil, errors.New("count the devices: the hub's answer is not as documented")
		}
		sc.Devices += group.N
		if group.ConnectionState == "Connected" {
			sc.Connected += group.N
		}
	}
	return sc, nil
}
