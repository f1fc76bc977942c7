package console_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hubrest"
)

// maxCrawl bounds how many pages crawl opens, of which those of devices are the most.
const maxCrawl = 300

// crawl opens all pages that links lead to, from the overview on, and returns them by path. Those that skip names are left
// out.
func (s *site) crawl(skip func(path string) bool) map[string]*doc {
	s.Helper()
	pages := map[string]*doc{}
	for todo := []string{"/"}; len(todo) > 0 && len(pages) < maxCrawl; todo = todo[1:] {
		path := todo[0]
		if pages[path] != nil || skip != nil && skip(path) {
			continue
		}
		answer, err := s.browser.Get(s.server.URL + path)
		if err != nil {
			s.Fatal(err)
		}
		if kind := answer.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/html") { // a file to save
			answer.Body.Close()
			continue
		}
		d := s.read(answer, nil)
		pages[path] = d
		for _, n := range d.all("a", "href", "*") {
			href, _ := attribute(n, "href")
			to, err := d.url.Parse(href)
			if err != nil {
				s.Errorf("%s has the link %q: %v", path, href, err)
				continue
			}
			if to.Host != d.url.Host {
				s.Errorf("%s leads to another site: %s", path, href)
				continue
			}
			to.Fragment = ""
			todo = append(todo, to.RequestURI())
		}
	}
	return pages
}

// evil is what a device may write.
const evil = `<script>alert(1)</script><img src=x onerror=alert(2)>"'` + "`" + `</textarea></script>javascript:alert(3){{.}}`

// furnish makes a hub with something on every page, much of it evil.
func (s *site) furnish() {
	s.Helper()
	ids := []string{"d1", "a#b?c=%41+%2F", "$'(*)!@;:=,", "import", "new"}
	for _, id := range ids {
		s.hub.Device(id)
	}
	s.hub.Module("d1", "m1")
	s.hub.Module("d1", "m#?%")
	for _, id := range ids[:2] {
		if _, err := s.service.PatchTwin(s.Context(), hubrest.Target{DeviceID: id}, hubrest.TwinChange{
			Tags: map[string]any{"site": evil, "deep": map[string]any{"er": evil}}, Desired: map[string]any{"<b>": evil},
		}); err != nil {
			s.Fatal(err)
		}
	}
	if err := s.hub.ReceiveTelemetry(hub.Peer{ID: hub.ID{Device: "d1"}}, hub.Telemetry{Body: []byte(evil), Properties: []hub.Property{{Name: evil, Value: evil}}}, func(error) {}); err != nil {
		s.Fatal(err)
	}
	if _, err := s.service.CreateJob(s.Context(), hubrest.JobRequest{ID: "j#1?", Condition: "deviceId = 'd1'", Twin: &hubrest.TwinChange{Tags: map[string]any{"x": evil}}}); err != nil {
		s.Fatal(err)
	}
	if _, err := s.service.CreateConfiguration(s.Context(), hubrest.Configuration{ID: "c1", TargetCondition: "*", Labels: map[string]string{evil: evil},
		Content: hubrest.ConfigurationContent{Device: map[string]json.RawMessage{"properties.desired.x": json.RawMessage(`"` + `<script>` + `"`)}}}); err != nil {
		s.Fatal(err)
	}
}

// TestEveryPage opens every page of a hub in which devices have written evil, and looks whether it is whole: no link to
// nowhere, no form to nowhere, nothing inline, a label for every field, and no element that a device has made.
func TestEveryPage(t *testing.T) {
	s := newSite(t)
	s.furnish()
	for range 2 { // the second time what came meanwhile shows, too
		for path, d := range s.crawl(nil) {
			t.Run(path, func(t *testing.T) {
				d.T = t
				if d.status != http.StatusOK {
					t.Errorf("status %d: %s", d.status, d.text("main"))
				}
				s.checkPage(d)
			})
		}
	}
}

// checkPage looks at one page.
func (s *site) checkPage(d *doc) {
	d.Helper()
	if got := len(d.all("h1")); got != 1 {
		d.Errorf("it has %d headings of the first level", got)
	}
	if d.text("title") == "" || len(d.all("main")) != 1 || len(d.all("html", "lang", "*")) != 1 {
		d.Error("it lacks a title, a main part or a language")
	}
	ids := map[string]bool{}
	for n := range d.root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if id, ok := attribute(n, "id"); ok {
			if ids[id] {
				d.Errorf("the id %q is there twice", id)
			}
			ids[id] = true
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" {
				d.Errorf("<%s> has the attribute %s, which the policy of the page forbids", n.Data, a.Key)
			}
			if slices.Contains([]string{"href", "src", "action"}, a.Key) && strings.HasPrefix(strings.ToLower(strings.TrimSpace(a.Val)), "javascript:") {
				d.Errorf("<%s> has the %s %s", n.Data, a.Key, a.Val)
			}
		}
		switch n.Data {
		case "script":
			if src, _ := attribute(n, "src"); !strings.HasPrefix(src, "/static/") || n.FirstChild != nil {
				d.Errorf("a script is not of ours: %q", textOf(n))
			}
		case "style", "iframe", "object", "embed", "b", "base":
			d.Errorf("it has an element <%s>", n.Data)
		case "img":
			d.Errorf("it has a picture")
		case "form":
			s.checkForm(d, n)
		case "table":
			if len(elements(n, "th")) == 0 {
				d.Error("a table has no headings")
			}
			for _, th := range elements(n, "th") {
				if _, ok := attribute(th, "scope"); !ok {
					d.Errorf("the heading %q of a table has no scope", textOf(th))
				}
			}
		case "input", "select", "textarea":
			if kind, _ := attribute(n, "type"); kind != "hidden" && !d.labelled(n) {
				name, _ := attribute(n, "name")
				d.Errorf("the field %q has no label", name)
			}
		}
	}
}

var placeholder = regexp.MustCompile(`\{[^}]+\}`)

// checkForm looks whether a form leads to an action, or to a page.
func (s *site) checkForm(d *doc, form *html.Node) {
	d.Helper()
	action, _ := attribute(form, "action")
	method, _ := attribute(form, "method")
	to, err := d.url.Parse(action)
	if err != nil || to.Host != d.url.Host {
		d.Errorf("a form leads to %q", action)
		return
	}
	if !strings.EqualFold(method, "post") {
		return
	}
	for path := range s.console.Actions() {
		pattern := "^" + placeholder.ReplaceAllString(regexp.QuoteMeta(strings.NewReplacer("{", "\x00", "}", "\x01").Replace(path)), "") + "$"
		pattern = regexp.MustCompile("\x00[^\x01]*\x01").ReplaceAllString(pattern, "[^/]+")
		if regexp.MustCompile(pattern).MatchString(to.EscapedPath()) {
			return
		}
	}
	for _, n := range elements(form, "button") { // buttons may lead elsewhere
		if _, ok := attribute(n, "formaction"); ok {
			return
		}
	}
	d.Errorf("a form leads to %q, which is no action", action)
}

// labelled reports whether a field has a label.
func (d *doc) labelled(field *html.Node) bool {
	for _, name := range []string{"aria-label", "aria-labelledby"} {
		if value, ok := attribute(field, name); ok && value != "" {
			return true
		}
	}
	for n := field.Parent; n != nil; n = n.Parent {
		if n.Data == "label" {
			return true
		}
	}
	id, ok := attribute(field, "id")
	return ok && len(d.all("label", "for", id)) > 0
}

func elements(n *html.Node, name string) []*html.Node {
	var found []*html.Node
	for c := range n.Descendants() {
		if c.Type == html.ElementNode && c.Data == name {
			found = append(found, c)
		}
	}
	return found
}

// TestEveryPageIsGuarded looks at the headers of pages, of files and of refusals.
func TestEveryPageIsGuarded(t *testing.T) {
	s := newSite(t)
	s.hub.Device("d1")
	paths := []string{"/", "/devices", "/device/d1", "/settings", "/login", "/no-such-page", "/static/none"}
	for _, path := range paths {
		h := s.ask("GET", path, nil).Header
		csp := h.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("%s: the policy lacks %s: %q", path, part, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") {
			t.Errorf("%s: the policy is too wide: %q", path, csp)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || h.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: %v", path, h)
		}
	}
}

// TestPagesOfAwkwardIDs asks for ids that mean something to a path.
func TestPagesOfAwkwardIDs(t *testing.T) {
	s := newSite(t)
	for _, id := range []string{"...", "a%2Fb", "#", "?", "%", "+", "*", "a=b;ModuleId=c", "$edgeAgent2", "'", "import"} {
		s.hub.Device(id)
		path := "/device/" + url.PathEscape(id)
		if d := s.try(path); d.status == http.StatusOK && !strings.Contains(d.text("h1"), id) {
			t.Errorf("%s shows %q", path, d.text("h1"))
		} else if d.status != http.StatusOK {
			t.Errorf("%s: status %d", path, d.status)
		}
	}
}
