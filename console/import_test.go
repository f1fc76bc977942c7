package console_test

import (
	"bytes"
	"html"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/hubrest"
)

// upload sends a file with the fields of its form, which are pairs of names and values.
func (s *site) upload(path, name, text string, fields ...string) *doc {
	s.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for i := 0; i < len(fields); i += 2 {
		form.WriteField(fields[i], fields[i+1])
	}
	part, err := form.CreateFormFile("file", name)
	if err != nil {
		s.Fatal(err)
	}
	io.WriteString(part, text)
	form.Close()
	answer, err := s.browser.Post(s.server.URL+path, form.FormDataContentType(), &body)
	return s.read(answer, err)
}

func TestAFileIsImportedOnceTheUserHasSeenWhatItDoes(t *testing.T) {
	s := newSite(t)
	s.fill(hubrest.BulkEntry{ID: "old", Tags: []byte(`{"site":"north"}`)}, hubrest.BulkEntry{ID: "same", Tags: []byte(`{"site":"<b>"}`)})
	const file = "id,tags.site,status\nnew,south,\nold,south,disabled\nsame,<b>,\nbad id,,\n"
	d := s.ended(s.upload("/devices/import", "<b>.csv", file, "of", "devices", "mode", "createOrUpdate"))
	d.says("1 created, 1 updated, 1 unchanged, 1 failed")
	d.says("Change 1 identity (status or other settings of 1, tags of 1) and create 1; 0 of them connected")
	d.says(`tags.site: "north" -> "south"`)
	d.isPlain()
	if _, err := s.service.Device(t.Context(), "new"); err == nil {
		t.Fatal("the look has imported the file")
	}
	action, _ := attribute(d.one("form", "method", "post", "action", d.url.Path+"/import"), "action")
	s.post(action).says("type \"1\" to confirm")
	done := s.ended(s.post(action, "confirm", "1"))
	done.says("1 created, 1 updated, 1 unchanged, 1 failed")
	twin, err := s.service.Twin(t.Context(), hubrest.Target{DeviceID: "old"})
	if err != nil || twin.Status != hubrest.Disabled || string(twin.Tags) != `{"site":"south"}` {
		t.Errorf("old: %s, %s, %v", twin.Status, twin.Tags, err)
	}
	s.post(action, "confirm", "1").says("no longer kept")
}

func TestFilesThatCannotBeReadAreRefused(t *testing.T) {
	s := newSite(t)
	for name, tt := range map[string]struct{ text, mode, want string }{
		"empty":          {"", "create", "not empty"},
		"an array":       {"[{}]", "create", "each line has to be an object"},
		"an odd column":  {"id,stauts\na,b\n", "create", `did you mean "status"?`},
		"a mode of none": {"id\na\n", "destroy", "Choose what is to be done"},
	} {
		t.Run(name, func(t *testing.T) {
			d := s.upload("/devices/import", "f.csv", tt.text, "of", "devices", "mode", tt.mode)
			if d.status != http.StatusUnprocessableEntity {
				t.Errorf("status %d", d.status)
			}
			d.says(tt.want)
		})
	}
	if d := s.post("/devices/import", "of", "devices"); d.status != http.StatusBadRequest {
		t.Errorf("without a file: status %d", d.status)
	}
	if d := s.upload("/devices/import", "f.csv", "id\na\n", "of", "planets", "mode", "create"); d.status != http.StatusUnprocessableEntity {
		t.Errorf("of planets: status %d", d.status)
	}
	d := s.ended(s.upload("/devices/import", "f.ndjson", "{\"id\":\"a\"}\nnonsense\n", "of", "devices", "mode", "create"))
	d.says("1 created, 1 failed")
	d.says("is not JSON")
}

func TestOnlyWhoMayImports(t *testing.T) {
	for name, s := range map[string]*site{
		"read-only": newSite(t, func(o *console.Options) { o.ReadOnly = true }),
		"service":   newSiteAs(t, "service", func(o *console.Options) { o.Provisioning = nil }),
	} {
		if d := s.upload("/devices/import", "f.csv", "id\na\n", "of", "devices", "mode", "create"); d.status != http.StatusForbidden {
			t.Errorf("%s: status %d: %s", name, d.status, d.text("main"))
		}
	}
	s := newSiteAs(t, "service")
	if d := s.upload("/devices/import", "f.csv", "id\na\n", "of", "devices", "mode", "create"); d.status != http.StatusForbidden {
		t.Errorf("devices with a policy for the provisioning service alone: status %d", d.status)
	}
}

func TestExportsCanBeImported(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 120, `{"site":"north"}`)...)
	s.fill(devices("e", 5, `{"site":"south"}`)...)
	keys, err := s.service.Device(t.Context(), "d0000")
	if err != nil {
		t.Fatal(err)
	}
	key := string(keys.Authentication.SymmetricKey.PrimaryKey)
	for _, format := range []string{"ndjson", "csv"} {
		export := s.post("/devices/export", "of", "devices", "format", format, "where", "tags.site = 'north'")
		if export.status != http.StatusOK || strings.Contains(export.body, key) || strings.Contains(export.body, "south") {
			t.Fatalf("%s: status %d, or with what was not asked for", format, export.status)
		}
		s.ended(s.upload("/devices/import", "f."+format, export.body, "of", "devices", "mode", "createOrUpdate")).says("120 unchanged")
		if export := s.post("/devices/export", "of", "devices", "format", format, "keys", "1"); !strings.Contains(export.body, key) {
			t.Errorf("%s: the export with keys has none", format)
		}
	}
	if d := s.post("/devices/export", "of", "devices", "format", "csv", "where", "tags."); d.status != http.StatusBadRequest {
		t.Errorf("a condition of nonsense: status %d", d.status)
	}
	for name, s := range map[string]*site{
		"read-only": newSite(t, func(o *console.Options) { o.ReadOnly = true }),
		"service":   newSiteAs(t, "service"),
	} {
		if len(s.get("/devices/export").all("input", "name", "keys")) != 0 {
			t.Errorf("%s: the form offers keys", name)
		}
		if d := s.post("/devices/export", "of", "devices", "format", "csv", "keys", "1"); d.status != http.StatusForbidden {
			t.Errorf("%s: keys with status %d", name, d.status)
		}
	}
}

// holds reports whether a text is anywhere in the page, however it is written in HTML.
func (d *doc) holds(text string) bool { return strings.Contains(html.UnescapeString(d.body), text) }

func TestNoPageOfManyDevicesHasKeys(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 2, `{"site":"north"}`)...)
	d, err := s.service.Device(t.Context(), "d0000")
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{string(d.Authentication.SymmetricKey.PrimaryKey), string(d.Authentication.SymmetricKey.SecondaryKey), string(s.hub.Policy("iothubowner").SharedAccessKey)}
	key := "MDEyMzQ1Njc4OWFiY2RlZg=="
	run := s.ended(s.upload("/devices/import", "f.csv", "id,primaryKey,secondaryKey\nd0001,"+key+","+key+"\n", "of", "devices", "mode", "update"))
	run.says("primaryKey: another one")
	for _, path := range []string{"/devices", "/devices/act?where=*", "/devices/export", "/devices/import", "/jobs", run.url.Path} {
		page := s.get(path)
		for _, secret := range append(secrets, key) {
			if page.holds(secret) {
				t.Errorf("%s has a key", path)
			}
		}
	}
}
