package console_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hubrest"
)

func TestAConfigurationIsCreatedChangedAndDeleted(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 3, `{"site":"north"}`)...)
	const id = "~eco'1"
	form := []string{"id", id, "content", `{"deviceContent":{"properties.desired.interval":60}}`, "target", "tags.site = 'north'", "priority", "2",
		"labels", `{"team":"<b>pumps</b>"}`, "metrics", `{"slow":"SELECT deviceId FROM devices WHERE properties.reported.interval > 60"}`}
	d := s.post("/configurations", form...)
	d.says("It would have 3 devices")
	if list, err := s.service.Configurations(t.Context(), 0); err != nil || len(list) != 0 {
		t.Fatalf("it is created before the user has typed how many: %v, %v", list, err)
	}
	if d := s.post("/configurations", append(form, "confirm", "2")...); d.status != http.StatusBadRequest {
		t.Errorf("a wrong number: status %d", d.status)
	}
	d = s.post("/configurations", append(form, "confirm", "3")...)
	d.says("The configuration is created")
	d.says("<b>pumps</b>")
	d.isPlain()
	path := d.url.EscapedPath()
	s.get("/configurations").one("a", "href", path)
	s.post("/configurations", append(form, "confirm", "3")...).says("exists already")

	etag, _ := attribute(d.all("input", "name", "etag")[0], "value")
	change := []string{"etag", etag, "target", "", "priority", "5"}
	s.post(path, change...).says("The configuration is changed")
	got, err := s.service.Configuration(t.Context(), id)
	if err != nil || got.Priority != 5 || got.TargetCondition != "" || len(got.Labels) != 0 || len(got.Metrics.Queries) != 0 || len(got.Content.Device) != 1 {
		t.Errorf("configuration %+v, %v", got, err)
	}
	if d := s.post(path, change...); d.status != http.StatusConflict {
		t.Errorf("with the etag of before: status %d", d.status)
	}
	s.post(path+"/delete", "confirm", "eco").says("type")
	s.post(path+"/delete", "confirm", id).says("is deleted")
	if d := s.try(path); d.status != http.StatusNotFound {
		t.Errorf("once it is deleted: status %d", d.status)
	}
}

func TestConflictsOfConfigurationsAreShown(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 3, `{"site":"north"}`)...)
	s.fill(devices("e", 2, `{"site":"south"}`)...)
	for _, c := range []hubrest.Configuration{
		{ID: "low", Priority: 1, TargetCondition: "*", Content: hubrest.ConfigurationContent{Device: map[string]json.RawMessage{"properties.desired.net.rate": json.RawMessage("1"), "properties.desired.led": json.RawMessage("1")}}},
		{ID: "high", Priority: 2, TargetCondition: "tags.site = 'north'", Content: hubrest.ConfigurationContent{Device: map[string]json.RawMessage{"properties.desired.net": json.RawMessage(`{"rate":2}`)}}},
		{ID: "other", Priority: 3, TargetCondition: "*", Content: hubrest.ConfigurationContent{Device: map[string]json.RawMessage{"properties.desired.network": json.RawMessage("1")}}},
		{ID: "modules-low", Priority: 1, TargetCondition: "FROM devices.modules WHERE moduleId = 'm'", Content: hubrest.ConfigurationContent{Module: map[string]json.RawMessage{"properties.desired.net": json.RawMessage("1")}}},
		{ID: "modules-high", Priority: 2, TargetCondition: "from devices.modules where deviceId = 'd0000'", Content: hubrest.ConfigurationContent{Module: map[string]json.RawMessage{"properties.desired.net": json.RawMessage("2")}}},
	} {
		if _, err := s.service.CreateConfiguration(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	s.hub.Module("d0000", "m")
	s.hub.Module("d0000", "n")
	s.hub.Module("d0001", "m")
	for id, want := range map[string]string{
		"low":          "high properties.desired.net.rate 3 the other (priority 1 and 2)",
		"high":         "low properties.desired.net 3 this one (priority 2 and 1)",
		"modules-low":  "modules-high properties.desired.net 1 the other (priority 1 and 2)",
		"modules-high": "modules-low properties.desired.net 1 this one (priority 2 and 1)",
		"other":        "No other configuration sets what this one sets",
	} {
		s.get("/configuration/" + id + "?count=1").says(want)
	}
}

func TestBadConfigurationsAreRefused(t *testing.T) {
	s := newSite(t)
	const content = `{"deviceContent":{"properties.desired.a":1}}`
	for name, form := range map[string][]string{
		"no id":                       {"content", content},
		"an id in upper case":         {"id", "ECO", "content", content},
		"no content":                  {"id", "eco"},
		"content of nonsense":         {"id", "eco", "content", `{"a":1}`},
		"content that is not JSON":    {"id", "eco", "content", `{`},
		"a condition of nonsense":     {"id", "eco", "content", content, "target", "tags."},
		"a metric of nonsense":        {"id", "eco", "content", content, "metrics", `{"m":"SELECT"}`},
		"labels that are no texts":    {"id", "eco", "content", content, "labels", `{"a":1}`},
		"a priority that is a letter": {"id", "eco", "content", content, "priority", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			d := s.post("/configurations", form...)
			if d.status != http.StatusBadRequest || len(d.all("p", "role", "alert")) != 1 {
				t.Errorf("status %d: %s", d.status, d.text("main"))
			}
		})
	}
	readOnly := newSite(t, func(o *console.Options) { o.ReadOnly = true })
	if d := readOnly.post("/configurations", "id", "eco", "content", content); d.status != http.StatusForbidden {
		t.Errorf("a read-only console: status %d", d.status)
	}
	if body := readOnly.get("/configurations").body; strings.Contains(body, "/configurations/new") {
		t.Error("a read-only console offers a new configuration")
	}
}

func TestConfigurationsDoNotWaitForAHubThatCounts(t *testing.T) {
	s := newSite(t)
	for _, id := range []string{"eco", "night"} {
		if _, err := s.service.CreateConfiguration(t.Context(), hubrest.Configuration{ID: id, Content: hubrest.ConfigurationContent{Device: map[string]json.RawMessage{"properties.desired.a": json.RawMessage("1")}}}); err != nil {
			t.Fatal(err)
		}
	}
	s.hub.Fault(fault.Fault{On: fault.REST, Path: "configurations", Latency: 5 * time.Second, Count: 1})
	d := s.get("/configurations")
	d.says("The hub counts the twins")
	if d = s.ended(d); len(d.column()) != 2 {
		t.Errorf("configurations %v", d.column())
	}
	for _, path := range []string{"configurations", "configurations/*"} {
		s.hub.Fault(fault.Fault{On: fault.REST, Path: path, Latency: 5 * time.Second})
	}
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(s.get("/configurations").text("main"), "As the hub had counted") {
		if time.Now().After(deadline) {
			t.Fatal("the page never tells that its answer is old")
		}
	}
	if got := s.get("/configurations").column(); len(got) != 2 {
		t.Errorf("while the hub counts the page has %v", got)
	}
	s.get("/configuration/eco").says("As the hub had counted")
}
