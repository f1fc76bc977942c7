package console_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/hubrest"
)

// fill registers devices with these tags, desired properties and statuses.
func (s *site) fill(entries ...hubrest.BulkEntry) {
	s.Helper()
	for batch := range slices.Chunk(entries, hubrest.MaxBulk) {
		for i := range batch {
			batch[i].ImportMode = hubrest.ImportCreateOrUpdate
		}
		if result, err := s.service.Bulk(s.Context(), batch); err != nil || !result.IsSuccessful {
			s.Fatalf("bulk: %v, %v", err, result.Errors)
		}
	}
}

// devices returns n of a name with a number.
func devices(name string, n int, tags string) []hubrest.BulkEntry {
	list := make([]hubrest.BulkEntry, n)
	for i := range list {
		list[i] = hubrest.BulkEntry{ID: fmt.Sprintf("%s%04d", name, i), Tags: json.RawMessage(tags)}
	}
	return list
}

// column returns what stands in the first cells of the rows of a table's body.
func (d *doc) column() []string {
	var cells []string
	for _, n := range d.all("th", "scope", "row") {
		cells = append(cells, textOf(n))
	}
	return cells
}

func TestTheListOfDevicesIsFiltered(t *testing.T) {
	s := newSite(t)
	s.fill(
		hubrest.BulkEntry{ID: "pump-1", Tags: json.RawMessage(`{"site":"north","floor":5,"old":true}`)},
		hubrest.BulkEntry{ID: "pump-2", Tags: json.RawMessage(`{"site":"south","floor":7}`), Properties: hubrest.BulkProperties{Desired: json.RawMessage(`{"fw":"2.1"}`)}},
		hubrest.BulkEntry{ID: "pump'3", Tags: json.RawMessage(`{"site":"it's"}`), Status: hubrest.Disabled},
		hubrest.BulkEntry{ID: "fan-1", Tags: json.RawMessage(`{"floor":"5"}`)},
	)
	for _, tt := range []struct {
		name, query string
		want        []string
	}{
		{"all", "", []string{"fan-1", "pump'3", "pump-1", "pump-2"}},
		{"a prefix", "prefix=pump-", []string{"pump-1", "pump-2"}},
		{"a prefix with a quote", "prefix=" + url.QueryEscape("pump'"), []string{"pump'3"}},
		{"a status", "status=disabled", []string{"pump'3"}},
		{"a connection", "state=connected", nil},
		{"a tag", "path=tags.site&operator=%3D&value=north", []string{"pump-1"}},
		{"a tag with a quote", "path=tags.site&operator=%3D&value=" + url.QueryEscape("it's"), []string{"pump'3"}},
		{"a number", "path=tags.floor&operator=%3D&value=5", []string{"pump-1"}},
		{"a number as text", "path=tags.floor&operator=%3D&value=" + url.QueryEscape(`"5"`), []string{"fan-1"}},
		{"more than", "path=tags.floor&operator=%3E&value=5", []string{"pump-2"}},
		{"true", "path=tags.old&operator=%3D&value=true", []string{"pump-1"}},
		{"is there", "path=desired.fw&operator=set&value=", []string{"pump-2"}},
		{"is not there", "path=desired.fw&operator=unset&value=&prefix=pump", []string{"pump'3", "pump-1"}},
		{"begins with", "path=desired.fw&operator=prefix&value=2.", []string{"pump-2"}},
		{"two terms", "path=tags.site&operator=%21%3D&value=south&path=tags.floor&operator=%3E&value=1", []string{"pump-1"}},
		{"a condition", "where=" + url.QueryEscape("tags.floor = 7 OR tags.site = 'north'") + "&status=enabled", []string{"pump-1", "pump-2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := s.get("/devices?" + tt.query)
			if diff := cmp.Diff(tt.want, d.column()); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
		})
	}
	for name, query := range map[string]string{
		"a condition that makes no sense": "where=" + url.QueryEscape("tags.floor ="),
		"a path with a condition in it":   "path=" + url.QueryEscape("tags.a OR 1 = 1") + "&operator=%3D&value=1",
		"a path that leads nowhere":       "path=site&operator=%3D&value=1",
		"an operator of its own":          "path=tags.a&operator=" + url.QueryEscape("= 1 OR 1 =") + "&value=1",
		"a state of its own":              "state=asleep",
		"too many columns":                "column=" + strings.Repeat("tags.a,", 2) + "tags.b,tags.c,tags.d,tags.e,tags.f,tags.g,tags.h,tags.i,tags.j,tags.k,tags.l,tags.m",
	} {
		t.Run(name, func(t *testing.T) {
			d := s.try("/devices?" + query)
			if d.status != http.StatusBadRequest || len(d.all("p", "role", "alert")) != 1 || d.column() != nil {
				t.Errorf("status %d: %s", d.status, d.text("main"))
			}
		})
	}
}

func TestTheListOfDevicesGoesFromPageToPage(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 60, `{"site":"north"}`)...)
	s.fill(devices("e", 1, `{}`)...)
	var got []string
	path := "/devices?size=25&path=tags.site&operator=%3D&value=north&column=tags.site"
	for range 3 {
		d := s.get(path)
		got = append(got, d.column()...)
		next := d.all("a", "rel", "next")
		if len(next) == 0 {
			path = ""
			break
		}
		path, _ = attribute(next[0], "href")
	}
	if path != "" || len(got) != 60 || got[0] != "d0000" || got[59] != "d0059" {
		t.Errorf("%d devices, then %q: %v", len(got), path, got)
	}
	s.get("/devices?size=25&prefix=d&count=1").says("60 devices that match, 0 of them connected")
}

// isPlain fails if what a page was given has become markup.
func (d *doc) isPlain() {
	d.Helper()
	if len(d.all("img")) != 0 || len(d.all("script", "src", "*")) != len(d.all("script")) || len(d.all("b")) != 0 {
		d.Errorf("%s has markup that it was given:\n%s", d.url, d.body)
	}
}

// hostile is text that would act if it became markup.
const hostile = `"><script>alert(1)</script><img src=x onerror=alert(2)>'`

func TestWhatDevicesSayIsNoMarkup(t *testing.T) {
	s := newSite(t)
	const id = "a-:.+%_#*?!(),=@;$'Z"
	text, _ := json.Marshal(hostile)
	s.fill(hubrest.BulkEntry{ID: id, Tags: json.RawMessage(`{"evil":` + string(text) + `,"<b>":1}`)})
	d := s.get("/devices?column=tags.evil&path=tags.evil&operator=%3D&value=" + url.QueryEscape(hostile))
	d.isPlain()
	d.says(hostile)
	href, _ := attribute(d.all("th", "scope", "row")[0].FirstChild, "href")
	if u, err := url.Parse(href); err != nil || u.Path != "/device/"+id || u.RawQuery != "" || u.Fragment != "" {
		t.Errorf("the link to the device is %q", href)
	}
}

func TestTheListOfDevicesShowsWhatMayBeDone(t *testing.T) {
	s := newSite(t)
	s.get("/devices").one("a", "href", "/devices/import")
	s.get("/devices").one("a", "href", "/devices/new")
	read := newSite(t, func(o *console.Options) { o.ReadOnly = true })
	if d := read.get("/devices"); len(d.all("a", "href", "/devices/import")) != 0 || len(d.all("a", "href", "/devices/new")) != 0 {
		t.Error("a read-only console offers to register devices")
	}
	if d := newSiteAs(t, "device").try("/devices"); d.status != http.StatusForbidden {
		t.Errorf("with a policy of devices the status is %d", d.status)
	}
}
