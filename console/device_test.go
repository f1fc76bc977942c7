package console_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/hubrest"
)

// create registers a device, whose keys the registry returns.
func (s *site) create(id string) hubrest.Device {
	s.Helper()
	d, err := s.service.CreateDevice(s.Context(), hubrest.Device{DeviceID: id})
	if err != nil {
		s.Fatal(err)
	}
	return d
}

// createModule registers a module of a device.
func (s *site) createModule(device, module string) hubrest.Module {
	s.Helper()
	m, err := s.service.CreateModule(s.Context(), hubrest.Module{DeviceID: device, ModuleID: module})
	if err != nil {
		s.Fatal(err)
	}
	return m
}

// patch changes a twin as the policy iothubowner.
func (s *site) patch(device, tags, desired string) hubrest.Twin {
	s.Helper()
	var change hubrest.TwinChange
	if tags != "" {
		change.Tags = json.RawMessage(tags)
	}
	if desired != "" {
		change.Desired = json.RawMessage(desired)
	}
	t, err := s.service.PatchTwin(s.Context(), hubrest.Target{DeviceID: device}, change)
	if err != nil {
		s.Fatal(err)
	}
	return t
}

// The tabs of a device and of a module.
var (
	deviceTabs = []string{"", "/twin", "/twin/edit", "/methods", "/messages", "/events", "/modules", "/reboot", "/mqtt"}
	moduleTabs = []string{"", "/twin", "/twin/edit", "/methods", "/events", "/mqtt"}
)

// awkwardIDs are legal, and mean something to a path, a query or a page.
var awkwardIDs = []string{
	"a#b", "a?b=c", "100%", "a%2Fb", "a%41", "a+b", "a'b", "a;b", "a=b&c"[:3], "$edgeAgent2", "...", "*", "?", "#", "modules", "twin", "a-:.+%_#*?!(),=@;$'z",
	strings.Repeat("x", 128),
}

func TestEveryLegalIDHasItsPages(t *testing.T) {
	s := newSite(t)
	for _, id := range awkwardIDs {
		t.Run(id, func(t *testing.T) {
			s.create(id)
			s.createModule(id, id)
			path := "/device/" + url.PathEscape(id)
			for _, tab := range deviceTabs {
				d := s.get(path + tab)
				if h1 := d.text("h1"); h1 != id {
					t.Errorf("%s%s: the title is %q", path, tab, h1)
				}
				for _, a := range d.all("a", "href", "*") {
					if href, _ := attribute(a, "href"); strings.HasPrefix(href, "/device/") && !strings.HasPrefix(href, path) {
						t.Errorf("%s%s leads to %s", path, tab, href)
					}
				}
			}
			for _, tab := range moduleTabs {
				s.get(path + "/module/" + url.PathEscape(id) + tab).says("Module " + id)
			}
			s.post(path+"/status", "status", "disabled").says("Device " + id + " is disabled.")
			d := s.get(path)
			s.post(path+"/delete", "confirm", id, "etag", d.value("form", path+"/delete", "etag")).says("Device " + id + " is deleted.")
			if d := s.try(path); d.status != http.StatusNotFound {
				t.Errorf("%s behind its end: status %d", path, d.status)
			}
		})
	}
}

// value is that of a field of the form with an action.
func (d *doc) value(_, action, field string) string {
	d.Helper()
	for _, form := range d.all("form") {
		if a, _ := attribute(form, "action"); unescaped(a) != unescaped(action) {
			continue
		}
		for n := range form.Descendants() {
			if name, _ := attribute(n, "name"); name == field {
				if n.Data == "textarea" {
					return rawText(n)
				}
				value, _ := attribute(n, "value")
				return value
			}
		}
	}
	d.Fatalf("%s has no form %s with a field %s", d.url, action, field)
	return ""
}

func unescaped(path string) string {
	plain, err := url.PathUnescape(path)
	if err != nil {
		return path
	}
	return plain
}

// Ids that are a step in a path are legal, too. The hub cannot be asked about them, and the page says so.
func TestIdsThatAreStepsOfAPath(t *testing.T) {
	s := newSite(t)
	for _, id := range []string{"~.", "~.."} {
		d := s.try("/device/" + id)
		if d.status == http.StatusOK || d.url.Path != "/device/"+id {
			t.Errorf("/device/%s: status %d at %s", id, d.status, d.url.Path)
		}
		d.says("can't be part of a URL")
	}
}

// markup is what a device or a service may write into a twin.
const markup = `</pre></td><script>alert(1)</script><img src=x onerror=alert(1)>'"&amp;{{.}}`

func TestTextOfDevicesIsNoMarkup(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	quoted := `"` + strings.ReplaceAll(markup, `"`, `\"`) + `"` // in JSON, without escapes that would help
	s.patch("d1", fmt.Sprintf(`{"site":%s}`, quoted), fmt.Sprintf(`{"a":{"<b>bold</b>":%s}}`, quoted))
	s.report("d1", map[string]any{"r": json.RawMessage(quoted), "rebootTime": markup})
	s.send("d1", markup, map[string]string{"p": markup})
	for _, path := range []string{"/device/d1", "/device/d1/twin?history=all", "/device/d1/twin/edit", "/device/d1/events?past=yes", "/events?past=yes", "/events?past=yes&as=raw", "/events?past=yes&as=all", "/device/d1/reboot"} {
		d := s.get(path)
		if strings.Contains(d.body, "<script>alert") || strings.Contains(d.body, "<img src=x") || strings.Contains(d.body, "<b>bold") {
			t.Errorf("%s has markup of the device's:\n%s", path, d.body)
		}
		for _, script := range d.all("script") {
			if _, ok := attribute(script, "src"); !ok {
				t.Errorf("%s has a script inline", path)
			}
		}
	}
	s.get("/device/d1/twin").says("<script>alert(1)</script>")
	s.get("/events?past=yes").says("<script>alert(1)</script>")
	if d := s.try("/device/" + url.PathEscape(markup)); d.status == http.StatusOK || strings.Contains(d.body, "<script>alert") {
		t.Errorf("a device of that name: status %d\n%s", d.status, d.body)
	}
}

// deviceActions are all that can be asked of a device or module by a form, and what it takes.
var deviceActions = []struct {
	path string
	form []string
}{
	{"/status", []string{"status", "disabled"}},
	{"/delete", []string{"confirm", "d1", "etag", "x"}},
	{"/renew", []string{"which", "both", "etag", "x"}},
	{"/twin/edit", []string{"text", `{"tags":{"x":1},"desired":{}}`, "base", `{"tags":{},"desired":{}}`, "etag", "x", "step", "save"}},
	{"/methods", []string{"name", "x", "timeout", "5", "connect", "0"}},
	{"/messages", []string{"body", "x", "minutes", "1"}},
	{"/purge", []string{"confirm", "d1"}},
	{"/modules", []string{"module", "m1"}},
	{"/reboot", []string{"name", "x", "timeout", "5", "connect", "0"}},
	{"/keys", nil},
	{"/token", []string{"minutes", "5"}},
	{"/mqtt", []string{"minutes", "5"}},
}

// unchanged fails if something has been done to device d1 since before.
func (s *site) unchanged(before hubrest.Device) {
	s.Helper()
	now, err := s.service.Device(s.Context(), "d1")
	if err != nil || now.ETag != before.ETag || now.Status != before.Status || now.CloudToDeviceMessageCount != 0 {
		s.Errorf("the device was changed: %v", err)
	}
	t, err := s.service.Twin(s.Context(), hubrest.Target{DeviceID: "d1"})
	if err != nil || t.Tags != nil {
		s.Errorf("the twin was changed: %s, %v", t.Tags, err)
	}
	if list, err := s.service.Modules(s.Context(), "d1"); err != nil || len(list) != 0 {
		s.Errorf("a module was created: %v", err)
	}
}

func TestAReadOnlyConsoleChangesNoDevice(t *testing.T) {
	s := newSite(t, func(o *console.Options) { o.ReadOnly = true })
	before := s.create("d1")
	for _, action := range deviceActions {
		d := s.post("/device/d1"+action.path, action.form...)
		if d.status != http.StatusForbidden {
			t.Errorf("%s: status %d, want 403", action.path, d.status)
		}
		d.says("read-only")
		s.shows(d, before, false)
	}
	for _, tab := range deviceTabs {
		if tab == "/twin/edit" {
			continue
		}
		d := s.get("/device/d1" + tab)
		for _, form := range d.all("form") {
			if method, _ := attribute(form, "method"); method != "get" {
				if action, _ := attribute(form, "action"); action != "/logout" {
					t.Errorf("%s offers %s", tab, action)
				}
			}
		}
	}
	s.unchanged(before)
}

// What a policy may not do is refused, and pages do not offer it.
func TestRightsOnADevice(t *testing.T) {
	for _, tt := range []struct {
		policy  string
		refused []string // of deviceActions
		tabs    map[string]int
	}{
		{"service", []string{"/status", "/delete", "/renew", "/modules", "/keys", "/token", "/mqtt"}, map[string]int{"": 200, "/twin": 200, "/modules": 200, "/events": 200}},
		{"registryRead", []string{"/status", "/delete", "/renew", "/modules", "/twin/edit", "/methods", "/messages", "/purge", "/reboot"},
			map[string]int{"": 200, "/twin": 403, "/methods": 200, "/messages": 200, "/modules": 200, "/mqtt": 200, "/events": 200, "/reboot": 200}},
	} {
		t.Run(tt.policy, func(t *testing.T) {
			s := newSiteAs(t, tt.policy)
			before := s.create("d1")
			for tab, want := range tt.tabs {
				d := s.try("/device/d1" + tab)
				if d.status != want {
					t.Errorf("%s: status %d, want %d: %s", tab, d.status, want, d.text("main"))
				}
				for _, refused := range tt.refused {
					if len(d.all("form", "action", "/device/d1"+refused)) > 0 {
						t.Errorf("%s offers %s, which is refused", tab, refused)
					}
				}
			}
			for _, action := range deviceActions {
				for _, refused := range tt.refused {
					if refused != action.path {
						continue
					}
					d := s.post("/device/d1"+action.path, action.form...)
					if d.status != http.StatusForbidden {
						t.Errorf("%s: status %d, want 403: %s", action.path, d.status, d.text("main"))
					}
					s.shows(d, before, false)
				}
			}
			s.unchanged(before)
		})
	}
}

// Another site's page cannot have a browser do anything, or see keys.
func TestForeignPagesCannotActOnADevice(t *testing.T) {
	s := newSite(t)
	before := s.create("d1")
	for _, action := range deviceActions {
		form := url.Values{}
		for i := 0; i < len(action.form); i += 2 {
			form.Set(action.form[i], action.form[i+1])
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.server.URL+"/device/d1"+action.path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "https://evil.example")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		d := s.read(s.browser.Do(r))
		if d.status != http.StatusForbidden {
			t.Errorf("%s: status %d, want 403", action.path, d.status)
		}
		s.shows(d, before, false)
	}
	s.unchanged(before)
	for _, path := range []string{"/device/d1", "/device/d1/twin/live", "/events/live", "/events/save"} {
		answer, err := s.newBrowser().Get(s.server.URL + path)
		if d := s.read(answer, err); d.url.Path != "/login" && d.status == http.StatusOK {
			t.Errorf("%s without a login: status %d", path, d.status)
		}
	}
}
