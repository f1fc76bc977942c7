package console_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/iotdm/iotdm/hubrest"
)

// rows are the cells of the tables in an element, as one reads them.
func rows(n *html.Node) [][]string {
	var all [][]string
	for row := range n.Descendants() {
		if row.Data != "tr" {
			continue
		}
		var cells []string
		for cell := range row.Descendants() {
			if cell.Data == "td" || cell.Data == "th" {
				cells = append(cells, textOf(cell))
			}
		}
		all = append(all, cells)
	}
	return all
}

func TestATwinIsATreeWithTimesAndAuthors(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	s.patch("d1", `{"site":"north"}`, `{"network":{"wifi":{"ssid":"plant"}},"interval":1.10}`)
	s.report("d1", map[string]any{"firmware": "2.1"})
	other := s.client("service")
	if _, err := other.PatchTwin(t.Context(), hubrest.Target{DeviceID: "d1"}, hubrest.TwinChange{Desired: map[string]any{"interval": 60}}); err != nil {
		t.Fatal(err)
	}
	var d *doc
	until(t, func() bool { // events of twins are stored a moment later
		d = s.get("/device/d1/twin?history=all")
		return strings.Contains(d.text("main"), "policy service")
	})
	var got [][]string
	for _, row := range rows(d.one("div", "id", "desired"))[1:] {
		if len(row) != 4 || row[2] == "" {
			t.Fatalf("a row without a time: %q", row)
		}
		got = append(got, []string{row[0], row[1], row[3]})
	}
	want := [][]string{
		{"network", "", "policy iothubowner"}, {"wifi", "", "policy iothubowner"}, {"ssid", `"plant"`, "policy iothubowner"},
		{"interval", "60", "policy service"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("desired properties (-want +got):\n%s", diff)
	}
	if row := rows(d.one("div", "id", "reported"))[1]; row[0] != "firmware" || row[1] != `"2.1"` || row[3] != "device d1" {
		t.Errorf("reported properties: %q", row)
	}
	if row := rows(d.one("div", "id", "tags"))[1]; row[0] != "site" || row[2] != "policy iothubowner" {
		t.Errorf("tags: %q", row)
	}
	history := rows(d.one("div", "id", "history"))
	if first := history[1]; first[1] != "policy service" || first[2] != "patched desired.interval" {
		t.Errorf("the last change: %q", first)
	}
	if last := history[len(history)-1]; !strings.HasPrefix(last[2], "created") {
		t.Errorf("the first change: %q", last)
	}
}

// edit is the editor of a twin, open.
type edit struct{ base, etag, text string }

func (s *site) edit(path string) edit {
	s.Helper()
	return editIn(s.get(path+"/twin/edit"), path)
}

func editIn(d *doc, path string) edit {
	d.Helper()
	action := path + "/twin/edit"
	return edit{d.value("form", action, "base"), d.value("form", action, "etag"), d.value("form", action, "text")}
}

func (s *site) submit(path, step string, e edit) *doc {
	s.Helper()
	return s.post(path+"/twin/edit", "base", e.base, "etag", e.etag, "text", e.text, "step", step)
}

func (s *site) section(on hubrest.Target) (tags, desired string) {
	s.Helper()
	t, err := s.service.Twin(s.Context(), on)
	if err != nil {
		s.Fatal(err)
	}
	desired, _, _ = strings.Cut(string(t.Desired), `"$metadata"`)
	return string(t.Tags), strings.TrimSuffix(desired, ",")
}

func TestATwinIsEdited(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	s.createModule("d1", "m1")
	s.patch("d1", `{"site":"north"}`, `{"interval":1.10,"old":true}`)
	e := s.edit("/device/d1")
	e.text = strings.ReplaceAll(strings.ReplaceAll(e.text, "1.10", "1e3"), ",\n    \"old\": true", "")
	d := s.submit("/device/d1", "review", e)
	want := [][]string{{"Property", "What", "Before", "After"}, {"desired.interval", "changed", "1.10", "1e3"}, {"desired.old", "removed", "true", "nothing"}}
	if diff := cmp.Diff(want, rows(d.one("table"))); diff != "" {
		t.Errorf("the review (-want +got):\n%s", diff)
	}
	if _, desired := s.section(hubrest.Target{DeviceID: "d1"}); desired != `{"interval":1.10,"old":true` {
		t.Errorf("the review has changed the twin: %s", desired)
	}
	s.submit("/device/d1", "edit", editIn(d, "/device/d1")).one("textarea", "id", "text")
	s.submit("/device/d1", "save", editIn(d, "/device/d1")).says("The twin is now version 4.")
	if tags, desired := s.section(hubrest.Target{DeviceID: "d1"}); tags != `{"site":"north"}` || desired != `{"interval":1e3` {
		t.Errorf("the twin is %s, %s", tags, desired)
	}
	s.submit("/device/d1", "review", s.edit("/device/d1")).says("Nothing was changed.")

	m := s.edit("/device/d1/module/m1")
	m.text = `{"tags": {}, "desired": {"x": [1, 2]}}`
	d = s.submit("/device/d1/module/m1", "review", m)
	s.submit("/device/d1/module/m1", "save", editIn(d, "/device/d1/module/m1")).says("The twin is now version")
	if _, desired := s.section(hubrest.Target{DeviceID: "d1", ModuleID: "m1"}); desired != `{"x":[1,2]` {
		t.Errorf("the module's twin is %s", desired)
	}
}

func TestWhatCannotBeSavedStaysInTheForm(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	for text, want := range map[string]string{
		"{\"tags\": {},\n \"desired\": {,}}":          "Line 2: invalid character ','",
		`{"tags": {}}`:                                "Desired is missing",
		`{"tags": {}, "desired": {}, "reported": {}}`: `"reported" is neither tags nor desired`,
		`{"tags": {}, "desired": {"a": <script>}}`:    "Line 1: invalid character '<'",
		"":                                   "unexpected end of JSON input",
		`{"tags": {"$a": 1}, "desired": {}}`: "$a",
		`{"tags": {}, "desired": {"a": "` + strings.Repeat("x", 5000) + `"}}`: "",
	} {
		e := s.edit("/device/d1")
		e.text = text
		d := s.submit("/device/d1", "save", e)
		if d.status != http.StatusUnprocessableEntity {
			t.Errorf("%.40q: status %d: %s", text, d.status, d.text("main"))
			continue
		}
		d.says(want)
		if got := d.value("form", "/device/d1/twin/edit", "text"); got != text {
			t.Errorf("the form has %.40q, want %.40q", got, text)
		}
	}
	if d := s.post("/device/d1/twin/edit", "text", "{}", "step", "save"); d.status != http.StatusBadRequest {
		t.Errorf("a form that is not whole: status %d", d.status)
	}
	if tags, desired := s.section(hubrest.Target{DeviceID: "d1"}); tags != "" || desired != "{" {
		t.Errorf("the twin is %s, %s", tags, desired)
	}
}

func TestTwoWhoEditAtOnce(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	s.patch("d1", `{"site":"north"}`, `{"a":1,"b":1}`)
	on := hubrest.Target{DeviceID: "d1"}

	t.Run("different properties are merged", func(t *testing.T) {
		e := s.edit("/device/d1")
		e.text = strings.ReplaceAll(e.text, `"a": 1`, `"a": 2`)
		s.patch("d1", "", `{"b":2}`)
		d := s.submit("/device/d1", "save", e)
		if d.status != http.StatusConflict {
			t.Fatalf("status %d: %s", d.status, d.text("main"))
		}
		d.says("Somebody else has written meanwhile")
		d.says("desired.b changed 1 2")
		if _, desired := s.section(on); desired != `{"a":1,"b":2` {
			t.Fatalf("it was saved without another look: %s", desired)
		}
		s.submit("/device/d1", "save", editIn(d, "/device/d1")).says("The twin is now version")
		if _, desired := s.section(on); desired != `{"a":2,"b":2` {
			t.Errorf("the twin is %s", desired)
		}
	})

	t.Run("the same property is a conflict", func(t *testing.T) {
		e := s.edit("/device/d1")
		e.text = strings.ReplaceAll(e.text, "north", "mine")
		s.patch("d1", `{"site":"theirs"}`, "")
		d := s.submit("/device/d1", "save", e)
		if d.status != http.StatusConflict {
			t.Fatalf("status %d: %s", d.status, d.text("main"))
		}
		d.says(`tags.site "mine" "theirs" "north"`)
		if len(d.all("button", "value", "save")) != 0 {
			t.Error("it is offered to save at once")
		}
		again := editIn(d, "/device/d1")
		if !strings.Contains(again.text, `"mine"`) {
			t.Errorf("the text is %s", again.text)
		}
		again.text = strings.ReplaceAll(again.text, "mine", "both")
		d = s.submit("/device/d1", "review", again)
		d.says(`tags.site changed "theirs" "both"`)
		s.submit("/device/d1", "save", editIn(d, "/device/d1")).says("The twin is now version")
		if tags, _ := s.section(on); tags != `{"site":"both"}` {
			t.Errorf("the twin is %s", tags)
		}
	})

	t.Run("the same change is none", func(t *testing.T) {
		e := s.edit("/device/d1")
		e.text = strings.ReplaceAll(e.text, "both", "same")
		s.patch("d1", `{"site":"same"}`, "")
		s.submit("/device/d1", "save", e).says("Somebody else has made the same change already.")
	})
}
