package console_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
)

// ended returns the page that d leads to once nothing on it goes on any more.
func (s *site) ended(d *doc) *doc {
	s.Helper()
	deadline := time.Now().Add(time.Minute)
	for len(d.all("div", "data-refresh", "*")) > 0 {
		if time.Now().After(deadline) {
			s.Fatalf("%s goes on and on:\n%s", d.url, d.text("main"))
		}
		d = s.get(d.url.RequestURI())
	}
	if d.status != http.StatusOK {
		s.Fatalf("%s: status %d: %s", d.url, d.status, d.text("main"))
	}
	return d
}

// connect runs a device that answers a direct method with a status and what it was sent.
func (s *site) connect(id, method string, status int) {
	s.Helper()
	d, err := mqttdevice.New(mqttdevice.Options{ConnectionString: s.hub.Device(id), Addr: s.hub.MQTTSAddr, TLS: s.hub.ClientTLS()})
	if err != nil {
		s.Fatal(err)
	}
	d.HandleMethod(method, func(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
		return mqttdevice.Response{Status: status, Payload: m.Payload}
	})
	if err := d.Connect(s.Context()); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { d.Close() })
}

func TestSelectedDevicesAreActedOn(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 3, `{"site":"north"}`)...)
	d := s.get("/devices/act?of=selected&id=d0000&id=d0002&where=*")
	d.says("2 devices, 0 of them connected")
	where, _ := attribute(d.one("input", "id", "where"), "value")
	if want := "deviceId IN ['d0000', 'd0002']"; where != want {
		t.Errorf("the condition is %q, want %q", where, want)
	}
	if d := s.post("/devices/act/twin", "where", where, "tags", `{"floor": 3}`, "confirm", "3"); d.status != http.StatusBadRequest {
		t.Errorf("a wrong number is answered with status %d", d.status)
	} else {
		d.says("type 2 to confirm")
		if text := textOf(d.one("textarea", "name", "tags")); text != `{"floor": 3}` {
			t.Errorf("the form has forgotten the tags: %q", text)
		}
	}
	d = s.ended(s.post("/devices/act/twin", "where", where, "tags", `{"floor": 3}`, "confirm", "2"))
	d.says("2 of 2")
	if diff := cmp.Diff([]string{"d0000", "d0002"}, d.column()); diff != "" {
		t.Errorf("rows of the job (-want +got):\n%s", diff)
	}
	for id, want := range map[string]string{"d0000": `{"site":"north","floor":3}`, "d0001": `{"site":"north"}`} {
		twin, err := s.service.Twin(t.Context(), hubrest.Target{DeviceID: id})
		if err != nil || !jsonEqual(string(twin.Tags), want) {
			t.Errorf("tags of %s: %s, %v, want %s", id, twin.Tags, err, want)
		}
	}
	if d := s.try("/devices/act?of=selected&where=*"); d.status != http.StatusBadRequest {
		t.Errorf("without a selection the status is %d", d.status)
	}
}

func jsonEqual(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && cmp.Equal(x, y)
}

func TestManyDevicesAnswerADirectMethod(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 3, `{}`)...)
	s.connect("d0000", "measure", 200)
	s.connect("d0001", "measure", 503)
	d := s.ended(s.post("/devices/act/method", "where", "STARTSWITH(deviceId, 'd')", "method", "measure", "payload", `{"evil": "<script>"}`, "timeout", "5", "confirm", "3"))
	d.says("3 of 3")
	d.says(`"evil":`)
	d.isPlain()
	d.says("not connected, or without this method")
	for rows, want := range map[string][]string{"failed": {"d0002"}, "refused": {"d0001"}, "waiting": nil} {
		if diff := cmp.Diff(want, s.get(d.url.Path+"?rows="+rows).column()); diff != "" {
			t.Errorf("rows that are %s (-want +got):\n%s", rows, diff)
		}
	}
	s.get("/jobs").says("measure")
	if d := s.try(d.url.Path + "?rows=" + url.QueryEscape("x' OR 1 = 1")); d.status != http.StatusBadRequest {
		t.Errorf("rows of a kind that there is not: status %d", d.status)
	}
}

func TestAJobIsCancelled(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 1, `{}`)...)
	d := s.post("/devices/act/twin", "where", "*", "desired", `{"a": 1}`, "start", time.Now().UTC().Add(time.Hour).Format("2006-01-02T15:04"), "confirm", "1")
	d.says("scheduled")
	form := d.one("form", "action", d.url.Path+"/cancel")
	action, _ := attribute(form, "action")
	s.post(action).says("cancelled")
	s.post(action).says("Not done")
	if d := s.try("/job/nosuch"); d.status != http.StatusNotFound {
		t.Errorf("a job that is not there: status %d", d.status)
	}
}

func TestBadFormsChangeNothing(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 2, `{}`)...)
	for name, form := range map[string][]string{
		"no condition":              {"/devices/act/twin", "tags", `{"a":1}`, "confirm", "2"},
		"a condition of nonsense":   {"/devices/act/twin", "where", "tags.", "tags", `{"a":1}`, "confirm", "2"},
		"no device":                 {"/devices/act/twin", "where", "deviceId = 'x'", "tags", `{"a":1}`, "confirm", "0"},
		"nothing to change":         {"/devices/act/twin", "where", "*", "confirm", "2"},
		"tags that are a number":    {"/devices/act/twin", "where", "*", "tags", "7", "confirm", "2"},
		"tags that are not JSON":    {"/devices/act/twin", "where", "*", "tags", "{", "confirm", "2"},
		"a start that is none":      {"/devices/act/twin", "where", "*", "tags", `{"a":1}`, "start", "soon", "confirm", "2"},
		"no method":                 {"/devices/act/method", "where", "*", "confirm", "2"},
		"a timeout that is too low": {"/devices/act/method", "where", "*", "method", "m", "timeout", "1", "confirm", "2"},
		"no status":                 {"/devices/act/status", "where", "*", "confirm", "2"},
		"nothing typed":             {"/devices/act/delete", "where", "*"},
		"another number":            {"/devices/act/delete", "where", "*", "confirm", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			d := s.post(form[0], form[1:]...)
			if d.status != http.StatusBadRequest || len(d.all("p", "role", "alert")) != 1 {
				t.Errorf("status %d: %s", d.status, d.text("main"))
			}
		})
	}
	for j, err := range s.service.Jobs(t.Context(), "", "") {
		t.Errorf("there is a job %q, %v", j.ID, err)
	}
	s.get("/devices?count=1").says("2 devices, 0 of them connected")
	s.get("/jobs").saysNot("Work of this console")
}

func TestManyIdentitiesAreChangedAndDeleted(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 250, `{"site":"north"}`)...)
	s.fill(hubrest.BulkEntry{ID: "stays", Capabilities: &hubrest.Capabilities{IoTEdge: true}})
	before, err := s.service.Device(t.Context(), "d0007")
	if err != nil {
		t.Fatal(err)
	}
	s.ended(s.post("/devices/act/status", "where", "tags.site = 'north'", "status", "disabled", "reason", "<b>lost</b>", "confirm", "250")).says("250 updated")
	after, err := s.service.Device(t.Context(), "d0007")
	if err != nil {
		t.Fatal(err)
	}
	if after.Status != hubrest.Disabled || after.StatusReason != "<b>lost</b>" || after.Authentication.SymmetricKey != before.Authentication.SymmetricKey {
		t.Errorf("d0007 is %s (%s)", after.Status, after.StatusReason)
	}
	if twin, err := s.service.Twin(t.Context(), hubrest.Target{DeviceID: "d0007"}); err != nil || string(twin.Tags) != `{"site":"north"}` {
		t.Errorf("its tags are %s, %v", twin.Tags, err)
	}
	s.ended(s.post("/devices/act/delete", "where", "tags.site = 'north'", "confirm", "250")).says("250 deleted")
	if diff := cmp.Diff([]string{"stays"}, s.get("/devices").column()); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	s.get("/jobs").says("Delete 250 devices")
}

func TestOnlyWhoMayActsOnManyDevices(t *testing.T) {
	actions := map[string][]string{
		"/devices/act/method": {"where", "*", "method", "m", "confirm", "1"},
		"/devices/act/twin":   {"where", "*", "tags", `{"a":1}`, "confirm", "1"},
		"/devices/act/status": {"where", "*", "status", "disabled", "confirm", "1"},
		"/devices/act/delete": {"where", "*", "confirm", "1"},
		"/job/j1/cancel":      {},
	}
	for _, tt := range []struct {
		name, policy string
		readOnly     bool
		refused      []string
	}{
		{"read-only", "iothubowner", true, []string{"/devices/act/method", "/devices/act/twin", "/devices/act/status", "/devices/act/delete", "/job/j1/cancel"}},
		{"service", "service", false, []string{"/devices/act/status", "/devices/act/delete"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSiteAs(t, tt.policy, func(o *console.Options) { o.ReadOnly = tt.readOnly })
			s.fill(devices("d", 1, `{}`)...)
			page := s.get("/devices/act?where=*")
			for _, path := range tt.refused {
				if len(page.all("form", "action", path)) != 0 {
					t.Errorf("the page offers %s", path)
				}
				if d := s.post(path, actions[path]...); d.status != http.StatusForbidden {
					t.Errorf("%s: status %d", path, d.status)
				}
			}
		})
	}
	s := newSite(t)
	s.fill(devices("d", 1, `{}`)...)
	for path, values := range actions {
		form := url.Values{}
		for i := 0; i < len(values); i += 2 {
			form.Set(values[i], values[i+1])
		}
		r, err := http.NewRequest(http.MethodPost, s.server.URL+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "https://elsewhere.example")
		answer, err := s.browser.Do(r)
		if d := s.read(answer, err); d.status != http.StatusForbidden {
			t.Errorf("%s from another site: status %d", path, d.status)
		}
	}
	s.get("/devices?count=1").says("1 device, 0 of them connected")
}
