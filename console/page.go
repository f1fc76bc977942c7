package console

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hubrest"
)

//go:embed templates static
var files embed.FS

// pages are the parsed templates by name: each the layout with a "main" of its own.
type pages map[string]*template.Template

// A page is what a handler renders.
type page struct {
	Template string // its file in templates, without .html
	Title    string
	Section  string // the entry of the navigation that it belongs to
	Status   int    // 0: 200
	Data     any    // the template's own

	bare bool // without navigation: nobody has logged in
}

// A view is what templates see.
type view struct {
	page
	Hub, Policy string
	Nav         []navItem
	Flashes     []flash
	May         rights
	OwnHub      bool // it is a hub of iotdm, as far as is known
	Theme       string
	Now         time.Time
	User        string
}

// Bare reports whether the page has no navigation.
func (v view) Bare() bool { return v.bare }

func (c *Console) parsePages() (pages, error) {
	base, err := template.New("layout.html").Funcs(c.functions()).ParseFS(files, "templates/layout*.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return nil, err
	}
	all := pages{}
	for _, name := range names {
		short := strings.TrimSuffix(path.Base(name), ".html")
		if strings.HasPrefix(short, "layout") {
			continue
		}
		t, err := template.Must(base.Clone()).ParseFS(files, name)
		if err != nil {
			return nil, err
		}
		all[short] = t
	}
	return all, nil
}

// render answers with a page.
func (c *Console) render(w http.ResponseWriter, r *http.Request, p page) {
	v := view{page: p, Theme: themeOf(r), Now: c.now().UTC()}
	if !p.bare { // who has not logged in learns nothing
		v.Hub, v.Policy, v.User = c.opt.HubName, c.opt.Policy, userOf(r)
		v.Nav, v.May, v.OwnHub = c.nav(p.Section), c.may(r.Context()), c.opt.Client.OwnHub()
		v.Flashes = sessionOf(r).takeFlashes()
	}
	var b bytes.Buffer
	if err := c.pages[p.Template].ExecuteTemplate(&b, "layout.html", v); err != nil {
		c.log.Error("console page", "template", p.Template, "error", err)
		http.Error(w, "This page cannot be shown; the log of the console says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if p.Status != 0 {
		w.WriteHeader(p.Status)
	}
	w.Write(b.Bytes())
}

// done answers an action that went well: the browser goes to a page that says so.
func (c *Console) done(w http.ResponseWriter, r *http.Request, to, text string) error {
	return c.leave(w, r, to, flash{Text: text})
}

// failed answers an action that did not, where the page it came from is the best place to say so.
func (c *Console) failed(w http.ResponseWriter, r *http.Request, to string, err error) error {
	return c.leave(w, r, to, flash{Bad: true, Text: c.explain(r.Context(), err)})
}

func (c *Console) leave(w http.ResponseWriter, r *http.Request, to string, f flash) error {
	if f.Text != "" {
		sessionOf(r).flash(f)
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// confirmed returns an error unless the user has typed what a dangerous action asks for, in the field "confirm".
func confirmed(r *http.Request, want string) error {
	if strings.TrimSpace(r.PostFormValue("confirm")) != want {
		return invalid(fmt.Sprintf("nothing was done: type %q to confirm", want))
	}
	return nil
}

// idPath is an id as a segment of a path. Every legal id works: "." and "..", which browsers take out of a path, get a
// tilde in front, and so do those that begin with one, as configurations may.
func idPath(id string) string {
	if id == "." || id == ".." || strings.HasPrefix(id, "~") {
		id = "~" + id
	}
	return url.PathEscape(id)
}

// pathID returns the id in a path that idPath made.
func pathID(r *http.Request, name string) string { return strings.TrimPrefix(r.PathValue(name), "~") }

// devicePath is the address of a device's page, or of one of its tabs.
func devicePath(id string, tab ...string) string {
	return "/device/" + strings.Join(append([]string{idPath(id)}, tab...), "/")
}

// functions are what templates call.
func (c *Console) functions() template.FuncMap {
	return template.FuncMap{
		"asset":  c.assets.url,
		"device": devicePath,
		"id":     idPath,
		"number": number[int],
		"count":  number[int64],
		"time":   func(t any) timeView { return c.timeView(t) },
		"dict":   dict,
		"query":  url.QueryEscape,
		"sum":    func(a, b int) int { return a + b },
		"source": sourceName,
	}
}

// sourceName words the source of an event.
func sourceName(source string) string {
	switch hubrest.EventSource(source) {
	case hubrest.SourceTelemetry:
		return "telemetry"
	case hubrest.SourceTwinChange:
		return "twin changed"
	case hubrest.SourceDeviceLifecycle:
		return "identity changed"
	case hubrest.SourceConnectionState:
		return "connection"
	}
	return source
}

// number writes n with a space after every three digits.
func number[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// A timeView is an instant as pages show it.
type timeView struct {
	Machine string // for the datetime attribute; empty: never
	Full    string // in UTC
	Ago     string // such as "3 min ago"
}

func (c *Console) timeView(v any) timeView {
	var t time.Time
	switch v := v.(type) {
	case time.Time:
		t = v
	case hubrest.Time:
		t = v.Time
	}
	if t.IsZero() {
		return timeView{}
	}
	t = t.UTC()
	return timeView{Machine: t.Format(time.RFC3339), Full: t.Format("2006-01-02 15:04:05") + " UTC", Ago: ago(c.now().Sub(t))}
}

// ago words how long something is past, or still to come.
func ago(d time.Duration) string {
	format := "%s ago"
	if d < 0 {
		d, format = -d, "in %s"
	}
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}} {
		if d >= unit.size {
			return fmt.Sprintf(format, fmt.Sprintf("%d %s", d/unit.size, unit.name))
		}
	}
	return "now"
}

// dict makes a map of pairs of names and values, for a template that takes several.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("dict: a name has no value")
	}
	m := make(map[string]any, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict: %v is no name", pairs[i])
		}
		m[name] = pairs[i+1]
	}
	return m, nil
}
