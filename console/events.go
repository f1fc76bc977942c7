package console

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/eventdoc"
)

// An eventsPage shows what devices send: of all, or as a tab of one.
type eventsPage struct {
	deviceHead             // of a tab; else empty
	Filter     eventFilter // what is shown
	Sources    []eventChoice
	Views      []eventChoice
	Rows       []eventRow // those that were there, the newest first
	Problem    string     // why they are not known
	Past       string     // the address with which the hub is asked for them; empty: it was
	Live, Save string     // addresses
}

// An eventChoice is a value to choose, and what it is called.
type eventChoice struct{ Value, Name string }

// eventViews are ways to show an event: its body, or all of it.
var eventViews = []eventChoice{{"json", "JSON"}, {"raw", "raw"}, {"hex", "hexadecimal"}, {"all", "the whole event"}}

var eventSources = []eventChoice{
	{"", "all"},
	{string(hubrest.SourceTelemetry), "telemetry"},
	{string(hubrest.SourceTwinChange), "twin changes"},
	{string(hubrest.SourceDeviceLifecycle), "lifecycle of devices"},
	{string(hubrest.SourceConnectionState), "connections"},
}

const (
	maxPastEvents  = 50     // that a page shows of those that were there
	maxSavedEvents = 10_000 // that are saved as a file
	pastWait       = 400 * time.Millisecond
	pastLong       = 30 * time.Second // if the page is asked to wait
	saveWait       = time.Minute
	maxEventText   = 4 << 10 // of a body that is shown
	maxEventDoc    = 16 << 10
	maxEventLine   = 160 // of JSON that is shown on one line
)

// An eventFilter says which events are wanted, and how they are shown.
type eventFilter struct {
	on     hubrest.Target // of a tab
	Device string         // an id, or the beginning of one with * behind it; empty: all
	Source string         // empty: all
	As     string         // one of eventViews
}

func filterOf(r *http.Request) (eventFilter, error) {
	q := r.URL.Query()
	f := eventFilter{on: targetOf(r), Device: strings.TrimSpace(q.Get("device")), Source: q.Get("source"), As: q.Get("as")}
	if !slices.ContainsFunc(eventSources, func(s eventChoice) bool { return s.Value == f.Source }) {
		return f, invalid("there is no such source of events")
	}
	if f.As == "" {
		f.As = "json"
	}
	if !slices.ContainsFunc(eventViews, func(v eventChoice) bool { return v.Value == f.As }) {
		return f, invalid("events are shown as json, raw, hex or all")
	}
	return f, nil
}

// wants reports whether an event is one of those.
func (f eventFilter) wants(e *liveEvent) bool {
	if f.Source != "" && f.Source != e.Source {
		return false
	}
	if f.on.DeviceID != "" {
		return e.Device == f.on.DeviceID && (f.on.ModuleID == "" || e.Module == f.on.ModuleID)
	}
	begin, open := strings.CutSuffix(f.Device, "*")
	return f.Device == "" || e.Device == f.Device || open && strings.HasPrefix(e.Device, begin)
}

// path is an address with the filter, below the page's own.
func (f eventFilter) path(more ...string) string {
	base := "/events"
	if f.on.DeviceID != "" {
		base = identityPath(f.on, "events")
	}
	q := url.Values{"as": {f.As}}
	if f.Device != "" {
		q.Set("device", f.Device)
	}
	if f.Source != "" {
		q.Set("source", f.Source)
	}
	return strings.Join(append([]string{base}, more...), "/") + "?" + q.Encode()
}

func (c *Console) events(w http.ResponseWriter, r *http.Request) error {
	f, err := filterOf(r)
	if err != nil {
		return err
	}
	p := eventsPage{Filter: f, Sources: eventSources, Views: eventViews, Live: f.path("live"), Save: f.path("save")}
	section := "Events"
	if f.on.DeviceID != "" {
		section = "Devices"
		if p.deviceHead, err = c.head(r.Context(), f.on, "events"); err != nil {
			return err
		}
	}
	asked := r.URL.Query().Has("past")
	wait := pastWait
	if asked {
		wait = pastLong
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), wait, errSlowEvents)
	defer cancel()
	found, err := c.pastEvents(ctx, f, maxPastEvents, asked)
	slow := errors.Is(err, errSlowEvents) && !asked
	if err != nil && !slow {
		p.Problem = c.explain(ctx, err)
	}
	if slow || !c.opt.Client.OwnHub() && !asked && c.opt.Events != nil {
		p.Past = f.path() + "&past=yes"
	}
	for _, e := range slices.Backward(found) {
		p.Rows = append(p.Rows, c.eventRow(e, f.As))
	}
	title := "Events"
	if f.on.DeviceID != "" {
		title = titleOf(f.on, "Events")
	}
	c.render(w, r, page{Template: "events", Title: title, Section: section, Data: p})
	return nil
}

var errSlowEvents = &problem{status: http.StatusGatewayTimeout, text: "the hub takes too long to find the last events"}

// pastEvents returns the last events that the filter wants, the oldest first. A hub of iotdm is asked; of another one they
// are those that the console has seen, unless ask says that it may take the time to ask.
func (c *Console) pastEvents(ctx context.Context, f eventFilter, most int, ask bool) ([]liveEvent, error) {
	var found []liveEvent
	keep := func(e liveEvent) {
		if f.wants(&e) {
			found = append(found, e)
		}
	}
	switch {
	case c.may(ctx).ServiceConnect && c.opt.Client.OwnHub():
		q := hubrest.EventQuery{Device: f.on.DeviceID, Last: most}
		if !strings.HasSuffix(f.Device, "*") && q.Device == "" {
			q.Device = f.Device
		}
		if f.Source != "" {
			q.Sources = []hubrest.EventSource{hubrest.EventSource(f.Source)}
		}
		err := c.opt.Client.Events(ctx, q, nil, func(event json.RawMessage) error {
			e, err := parseEvent(bytes.Clone(event))
			keep(e)
			return err
		})
		return found, err
	case ask && c.opt.Events != nil:
		q := hubamqp.EventQuery{Last: most, Wants: func(e hubamqp.Event) bool {
			return f.wants(&liveEvent{Device: e.DeviceID, Module: e.ModuleID, Source: e.Source})
		}}
		err := c.opt.Events.Events(ctx, q, func(e hubamqp.Event) error {
			doc, err := json.Marshal(eventdoc.New(e, ""))
			if err != nil {
				return err
			}
			live, err := parseEvent(doc)
			keep(live)
			return err
		})
		if errors.Is(err, context.DeadlineExceeded) {
			err = errSlowEvents
		}
		return found, err
	}
	for _, e := range slices.Backward(c.live.newest(maxKept)) {
		keep(e)
	}
	return found[max(0, len(found)-most):], nil
}

// An eventRow is an event as a page shows it.
type eventRow struct {
	Key        string // tells it from all others
	At         time.Time
	On         hubrest.Target
	Source     string
	Text       string // the body, or all of it
	Dump       bool   // the body in hexadecimal
	Properties []eventProperty
}

// ownProperties are those that matter of events that the hub makes itself. The others repeat what the row has.
var ownProperties = []string{"opType", "iotdm-changed-by"}

// An eventProperty is one of the application's.
type eventProperty struct{ Name, Value string }

func (c *Console) eventRow(e liveEvent, as string) eventRow {
	row := eventRow{
		Key: e.partition + "/" + strconv.FormatInt(e.sequence, 10), At: e.Time, Source: e.Source,
		On: hubrest.Target{DeviceID: e.Device, ModuleID: e.Module},
	}
	if as == "all" {
		row.Text = cut(indented(e.Doc), maxEventDoc)
		return row
	}
	doc := gjson.ParseBytes(e.Doc).Get("event")
	row.Text, row.Dump = bodyText(doc.Get("payload"), doc.Get("payloadEncoding").String(), as)
	doc.Get("properties.application").ForEach(func(name, value gjson.Result) bool {
		if e.Source != sourceTelemetry && !slices.Contains(ownProperties, name.String()) {
			return true
		}
		row.Properties = append(row.Properties, eventProperty{cut(name.String(), 200), cut(value.String(), 1000)})
		return len(row.Properties) < 100
	})
	return row
}

// bodyText is a body as JSON over several lines, as it came, or in hexadecimal.
func bodyText(payload gjson.Result, encoding, as string) (text string, dump bool) {
	body := []byte(payload.Raw)
	if payload.Type == gjson.String {
		body = []byte(payload.Str)
	}
	binary := false
	if encoding == "base64" {
		if b, err := base64.StdEncoding.DecodeString(payload.Str); err == nil {
			body, binary = b, true
		}
	}
	switch {
	case as == "hex" || binary && as == "json":
		return cut(hex.Dump(body[:min(len(body), maxEventText/4)]), maxEventText), true
	case as == "raw":
		return cut(strings.ToValidUTF8(string(body), "\uFFFD"), maxEventText), false
	}
	if short := compacted(body); len(short) <= maxEventLine {
		return short, false
	}
	return cut(indented(body), maxEventText), false
}

// compacted is JSON on one line, and other text as it is.
func compacted(doc []byte) string {
	var b bytes.Buffer
	if json.Compact(&b, doc) != nil {
		return strings.ToValidUTF8(string(doc), "\uFFFD")
	}
	return b.String()
}

// followEvents streams rows as they come.
func (c *Console) followEvents(w http.ResponseWriter, r *http.Request) error {
	f, err := filterOf(r)
	if err != nil {
		return err
	}
	return c.stream(w, r, f.wants, func(e liveEvent) any {
		row := c.eventRow(e, f.As)
		var b strings.Builder
		if err := c.pages["events"].ExecuteTemplate(&b, "eventRow", row); err != nil {
			c.log.Error("console event", "error", err)
		}
		return map[string]string{"key": row.Key, "html": b.String()}
	})
}

// saveEvents answers with a file of the last events, a line of JSON each.
func (c *Console) saveEvents(w http.ResponseWriter, r *http.Request) error {
	f, err := filterOf(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), saveWait, errSlowEvents)
	defer cancel()
	found, err := c.pastEvents(ctx, f, maxSavedEvents, false)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="events.ndjson"`)
	for _, e := range found {
		w.Write(append(slices.Clone(e.Doc), '\n'))
	}
	return nil
}
