package console_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

func queryPath(query string, more ...string) string {
	v := url.Values{"query": {query}}
	for i := 0; i < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return "/queries?" + v.Encode()
}

func TestQueriesAreAnsweredPageByPage(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 30, `{"site":"north","n":{"deep":[1,2]}}`)...)
	d := s.get(queryPath("SELECT deviceId, tags.n FROM devices WHERE STARTSWITH(deviceId, 'd')", "size", "25"))
	d.says("How it was found")
	d.says(`{"deep":[1,2]}`)
	next, _ := attribute(d.one("a", "rel", "next"), "href")
	if got := len(s.get(next).all("td")); got != 5*2 {
		t.Errorf("the second page has %d cells", got)
	}
	s.get(queryPath("SELECT * FROM devices WHERE deviceId = 'd0001'", "view", "json")).says(`"deviceId": "d0001"`)
	s.get(queryPath("SELECT tags.site AS site, COUNT() AS number FROM devices GROUP BY tags.site")).says("north 30")
	d = s.try(queryPath("SELECT <b> FROM devices"))
	if d.status != http.StatusBadRequest {
		t.Errorf("a query of nonsense: status %d", d.status)
	}
	d.one("p", "role", "alert")
	d.isPlain()
	for _, a := range s.get("/queries").all("a") {
		if href, _ := attribute(a, "href"); strings.HasPrefix(href, "/queries?") {
			s.get(href)
		}
	}
}

func TestAJobIsMadeOfAQuery(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 3, `{"site":"north"}`)...)
	for query, want := range map[string]string{
		"SELECT * FROM devices": "*",
		"select deviceId, tags.site\nfrom devices\nwhere tags.site = 'north' AND tags.text = 'from devices where'": "tags.site = 'north' AND tags.text = 'from devices where'",
		"SELECT COUNT() AS n FROM devices GROUP BY tags.site":                                                      "",
		"SELECT tags.a, COUNT() AS n FROM devices WHERE tags.a = 1 GROUP BY tags.a":                                "",
		"SELECT deviceId FROM devices.modules WHERE moduleId = 'm'":                                                "",
	} {
		d := s.get(queryPath(query))
		got := ""
		for _, a := range d.all("a") {
			href, _ := attribute(a, "href")
			if u, err := url.Parse(href); err == nil && u.Path == "/devices/act" {
				got = u.Query().Get("where")
			}
		}
		if got != want {
			t.Errorf("%s: the page acts on %q, want %q", query, got, want)
		}
	}
	if d := s.try(queryPath("SELECT * FROM devices WHERE tags.a = '" + strings.Repeat("x", 9000) + "'")); d.status != http.StatusBadRequest {
		t.Errorf("a query that is too long: status %d", d.status)
	}
}

func TestResultsAreExported(t *testing.T) {
	s := newSite(t)
	text, _ := json.Marshal(map[string]string{"evil": "=1+1", "markup": hostile, "quote": "a\"b,c\nd"})
	s.fill(hubrest.BulkEntry{ID: "a", Tags: text}, hubrest.BulkEntry{ID: "b", Tags: json.RawMessage(`{"n":-5}`)})
	const query = "SELECT deviceId, tags.evil, tags.markup, tags.quote, tags.n FROM devices"
	csvText := s.get("/queries/export?format=csv&" + url.Values{"query": {query}}.Encode()).body
	records, err := csv.NewReader(strings.NewReader(csvText)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"deviceId", "evil", "markup", "quote", "n"}, {"a", "'=1+1", hostile, "a\"b,c\nd", ""}, {"b", "", "", "", "-5"}}
	if diff := cmp.Diff(want, records); diff != "" {
		t.Errorf("CSV (-want +got):\n%s", diff)
	}
	lines := strings.Split(s.get("/queries/export?format=ndjson&"+url.Values{"query": {query}}.Encode()).body, "\n")
	if len(lines) != 3 || lines[1] != `{"deviceId":"b","n":-5}` {
		t.Errorf("lines %q", lines)
	}
	for _, bad := range []string{"format=csv", "format=xml&query=x", "format=csv&query=SELECT"} {
		if d := s.try("/queries/export?" + bad); d.status != http.StatusBadRequest {
			t.Errorf("%s: status %d", bad, d.status)
		}
	}
}

func TestATableHasRoomForMembersThatComeLate(t *testing.T) {
	s := newSite(t)
	s.fill(devices("d", 1000, `{"a":1}`)...)
	s.fill(hubrest.BulkEntry{ID: "e", Tags: json.RawMessage(`{"late":"x"}`)})
	body := s.get("/queries/export?format=csv&" + url.Values{"query": {"SELECT deviceId, tags.a, tags.late FROM devices"}}.Encode()).body
	records, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"e", "", `{"late":"x"}`}; len(records) != 1002 || !cmp.Equal(records[1001], want) || fmt.Sprint(records[0]) != "[deviceId a more]" {
		t.Errorf("%d records, first %q, last %q", len(records), records[0], records[len(records)-1])
	}
}
