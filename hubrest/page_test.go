package hubrest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubrest"
)

// walk goes through the pages of a list and returns what name says of their rows.
func walk[T any](t *testing.T, page func(context.Context, hubrest.PageRequest) (hubrest.Page[T], error), name func(T) string) [][]string {
	t.Helper()
	var pages [][]string
	for from := ""; ; {
		p, err := page(t.Context(), hubrest.PageRequest{Size: 2, From: from})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, row := range p.Rows {
			names = append(names, name(row))
		}
		pages = append(pages, names)
		if from = p.Next; from == "" {
			return pages
		}
	}
}

func TestARealHubAnswersPageByPage(t *testing.T) {
	ctx := t.Context()
	h := hubtest.New(t)
	for _, id := range []string{"d1", "d2", "d3", "e1"} {
		h.Device(id)
	}
	c := newHubClient(t, h, "iothubowner")
	if _, err := c.CreateJob(ctx, hubrest.JobRequest{ID: "j1", Condition: "STARTSWITH(deviceId, 'd')", Twin: &hubrest.TwinChange{Tags: json.RawMessage(`{"a":1}`)}}); err != nil {
		t.Fatal(err)
	}
	for {
		if job, err := c.Job(ctx, "j1"); err != nil {
			t.Fatal(err)
		} else if job.Status.Ended() {
			break
		}
	}
	p, err := hubrest.NewProvisioning(hubrest.Options{ConnectionString: h.Policy("provisioningserviceowner"), TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	for n := range 3 {
		e := hubrest.Enrollment{GroupID: fmt.Sprint("g", n+1), Attestation: hubrest.Attestation{Type: hubrest.BySymmetricKey}}
		if _, err := p.CreateEnrollment(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string][][]string{
		"query": walk(t, func(ctx context.Context, r hubrest.PageRequest) (hubrest.Page[json.RawMessage], error) {
			return c.QueryPage(ctx, "SELECT deviceId FROM devices WHERE STARTSWITH(deviceId, 'd')", r)
		}, func(row json.RawMessage) string { return string(row) }),
		"rows of a job": walk(t, func(ctx context.Context, r hubrest.PageRequest) (hubrest.Page[hubrest.JobDevice], error) {
			return c.JobDevicePage(ctx, "j1", "", r)
		}, func(d hubrest.JobDevice) string { return d.DeviceID + " " + d.Status }),
		"enrollment groups": walk(t, func(ctx context.Context, r hubrest.PageRequest) (hubrest.Page[hubrest.Enrollment], error) {
			return p.EnrollmentPage(ctx, hubrest.Group, r)
		}, hubrest.Enrollment.ID),
		"registrations": walk(t, func(ctx context.Context, r hubrest.PageRequest) (hubrest.Page[hubrest.Registration], error) {
			return p.RegistrationPage(ctx, "g1", r)
		}, func(r hubrest.Registration) string { return r.RegistrationID }),
	}
	want := map[string][][]string{
		"query":             {{`{"deviceId":"d1"}`, `{"deviceId":"d2"}`}, {`{"deviceId":"d3"}`}},
		"rows of a job":     {{"d1 completed", "d2 completed"}, {"d3 completed"}},
		"enrollment groups": {{"g1", "g2"}, {"g3"}},
		"registrations":     {nil},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

func TestAPageTellsHowItWasFound(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	c := newHubClient(t, h, "service")
	page, err := c.QueryPage(t.Context(), "SELECT * FROM devices WHERE STARTSWITH(deviceId, 'd')", hubrest.PageRequest{Explain: true})
	if err != nil {
		t.Fatal(err)
	}
	if page.Plan.Plan == "" || page.Plan.Scanned != 1 || page.Plan.Rows != 1 || page.Plan.Pages != 1 {
		t.Errorf("plan %+v", page.Plan)
	}
	page, err = c.QueryPage(t.Context(), "SELECT * FROM devices", hubrest.PageRequest{})
	if err != nil || page.Plan != (hubrest.QueryPlan{}) {
		t.Errorf("plan %+v of a page that need not tell, %v", page.Plan, err)
	}
	var refusal *hubrest.Error
	if _, err := c.QueryPage(t.Context(), "SELECT", hubrest.PageRequest{}); !errors.As(err, &refusal) || refusal.Status != 400 {
		t.Errorf("a query that makes no sense: %v", err)
	}
}
