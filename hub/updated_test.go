package hub

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/store"
)

// places returns the index as it is, and as the twins say that it should be.
func places(t *testing.T, s *Server) (is, should []string) {
	t.Helper()
	for _, modules := range []bool{false, true} {
		prefix, twins := []byte(updatedPrefix(modules)), []byte(disk.DeviceTwin)
		if modules {
			twins = []byte(disk.ModuleTwin)
		}
		err := s.store.Scan(prefix, store.PrefixEnd(prefix), func(k, _ []byte) error {
			is = append(is, string(k))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		err = s.store.Scan(twins, store.PrefixEnd(twins), func(k, v []byte) error {
			r, err := decodeTwin(v)
			should = append(should, string(updatedMinute(r.Desired.Metadata, r.Reported.Metadata).key(keyID(k))))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(should)
	return is, should
}

func TestTheIndexOfUpdatesFollowsTheTwins(t *testing.T) {
	now := clock.Stopped(time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC))
	dir := t.TempDir()
	s, end := open(t, dir, now)
	r := rand.New(rand.NewPCG(1, 2))
	id := func() ID {
		id := ID{Device: fmt.Sprintf("d%d", r.IntN(5))}
		if r.IntN(2) == 0 {
			id.Module = fmt.Sprintf("m%d", r.IntN(3))
		}
		return id
	}
	steps := []func() error{
		func() error { _, err := s.PutIdentity(id(), IdentitySpec{}, Match{}); return err },
		func() error { _, err := s.PutIdentity(id(), IdentitySpec{}, Match{}); return err },
		func() error {
			_, err := s.PutIdentity(ID{Device: fmt.Sprintf("d%d", r.IntN(5))}, IdentitySpec{IoTEdge: r.IntN(2) == 0}, Match{Any: true})
			return err
		},
		func() error { return s.DeleteIdentity(id(), Match{}) },
		func() error { _, err := s.PatchReported(id(), []byte(`{"a":1}`), AnyVersion); return err },
		func() error { _, err := s.PatchReported(id(), []byte(`{"a":2}`), AnyVersion); return err },
		func() error {
			_, err := s.PatchTwin(id(), TwinChange{Desired: json.RawMessage(`{"a":1}`)}, Match{})
			return err
		},
		func() error {
			_, err := s.ReplaceTwin(id(), TwinChange{Tags: json.RawMessage(`{"a":1}`)}, Match{})
			return err
		},
		func() error { return s.announceModel(id(), fmt.Sprint("dtmi:a;", r.IntN(9))) },
	}
	for range 600 {
		// Most steps are within a minute of the one before. The clock may go back.
		now.Advance(time.Duration(r.IntN(70)-10) * time.Second)
		_ = steps[r.IntN(len(steps))]() // many are refused, which is well
	}
	is, should := places(t, s)
	if diff := cmp.Diff(should, is); diff != "" || len(is) < 5 {
		t.Errorf("%d places (-twins +index):\n%s", len(is), diff)
	}

	// A store from before the index gets one.
	err := s.store.Update("", func(tx *store.Tx) error { tx.DeletePrefix([]byte("updated/")); return nil })
	if err != nil {
		t.Fatal(err)
	}
	end()
	s, end = open(t, dir, now)
	defer end()
	is, _ = places(t, s)
	if diff := cmp.Diff(should, is); diff != "" {
		t.Errorf("index of an older store (-want +got):\n%s", diff)
	}
}

func TestQueriesForRecentChangesReadOnlyThose(t *testing.T) {
	now := clock.Stopped(time.Date(2026, 3, 14, 9, 0, 30, 0, time.UTC))
	s, end := open(t, "", now)
	t.Cleanup(end)
	fill(t, s, 300, 0)
	for i, id := range []ID{{Device: "d000003"}, {Device: "d000200"}, {Device: "d000200", Module: "m"}} {
		now.Advance(time.Minute)
		patch := TwinChange{Desired: json.RawMessage(`{"a":{"b":1}}`)}
		if _, err := s.PatchTwin(id, patch, Match{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PatchReported(id, fmt.Appendf(nil, `{"n":%d}`, i), AnyVersion); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]struct {
		plan    string
		scanned int
		ids     []string
	}{
		"SELECT deviceId FROM devices WHERE properties.reported.$metadata.$lastUpdated > '2026-03-14T09:01'":                       {"twins, updated lately (2)", 2, []string{"d000003", "d000200"}},
		"SELECT deviceId FROM devices WHERE properties.reported.$metadata.n.$lastUpdated >= '2026-03-14T09:02:30Z'":                {"twins, updated lately (1)", 1, []string{"d000200"}},
		"SELECT deviceId FROM devices WHERE '2026-03-14T09:02:31Z' < properties.desired.$metadata.a.b.$lastUpdated":                {"twins, updated lately (1)", 1, nil},
		"SELECT deviceId FROM devices WHERE properties.desired.$metadata.$lastUpdated > '2026-03-14T09:01' AND deviceId < 'd0001'": {"twins, updated lately (1)", 1, []string{"d000003"}},
		"SELECT deviceId FROM devices.modules WHERE properties.desired.$metadata.$lastUpdated > '2026-03-14T09:01'":                {"twins, updated lately (1)", 1, []string{"d000200"}},
		"SELECT TOP 1 deviceId FROM devices WHERE properties.reported.$metadata.$lastUpdated > '2026-03-14T09:01' OR tags.n = 2":   {"twins, all", 3, []string{"d000002"}},
		"SELECT deviceId FROM devices WHERE properties.reported.$metadata.$lastUpdated > '2027'":                                   {"twins, updated lately (0)", 0, nil},
	} {
		page, err := s.Query(t.Context(), text, 0, "")
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for row := range strings.SplitSeq(strings.Trim(string(page.Body), "[]"), ",") {
			if id, ok := strings.CutPrefix(row, `{"deviceId":"`); ok {
				ids = append(ids, strings.TrimSuffix(id, `"}`))
			}
		}
		if diff := cmp.Diff(want.ids, ids); diff != "" || page.Plan != want.plan || page.Scanned != want.scanned {
			t.Errorf("%s\nreads %s, %d rows, want %s, %d (-want +got):\n%s", text, page.Plan, page.Scanned, want.plan, want.scanned, diff)
		}
	}
}

func TestMinuteFrom(t *testing.T) {
	at := func(text string) minute {
		parsed, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return minuteOf(parsed)
	}
	for text, want := range map[string]minute{
		"2026-03-14T09:26:53.5897932Z": at("2026-03-14T09:26:00Z"),
		"2026-03-14T09:26":             at("2026-03-14T09:26:00Z"),
		"2026-03-14T09:2":              at("2026-03-14T00:00:00Z"),
		"2026-03-14 09:26":             at("2026-03-14T00:00:00Z"),
		"2026-03-99":                   at("2026-03-01T00:00:00Z"),
		"2026-3":                       at("2026-01-01T00:00:00Z"),
		"2026":                         at("2026-01-01T00:00:00Z"),
		"202":                          0,
		"":                             0,
		"yesterday":                    0,
		"1969-12-31":                   0,
		"0001-01-01T00:00:00Z":         0,
	} {
		if got := minuteFrom(text); got != want {
			t.Errorf("minuteFrom(%s) = %d, want %d", text, got, want)
		}
	}
}
