package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/twinwatch"
)

// A twinPage shows a twin as trees.
type twinPage struct {
	deviceHead
	Twin     hubrest.Twin
	Sections []twinSection
	History  []historyRow // of a hub of iotdm: the last changes, the newest first
	Silent   string       // why there is no history; empty: there is, or nothing has changed
	Slow     bool         // the history takes longer than a page may
	JSON     string
}

// A twinSection is tags, desired or reported properties.
type twinSection struct {
	Name, Title string
	Version     int64 // 0: it has none
	Timed       bool  // it says when properties were written
	Rows        []treeRow
}

// A historyRow is a change of a twin.
type historyRow struct {
	At    time.Time
	By    string // empty: not known
	What  string
	Paths []string // the properties that it wrote or removed, the first maxHistoryPaths
	More  int      // how many others
}

const (
	maxHistory      = 50  // events that are read
	maxHistoryPaths = 12  // of an event that are named
	maxAuthored     = 500 // events that are looked through for who wrote what
	// A page waits so long for who made the changes, which in a large log are far apart; or longer, if it is asked to.
	historyWait = 80 * time.Millisecond
	historyLong = 30 * time.Second
)

func (c *Console) twin(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	t, err := c.opt.Client.Twin(r.Context(), on)
	if err != nil {
		return about(on, err)
	}
	p := twinPage{deviceHead: headOfTwin(on, t, "twin"), Twin: t, JSON: indented(t.Raw), Sections: []twinSection{
		{Name: "tags", Title: "Tags", Rows: treeOf(t.Tags)},
		{Name: "desired", Title: "Desired properties", Version: t.DesiredVersion, Timed: true, Rows: treeOf(t.Desired)},
		{Name: "reported", Title: "Reported properties", Version: t.ReportedVersion, Timed: true, Rows: treeOf(t.Reported)},
	}}
	if c.opt.Client.OwnHub() {
		wait := historyWait
		if r.URL.Query().Has("history") {
			wait = historyLong
		}
		h, err := c.history(r.Context(), on, wait)
		if p.Slow = errors.Is(err, errSlowHistory) && wait == historyWait; err != nil && !p.Slow {
			p.Silent = c.explain(r.Context(), err)
		}
		p.History = h.rows
		for _, s := range p.Sections {
			authors(s.Rows, h.by[s.Name])
		}
	}
	c.render(w, r, page{Template: "twin", Title: titleOf(on, "Twin"), Section: "Devices", Data: p})
	return nil
}

// A history is what the events of a hub of iotdm tell of a twin.
type history struct {
	rows []historyRow
	by   map[string]map[string]string // who wrote a property last, by section and path
}

// history reads the last events about a twin. It fails with errSlowHistory when that takes longer than wait.
func (c *Console) history(ctx context.Context, on hubrest.Target, wait time.Duration) (history, error) {
	h := history{by: map[string]map[string]string{"tags": {}, "desired": {}, "reported": {}}}
	ctx, cancel := context.WithTimeoutCause(ctx, wait, errSlowHistory)
	defer cancel()
	q := hubrest.EventQuery{Device: on.DeviceID, Sources: twinwatch.Sources, Last: maxAuthored}
	err := c.opt.Client.Events(ctx, q, nil, func(event json.RawMessage) error {
		if e := twinwatch.Parse(event); e.On == on {
			h.add(e)
		}
		return nil
	})
	slices.Reverse(h.rows)
	h.rows = h.rows[:min(len(h.rows), maxHistory)]
	return h, err
}

var errSlowHistory = &problem{status: http.StatusGatewayTimeout, text: "the hub takes too long to find out who changed this twin"}

func (h *history) add(e twinwatch.Event) {
	row := historyRow{At: e.At, By: e.By, What: wordsOf(e.Operation)}
	for _, section := range []string{"tags", "desired", "reported"} {
		written := e.Section(section)
		if e.Operation != "updateTwin" && section != "reported" {
			clear(h.by[section]) // all of it is new
		}
		for _, path := range leaves(written, "") {
			h.by[section][path] = e.By
			if len(row.Paths) < maxHistoryPaths {
				row.Paths = append(row.Paths, section+"."+path)
			} else {
				row.More++
			}
		}
	}
	h.rows = append(h.rows, row)
}

// wordsOf an operation of an event.
func wordsOf(operation string) string {
	switch operation {
	case "updateTwin":
		return "patched"
	case "replaceTwin":
		return "replaced"
	case "createDeviceIdentity", "createModuleIdentity":
		return "created"
	case "deleteDeviceIdentity", "deleteModuleIdentity":
		return "deleted"
	}
	return operation
}
