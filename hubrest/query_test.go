package hubrest_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

func TestQueriesGoFromPageToPage(t *testing.T) {
	var rec recorder
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
		rec.add(req)
		switch req.Header.Get("x-ms-continuation") {
		case "":
			w.Header().Set("x-ms-continuation", "two")
			io.WriteString(w, `[{"n":1.0},{"n":12345678901234567890}]`)
		case "two": // a page may be empty, and a hub may be busy
			if rec.count() == 2 {
				w.WriteHeader(503)
				return
			}
			w.Header().Set("x-ms-continuation", "three")
			io.WriteString(w, `[]`)
		case "three":
			w.Header().Set("x-ms-continuation", "")
			io.WriteString(w, `["<last>"]`)
		}
	})
	var got []string
	for row, err := range c.Query(t.Context(), "SELECT * FROM devices WHERE a < '&'", 2) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(row))
	}
	if diff := cmp.Diff([]string{`{"n":1.0}`, `{"n":12345678901234567890}`, `"<last>"`}, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	var sent []string
	for i, req := range rec.seen {
		sent = append(sent, strings.Join([]string{req.Method, req.RequestURI, req.Header.Get("x-ms-max-item-count"), req.Header.Get("x-ms-continuation"), rec.body[i]}, " "))
	}
	const head, body = "POST /devices/query?api-version=2021-04-12 2 ", ` {"query":"SELECT * FROM devices WHERE a < '&'"}`
	if diff := cmp.Diff([]string{head + body, head + "two" + body, head + "two" + body, head + "three" + body}, sent); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestQueriesStopWhenTheCallerDoes(t *testing.T) {
	var rec recorder
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
		rec.add(req)
		w.Header().Set("x-ms-continuation", "more")
		io.WriteString(w, `[1,2]`)
	})
	for range c.Query(t.Context(), "SELECT * FROM devices", 0) {
		break
	}
	if n := rec.count(); n != 1 || rec.seen[0].Header.Get("x-ms-max-item-count") != "" {
		t.Errorf("%d requests, the first %v", n, rec.seen[0].Header)
	}
}

func TestQueriesEndWithTheirError(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		status       int
	}{
		{"refused", `{"Message":"ErrorCode:ArgumentInvalid;bad query"}`, 400},
		{"not an array", `{}`, 200},
		{"going in circles", `[]`, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
				w.Header().Set("x-ms-continuation", "again")
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.answer)
			})
			var errs []error
			for row, err := range c.Query(t.Context(), "SELECT", 0) {
				if row != nil {
					t.Errorf("row %s", row)
				}
				errs = append(errs, err)
			}
			if len(errs) != 1 || errs[0] == nil {
				t.Fatalf("errors %v, want one", errs)
			}
			var refusal *hubrest.Error
			if got := errors.As(errs[0], &refusal); got != (tt.status == 400) {
				t.Errorf("error %v", errs[0])
			}
		})
	}
}

func TestRowsCanBeTwins(t *testing.T) {
	_, body := replay(t, "twin.json")
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) { io.WriteString(w, "["+string(body)+"]") })
	for row, err := range c.Query(t.Context(), "SELECT * FROM devices", 0) {
		if err != nil {
			t.Fatal(err)
		}
		var twin hubrest.Twin
		if err := json.Unmarshal(row, &twin); err != nil || twin.DeviceID != "dev1" || twin.DesiredVersion != 2 {
			t.Errorf("twin %+v, %v", twin, err)
		}
	}
}

func TestExplainQueryAddsUpThePages(t *testing.T) {
	for _, tt := range []struct {
		name     string
		explains bool
		want     hubrest.QueryPlan
	}{
		{"a hub that explains", true, hubrest.QueryPlan{Plan: "twins, all", Scanned: 70, Rows: 3, Pages: 2}},
		{"a hub that doesn't", false, hubrest.QueryPlan{Rows: 3, Pages: 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
				if tt.explains && req.Header.Get("iotdm-explain") != "" {
					w.Header().Set("iotdm-plan", "twins, all")
					w.Header().Set("iotdm-scanned", "35")
				}
				if req.Header.Get("x-ms-continuation") == "" {
					w.Header().Set("x-ms-continuation", "two")
					io.WriteString(w, `[1,2]`)
					return
				}
				io.WriteString(w, `[3]`)
			})
			plan, err := c.ExplainQuery(t.Context(), "SELECT * FROM devices", 2)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, plan); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}
