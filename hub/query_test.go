package hub_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// patchTags makes a device with tags.
func patchTags(t testing.TB, s *node.Node, device, tags string) {
	t.Helper()
	id := hub.ID{Device: device}
	if _, err := s.PutIdentity(id, hub.IdentitySpec{}, hub.Match{}); err != nil && !errors.Is(err, hub.ErrDeviceAlreadyExists) {
		t.Fatal(err)
	}
	if _, err := s.PatchTwin(id, hub.TwinChange{Tags: json.RawMessage(tags)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
}

// ids returns the device ids of a page.
func ids(t testing.TB, page hub.QueryPage) (ids []string) {
	t.Helper()
	var rows []struct{ DeviceID string }
	if err := json.Unmarshal(page.Body, &rows); err != nil {
		t.Fatalf("page %s: %v", page.Body, err)
	}
	for _, row := range rows {
		ids = append(ids, row.DeviceID)
	}
	return ids
}

func ask(t testing.TB, s *node.Node, text string, size int, continuation string) hub.QueryPage {
	t.Helper()
	page, err := s.Query(context.Background(), text, size, continuation)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return page
}

func TestPagesOfAQuerySurviveChangesAndARestart(t *testing.T) {
	dir := t.TempDir()
	s, err := node.New(node.Options{Storage: node.Folder(dir)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		patchTags(t, s, fmt.Sprintf("d%d", i), `{"a":1}`)
	}
	const text = "SELECT deviceId FROM devices WHERE tags.a = 1"
	page := ask(t, s, text, 4, "")
	if diff := cmp.Diff([]string{"d0", "d1", "d2", "d3"}, ids(t, page)); diff != "" {
		t.Errorf("first page (-want +got):\n%s", diff)
	}
	for _, gone := range []string{"d1", "d3", "d4"} {
		if err := s.DeleteIdentity(hub.ID{Device: gone}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	patchTags(t, s, "d10", `{"a":1}`) // before the place, too late for this pass
	patchTags(t, s, "d55", `{"a":1}`)
	patchTags(t, s, "d6", `{"a":2}`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = wiretest.NewNode(t, node.Options{Storage: node.Folder(dir)})
	again := ask(t, s, "select deviceId  from devices where tags.a=1", 4, page.Continuation)
	if diff := cmp.Diff([]string{"d5", "d55", "d7", "d8"}, ids(t, again)); diff != "" {
		t.Errorf("second page (-want +got):\n%s", diff)
	}
	last := ask(t, s, text, 4, again.Continuation)
	if diff := cmp.Diff([]string{"d9"}, ids(t, last)); diff != "" {
		t.Errorf("last page (-want +got):\n%s", diff)
	}
	if last.Continuation != "" {
		t.Error("the last page has a continuation")
	}
	if err := s.DeleteIdentity(hub.ID{Device: "d9"}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	if page := ask(t, s, text, 4, again.Continuation); string(page.Body) != "[]" || page.Continuation != "" {
		t.Errorf("a last page that became empty is %s, continuation %q", page.Body, page.Continuation)
	}
}

func TestThePageBehindTheLastRowIsNotOffered(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	for i := range 6 {
		patchTags(t, s, fmt.Sprintf("d%d", i), fmt.Sprintf(`{"a":%d}`, i%3))
	}
	for text, pages := range map[string][]int{
		"SELECT * FROM devices":                                      {3, 3},
		"SELECT TOP 2 * FROM devices":                                {2},
		"SELECT TOP 3 * FROM devices":                                {3},
		"SELECT TOP 4 * FROM devices":                                {3, 1},
		"SELECT TOP 6 * FROM devices":                                {3, 3},
		"SELECT TOP 7 * FROM devices":                                {3, 3},
		"SELECT * FROM devices WHERE tags.a = 7":                     {0},
		"SELECT * FROM devices WHERE deviceId IN ['d1','d3','d5']":   {3},
		"SELECT * FROM devices WHERE deviceId IN []":                 {0},
		"SELECT COUNT() FROM devices":                                {1},
		"SELECT COUNT() FROM devices WHERE tags.a = 7":               {1},
		"SELECT tags.a FROM devices GROUP BY tags.a":                 {3},
		"SELECT TOP 2 tags.a FROM devices GROUP BY tags.a":           {2},
		"SELECT deviceId, COUNT() FROM devices GROUP BY deviceId":    {3, 3},
		"SELECT TOP 5 deviceId FROM devices GROUP BY deviceId":       {3, 2},
		"SELECT * FROM devices.modules":                              {0},
		"SELECT COUNT() FROM devices.modules WHERE deviceId = 'd1'":  {1},
		"SELECT tags.a FROM devices.modules GROUP BY tags.a":         {0},
		"SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'd1'": {0},
	} {
		var got []int
		continuation := ""
		for {
			page := ask(t, s, text, 3, continuation)
			got = append(got, page.Rows)
			if continuation = page.Continuation; continuation == "" || len(got) > 10 {
				break
			}
		}
		if diff := cmp.Diff(pages, got); diff != "" {
			t.Errorf("%s: rows of its pages (-want +got):\n%s", text, diff)
		}
	}
}

func TestGroupsAreCountedOverAllPages(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	for i := range 30 {
		patchTags(t, s, fmt.Sprintf("d%02d", i), fmt.Sprintf(`{"a":"%s%d"}`, strings.Repeat("x", 100), i%10))
	}
	counts := map[string]int{}
	continuation := ""
	for {
		page := ask(t, s, "SELECT tags.a AS a, COUNT() AS n FROM devices GROUP BY tags.a", 4, continuation)
		var rows []struct {
			A string
			N int
		}
		if err := json.Unmarshal(page.Body, &rows); err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			counts[row.A[100:]] += row.N
		}
		if continuation = page.Continuation; continuation == "" {
			break
		}
		if len(continuation) > 200 {
			t.Errorf("a continuation has %d characters", len(continuation))
		}
	}
	want := map[string]int{}
	for i := range 10 {
		want[strconv.Itoa(i)] = 3
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
}

func TestForeignContinuationsAreRefused(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	for i := range 4 {
		patchTags(t, s, fmt.Sprintf("d%d", i), `{}`)
	}
	const text = "SELECT TOP 3 * FROM devices"
	good := ask(t, s, text, 1, "").Continuation
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	change := func(i int, b byte) string {
		changed := slices.Clone(raw)
		changed[i] = b
		return base64.RawURLEncoding.EncodeToString(changed)
	}
	for name, continuation := range map[string]string{
		"not base64":          "***",
		"too short":           "AQ",
		"without a place":     base64.RawURLEncoding.EncodeToString(raw[:10]),
		"another format":      change(0, 9),
		"another query":       change(3, raw[3]+1),
		"more than TOP":       change(9, 4),
		"without TOP":         change(9, 0),
		"a number cut short":  base64.RawURLEncoding.EncodeToString(append(slices.Clone(raw[:9]), 0xff)),
		"of unlikely length":  base64.RawURLEncoding.EncodeToString(append(slices.Clone(raw), make([]byte, 500)...)),
		"of another SELECT":   ask(t, s, "SELECT * FROM devices", 1, "").Continuation,
		"of another TOP":      ask(t, s, "SELECT TOP 4 * FROM devices", 1, "").Continuation,
		"of another position": good + "AA==",
	} {
		if page, err := s.Query(t.Context(), text, 1, continuation); !errors.Is(err, hub.ErrArgumentInvalid) {
			t.Errorf("a continuation %s: %v, error %v", name, page, err)
		}
	}
	if got := ids(t, ask(t, s, text, 1, good)); !slices.Equal(got, []string{"d1"}) {
		t.Errorf("the good one leads to %s", got)
	}
}

func TestAQueryEndsWithItsContext(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	for i := range 100 {
		wiretest.Create(t, s, hub.ID{Device: fmt.Sprintf("d%d", i)}, hub.IdentitySpec{})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Query(ctx, "SELECT COUNT() FROM devices", 0, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestAQuerySeesWhatWasJustWritten(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	id := hub.ID{Device: "d"}
	wiretest.Create(t, s, id, hub.IdentitySpec{})
	for i := range 50 {
		if _, err := s.PatchReported(id, fmt.Appendf(nil, `{"n":%d}`, i), hub.AnyVersion); err != nil {
			t.Fatal(err)
		}
		if page := ask(t, s, fmt.Sprintf("SELECT deviceId FROM devices WHERE properties.reported.n = %d", i), 0, ""); page.Rows != 1 {
			t.Fatalf("write %d is not seen", i)
		}
	}
}

func TestQueryOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	for i := range 5 {
		patchTags(t, h.Node, fmt.Sprintf("d%d", i), fmt.Sprintf(`{"a":%d}`, i))
	}
	post := func(body string, header ...string) wiretest.Answer {
		c := wiretest.Call{Method: "POST", Path: "/devices/query", Body: body, Token: h.Token("service"), Header: map[string]string{}}
		for i := 0; i < len(header); i += 2 {
			c.Header[header[i]] = header[i+1]
		}
		return h.Do(c)
	}

	all := post(`{"query":"SELECT * FROM devices"}`).Want(t, 200, "")
	if _, ok := all.Header["X-Ms-Continuation"]; ok || all.Header.Get("x-ms-item-type") != "Twin" {
		t.Errorf("header of a whole result: %v", all.Header)
	}
	if got := all.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("content type %q", got)
	}
	var twins []json.RawMessage
	if err := json.Unmarshal([]byte(all.Body), &twins); err != nil || len(twins) != 5 {
		t.Fatalf("%d twins, error %v", len(twins), err)
	}
	one := h.Do(wiretest.Call{Method: "GET", Path: "/twins/d3"}).Want(t, 200, "")
	if diff := cmp.Diff(one.Body, string(twins[3])); diff != "" {
		t.Errorf("the twin of a query is not that of GET (-get +query):\n%s", diff)
	}

	// The page size is text, and more than the most is the most. An empty continuation is none.
	first := post(`{"Query":"SELECT deviceId FROM devices WHERE tags.a > 0"}`, "x-ms-max-item-count", "2", "x-ms-continuation", "").
		Want(t, 200, `[{"deviceId":"d1"},{"deviceId":"d2"}]`)
	token := first.Header.Get("x-ms-continuation")
	if token == "" || first.Header.Get("x-ms-item-type") != "Raw" {
		t.Errorf("header of a first page: %v", first.Header)
	}
	second := post(`{"query":"SELECT deviceId FROM devices WHERE tags.a > 0"}`, "x-ms-max-item-count", "9999", "x-ms-continuation", token).
		Want(t, 200, `[{"deviceId":"d3"},{"deviceId":"d4"}]`)
	if _, ok := second.Header["X-Ms-Continuation"]; ok {
		t.Error("the last page has a continuation")
	}

	jobs := post(`{"query":"SELECT * FROM devices.jobs"}`).Want(t, 200, "[]")
	if got := jobs.Header.Get("x-ms-item-type"); got != "DeviceJob" {
		t.Errorf("item type of jobs: %q", got)
	}
	explained := post(`{"query":"SELECT * FROM devices WHERE deviceId = 'd1'"}`, "iotdm-explain", "true").Want(t, 200, "")
	if plan, scanned := explained.Header.Get("iotdm-plan"), explained.Header.Get("iotdm-scanned"); plan != "identities, by id (1)" || scanned != "1" {
		t.Errorf("plan %q, scanned %s", plan, scanned)
	}

	for name, tt := range map[string]struct {
		a          wiretest.Answer
		status     int
		code, text string
	}{
		"no body":               {post(``), 400, "ArgumentNull", "BadRequest"},
		"no query":              {post(`{}`), 400, "ArgumentNull", "BadRequest"},
		"null":                  {post(`{"query":null}`), 400, "ArgumentNull", "BadRequest"},
		"a blank":               {post(`{"query":" "}`), 400, "ArgumentNull", "BadRequest"},
		"a number":              {post(`{"query":1}`), 400, "ArgumentInvalid", "query must not be of type number"},
		"a mistake":             {post(`{"query":"SELECT *\nFROM devices;"}`), 400, "ArgumentInvalid", "SQL query parse failed due to following errors: Line 2:12 unexpected semicolon"},
		"too long":              {post(`{"query":"` + strings.Repeat("x", 8193) + `"}`), 412, "PreconditionFailed", "the query has 8193 characters, the most are 8192"},
		"a page size of 0":      {post(`{"query":"SELECT * FROM devices"}`, "x-ms-max-item-count", "0"), 400, "ArgumentInvalid", "x-ms-max-item-count must be a number from 1"},
		"a page size of banana": {post(`{"query":"SELECT * FROM devices"}`, "x-ms-max-item-count", "banana"), 400, "ArgumentInvalid", "x-ms-max-item-count must be a number from 1"},
		"a foreign token":       {post(`{"query":"SELECT * FROM devices"}`, "x-ms-continuation", token), 400, "ArgumentInvalid", "the continuation token is not one of this query"},
	} {
		t.Run(name, func(t *testing.T) { tt.a.WantError(t, tt.status, tt.code, tt.text) })
	}
}
