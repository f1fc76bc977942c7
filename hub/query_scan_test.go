package hub

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
)

// fill stores n devices "d000000", "d000001"... and for every tenth a module
// "m", with tags {"n":number,"even":bool} and that many random bytes of reported
// properties: enough of them fill several tables of the store.
func fill(t testing.TB, s *Server, n, bytes int) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{})
	const batch = 500
	for first := 0; first < n; first += batch {
		err := s.store.Update("", func(tx *store.Tx) error {
			for i := first; i < min(first+batch, n); i++ {
				id := ID{Device: fmt.Sprintf("d%06d", i)}
				status := StatusEnabled
				if i%4 == 0 {
					status = StatusDisabled
				}
				text := make([]byte, bytes)
				random.Read(text)
				record := newTwin(id, s.Now())
				record.Tags = fmt.Appendf(nil, `{"n":%d,"even":%v}`, i, i%2 == 0)
				record.Reported.Properties = fmt.Appendf(nil, `{"text":%q,"battery":%d}`, base64.StdEncoding.EncodeToString(text), i%101)
				put(tx, Identity{ID: id, Version: 1, Status: status, Auth: Authentication{Type: AuthSAS}})
				record.store(tx, id)
				if i%10 == 0 {
					id.Module = "m"
					put(tx, Identity{ID: id, Version: 1, Status: status})
					record.store(tx, id)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func put(tx *store.Tx, i Identity) { tx.Set(i.identityKey(), i.encode()) }

// newFilled returns a server that fill has filled. Its store does not wait for a
// disk.
func newFilled(t testing.TB, n, bytes int) *Server {
	t.Helper()
	s, end := open(t, "", nil)
	t.Cleanup(end)
	fill(t, s, n, bytes)
	return s
}

func TestALongScanInPartsFindsTheSameRowsInOrder(t *testing.T) {
	const n = 6000
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("with one core a scan has one part")
	}
	s := newFilled(t, n, 6000)
	q, err := query.Parse("SELECT * FROM devices")
	if err != nil {
		t.Fatal(err)
	}
	// The store sorts what it has into files beside this, a part for each. On a
	// busy machine it may find that one file is enough: then another store does it.
	limit, another := time.After(time.Minute), time.NewTicker(5*time.Second)
	defer another.Stop()
	for parts := 0; parts < 2; {
		err := s.scan(q, "", func(sc *scan) error {
			list, err := sc.parts(sc.spans)
			parts = len(list)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-limit:
			t.Fatalf("the rows are in %d parts: this test shows nothing", parts)
		case <-another.C:
			if parts < 2 {
				s = newFilled(t, n, 6000)
			}
		case <-time.After(10 * time.Millisecond):
		}
	}

	for text, keep := range map[string]func(i int) bool{
		"SELECT deviceId FROM devices WHERE tags.even AND properties.reported.battery < 1":                  func(i int) bool { return i%2 == 0 && i%101 == 0 },
		"SELECT deviceId FROM devices WHERE tags.even = true AND status = 'disabled' AND tags.n % 1000 = 0": func(i int) bool { return i%1000 == 0 },
		"SELECT TOP 3 deviceId FROM devices WHERE tags.n > 4500 AND deviceId != 'd004501'":                  func(i int) bool { return i > 4501 && i < 4505 },
		"SELECT deviceId FROM devices.modules WHERE tags.n >= 5000":                                         func(i int) bool { return i >= 5000 && i%10 == 0 },
		"SELECT deviceId FROM devices WHERE deviceId >= 'd0059' OR STARTSWITH(deviceId, 'd00000')":          func(i int) bool { return i >= 5900 || i < 10 },
	} {
		want := []any{}
		for i := range n {
			if keep(i) {
				want = append(want, map[string]any{"deviceId": fmt.Sprintf("d%06d", i)})
			}
		}
		got, err := queryAll(t, s, text, 37)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
		q, err := query.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if count, err := s.Count(t.Context(), q); err != nil || count != len(want) {
			t.Errorf("the count of %s is %d, %v, want %d", text, count, err, len(want))
		}
	}

	page, err := s.Query(t.Context(), "SELECT tags.even AS even, COUNT() AS n, SUM(tags.n) AS total, MAX(tags.n) AS hi, AVG(properties.reported.battery) AS b "+
		"FROM devices WHERE status = 'enabled' GROUP BY tags.even", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	want := map[bool]*struct{ n, sum, hi, b float64 }{false: {}, true: {}}
	for i := range n {
		if g := want[i%2 == 0]; i%4 != 0 {
			g.n++
			g.sum += float64(i)
			g.hi = max(g.hi, float64(i))
			g.b += float64(i % 101)
		}
	}
	text := func(even bool) string {
		return fmt.Sprintf(`{"even":%v,"n":%s,"total":%s,"hi":%s,"b":%s}`, even, words.MustMarshal(want[even].n), words.MustMarshal(want[even].sum),
			words.MustMarshal(want[even].hi), words.MustMarshal(want[even].b/want[even].n))
	}
	if diff := cmp.Diff("["+text(false)+","+text(true)+"]", string(page.Body)); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if page.Scanned != n {
		t.Errorf("%d rows were looked at, want %d", page.Scanned, n)
	}
}

func TestWhatAQueryReads(t *testing.T) {
	const n = 500
	s := newFilled(t, n, 0)
	for _, i := range []int{7, 300} {
		id := ID{Device: fmt.Sprintf("d%06d", i)}
		s.links.byID[id] = &quietLink{id: id}
	}
	for text, want := range map[string]struct {
		plan    string
		scanned int
		rows    int
	}{
		"SELECT COUNT() FROM devices":                                                                  {"identities, all", n, 1},
		"SELECT AVG(tags.n) FROM devices":                                                              {"twins, all", n, 1},
		"SELECT AVG(tags.n) FROM devices WHERE status = 'enabled'":                                     {"twins, all", n, 1},
		"SELECT deviceId FROM devices WHERE status = 'enabled' AND deviceId < 'd000100'":               {"identities, ranges of ids (1)", 100, 75},
		"SELECT * FROM devices WHERE deviceId = 'd000007'":                                             {"identities, by id (1)", 1, 1},
		"SELECT * FROM devices WHERE deviceId = 'd000007' AND deviceId = 'd000008'":                    {"identities, by id (0)", 0, 0},
		"SELECT * FROM devices WHERE deviceId IN ['d000400', 'd000007', 'nope'] AND tags.n > 0":        {"twins, by id (3)", 2, 2},
		"SELECT * FROM devices WHERE STARTSWITH(deviceId, 'd00003') OR deviceId = 'd000400'":           {"identities, ranges of ids (2)", 11, 11},
		"SELECT * FROM devices WHERE STARTSWITH(deviceId, 'd00003') AND STARTSWITH(id, 'd')":           {"identities, ranges of ids (1)", 10, 10},
		"SELECT * FROM devices WHERE connectionState = 'Connected'":                                    {"identities, connected (2)", 2, 2},
		"SELECT * FROM devices WHERE connectionState = 'Connected' AND deviceId > 'd0001'":             {"identities, connected (1)", 1, 1},
		"SELECT COUNT() FROM devices WHERE connectionState = 'Connected' AND tags.n = 300":             {"twins, connected (2)", 2, 1},
		"SELECT COUNT() FROM devices WHERE connectionState = 'Disconnected'":                           {"identities, all", n, 1},
		"SELECT * FROM devices WHERE connectionState = 'Connected' OR deviceId = 'd000008'":            {"identities, all", n, 3},
		"SELECT * FROM devices.modules WHERE deviceId = 'd000070'":                                     {"identities, ranges of ids (1)", 1, 1},
		"SELECT * FROM devices.modules WHERE STARTSWITH(deviceId, 'd00007') AND connectionState < 'E'": {"identities, ranges of ids (1)", 1, 1},
		"SELECT * FROM devices.modules WHERE connectionState = 'Connected'":                            {"identities, connected (0)", 0, 0},
		"SELECT TOP 1 * FROM devices WHERE tags.n = 20":                                                {"twins, all", 21, 1},
	} {
		page, err := s.Query(t.Context(), text, n, "")
		if err != nil {
			t.Fatal(err)
		}
		if page.Plan != want.plan || page.Scanned != want.scanned || page.Rows != want.rows {
			t.Errorf("%s\nreads %s, %d rows, and finds %d\nwant  %s, %d rows, and %d", text, page.Plan, page.Scanned, page.Rows, want.plan, want.scanned, want.rows)
		}
	}
}

// Some characters of ids are below the "/" of a module's name, so that modules
// are not in the order of their devices' ids.
func TestRangesOfDeviceIDsFindTheModules(t *testing.T) {
	s := newFilled(t, 0, 0)
	devices := []string{"a", "a!", "a!b", "a-", "a-/b"[:2], "a-b", "a0", "ab", "b", "b.c", "b:"}
	err := s.store.Update("", func(tx *store.Tx) error {
		for _, d := range devices {
			for _, m := range []string{"", "m", "~"} {
				id := ID{Device: d, Module: m}
				put(tx, Identity{ID: id})
				record := newTwin(id, s.Now())
				record.store(tx, id)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(devices)
	devices = slices.Compact(devices)
	bounds := append(slices.Clone(devices), "a,", "a/", "a.", "b-", "c")
	for _, from := range bounds {
		for _, to := range bounds {
			want := map[string]int{}
			for _, d := range devices {
				if d >= from && d < to || d == "b:" {
					want[d] = 2
				}
			}
			rows, err := queryAll(t, s, fmt.Sprintf("SELECT deviceId FROM devices.modules WHERE deviceId >= '%s' AND deviceId < '%s' OR deviceId = 'b:'", from, to), 3)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			for _, row := range rows {
				got[row.(map[string]any)["deviceId"].(string)]++
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("from %s to %s (-want +got):\n%s", from, to, diff)
			}
		}
	}
}

func TestPagesEndEarlyWhenTheirRowsAreLarge(t *testing.T) {
	s := newFilled(t, 30, 300_000)
	var got []any
	continuation := ""
	pages := 0
	for {
		page, err := s.Query(t.Context(), "SELECT * FROM devices", 0, continuation)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Body) > 2*maxQueryPageBytes+500_000 {
			t.Errorf("a page has %d bytes", len(page.Body))
		}
		var rows []struct{ DeviceID any }
		if err := json.Unmarshal(page.Body, &rows); err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			got = append(got, row.DeviceID)
		}
		pages++
		if continuation = page.Continuation; continuation == "" {
			break
		}
	}
	var want []any
	for i := range 30 {
		want = append(want, fmt.Sprintf("d%06d", i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if pages != 3 {
		t.Errorf("12 MB came in %d pages", pages)
	}
}

func TestWhatAQueryCostsIsBounded(t *testing.T) {
	const n = probeRows + 10*checkRows
	s := newFilled(t, n, 0)
	q, err := query.Parse("SELECT * FROM devices")
	if err != nil {
		t.Fatal(err)
	}
	// count goes through all rows and says how many it has looked at. Each row
	// and each part end ctx if their number is that.
	count := func(atRow, atPart int, cause error) (scanned int64, err error) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		rows, parts := 0, 0
		err = s.scan(q, "", func(sc *scan) error {
			defer func() { scanned = sc.scanned.Load() }()
			sc.turns = s.queryTurns
			return collect(ctx, sc, func() *int { return new(int) },
				func(*int, *row) bool {
					if rows++; rows == atRow {
						cancel(cause)
					}
					return true
				},
				func(*int) bool {
					if parts++; parts == atPart {
						cancel(cause)
					}
					return true
				})
		})
		return scanned, err
	}
	gone := errors.New("the caller has gone")
	if scanned, err := count(100, 0, gone); err != gone || scanned != 2*checkRows {
		t.Errorf("a query whose caller goes at row 100 ends at row %d with %v", scanned, err)
	}
	if scanned, err := count(0, 0, nil); err != nil || scanned != n {
		t.Errorf("a query that is let be looks at %d rows, %v", scanned, err)
	}

	for range maxLongQueries {
		s.queryTurns <- struct{}{}
	}
	if scanned, err := count(0, 1, ErrQueryTime); !errors.Is(err, ErrThrottled) || scanned != probeRows {
		t.Errorf("a query that waits for its turn too long looks at %d rows, %v", scanned, err)
	}
	if _, err := count(0, 1, gone); err != gone {
		t.Errorf("a query whose caller goes while it waits for its turn: %v", err)
	}
	if page, err := s.Query(t.Context(), "SELECT * FROM devices", 0, ""); err != nil || page.Rows != 100 {
		t.Errorf("a short query meanwhile: %d rows, %v", page.Rows, err)
	}
	found := 0
	for _, err := range s.Matching(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		found++
	}
	if found != n {
		t.Errorf("what the hub asks itself finds %d devices meanwhile, want %d", found, n)
	}
	for range maxLongQueries {
		<-s.queryTurns
	}

	s.queryTime = 1
	for _, text := range []string{"SELECT COUNT() FROM devices", "SELECT * FROM devices WHERE tags.n < 0"} {
		if _, err := s.Query(t.Context(), text, 0, ""); !errors.Is(err, ErrInvalidOperation) {
			t.Errorf("%s takes too long: %v, want %v", text, err, ErrQueryTime)
		}
	}
	if _, err := s.Count(t.Context(), q); !errors.Is(err, ErrInvalidOperation) {
		t.Errorf("a count takes too long: %v, want %v", err, ErrQueryTime)
	}
	if page, err := s.Query(t.Context(), "SELECT * FROM devices WHERE deviceId = 'd000007'", 0, ""); err != nil || page.Rows != 1 {
		t.Errorf("a query of one device takes as long: %v", err)
	}
}

// A query can name the same part of a twin hundreds of times.
func TestPagesOfLargeGroupsEndEarly(t *testing.T) {
	s := newFilled(t, 40, 0)
	err := s.store.Update("", func(tx *store.Tx) error {
		for i := range 40 {
			id := ID{Device: fmt.Sprintf("d%06d", i)}
			record := newTwin(id, s.Now())
			record.Tags = fmt.Appendf(nil, `{"a":"%d%s"}`, i, strings.Repeat("x", 16_000))
			record.store(tx, id)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	columns := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("tags.a AS c%d", i))
		}
		return strings.Join(list, ", ")
	}
	text := "SELECT " + columns(100) + " FROM devices GROUP BY tags.a"
	rows, pages, continuation := 0, 0, ""
	for {
		page, err := s.Query(t.Context(), text, 0, continuation)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Body) > 2*maxQueryPageBytes {
			t.Errorf("a page has %d bytes", len(page.Body))
		}
		rows, pages = rows+page.Rows, pages+1
		if continuation = page.Continuation; continuation == "" {
			break
		}
	}
	if rows != 40 || pages != 14 {
		t.Errorf("40 rows of 1.6 MB are %d on %d pages, want 14", rows, pages)
	}
	for _, text := range []string{"SELECT " + columns(300) + " FROM devices", "SELECT " + columns(300) + " FROM devices GROUP BY tags.a"} {
		if page, err := s.Query(t.Context(), text, 0, ""); !errors.Is(err, ErrMessageTooLarge) {
			t.Errorf("%.40s...: %d bytes, %v, want %v", text, len(page.Body), err, ErrMessageTooLarge)
		}
	}
}

func TestADamagedRecordFailsTheQuery(t *testing.T) {
	s := newFilled(t, 3, 0)
	id := ID{Device: "d000001"}
	err := s.store.Update("", func(tx *store.Tx) error { tx.Set(id.twinKey(), []byte{twinFormat, 1}); return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"SELECT * FROM devices", "SELECT COUNT() FROM devices WHERE tags.n = 1"} {
		var refusal *Error
		if page, err := s.Query(t.Context(), text, 0, ""); err == nil || errors.As(err, &refusal) {
			t.Errorf("%s: %s, error %v, want one that is the hub's fault", text, page.Body, err)
		}
	}
}

func TestInOrder(t *testing.T) {
	boom := errors.New("boom")
	square := func(_ context.Context, i int) (int, error) { return i * i, nil }
	for name, tt := range map[string]struct {
		work func(context.Context, int) (int, error)
		stop int // the number of results that are taken
		want error
	}{
		"all are taken in order":          {square, 1000, nil},
		"the taker ends it":               {square, 17, nil},
		"an error ends it":                {func(_ context.Context, i int) (int, error) { return i * i, map[bool]error{true: boom}[i == 17] }, 1000, boom},
		"an error behind the end is none": {func(_ context.Context, i int) (int, error) { return i * i, map[bool]error{true: boom}[i == 18] }, 17, nil},
	} {
		t.Run(name, func(t *testing.T) {
			next := 0
			err := inOrder(t.Context(), 1000, tt.work, func(v int) bool {
				if v != next*next {
					t.Errorf("result %d is %d", next, v)
				}
				next++
				return next < tt.stop
			})
			if !errors.Is(err, tt.want) || tt.want == nil && next != tt.stop || tt.want != nil && next != 17 {
				t.Errorf("%d results, error %v", next, err)
			}
		})
	}
	t.Run("the context ends it", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		err := inOrder(ctx, 3, func(ctx context.Context, i int) (int, error) {
			if i == 1 {
				cancel(boom)
				<-ctx.Done()
			}
			return i, context.Cause(ctx)
		}, func(int) bool { return true })
		if err != boom {
			t.Errorf("error %v, want that of the context", err)
		}
	})
}

// Whatever a client sends as a continuation, it is refused or one that leads on.
func FuzzContinuation(f *testing.F) {
	q, err := query.Parse("SELECT TOP 300 * FROM devices")
	if err != nil {
		f.Fatal(err)
	}
	at, err := parsePosition(q, "")
	if err != nil {
		f.Fatal(err)
	}
	at.after, at.left = "d1", 200
	f.Add(at.String())
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, continuation string) {
		at, err := parsePosition(q, continuation)
		if err != nil {
			if !errors.Is(err, ErrArgumentInvalid) {
				t.Errorf("%q: %v", continuation, err)
			}
			return
		}
		if at.left < 1 || at.left > 300 || continuation != "" && at.after == "" {
			t.Errorf("%q leads to %+v", continuation, at)
		}
		if again, err := parsePosition(q, at.String()); err == nil && again != at {
			t.Errorf("%+v prints as %+v", at, again)
		}
	})
}
