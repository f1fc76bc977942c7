package node_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

var update = flag.Bool("update", false, "rewrite the table of metrics in docs/OPERATING.md")

// scrape returns what /metrics prints.
func scrape(t *testing.T, h *wiretest.RESTHub) string {
	t.Helper()
	return h.DoRaw(wiretest.Call{Method: "GET", Path: "/metrics", Token: "-"}).Want(t, 200, "").Body
}

// A metricFamily is what /metrics says of one name.
type metricFamily struct {
	kind, help string
	labels     map[string][]string // values by name
}

var (
	metricComment = regexp.MustCompile(`^# (HELP|TYPE) (\S+) (.*)$`)
	metricSample  = regexp.MustCompile(`^([a-z_0-9]+)(?:\{(.*)\})? \S+$`)
	metricLabel   = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)
)

func metricFamilies(t *testing.T, text string) map[string]metricFamily {
	t.Helper()
	all := make(map[string]metricFamily)
	name := "" // of the family that samples belong to
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := metricComment.FindStringSubmatch(line); m != nil {
			name = m[2]
			f := all[name]
			if m[1] == "HELP" {
				f = metricFamily{help: m[3], labels: make(map[string][]string)}
			} else {
				f.kind = m[3]
			}
			all[name] = f
			continue
		}
		m := metricSample.FindStringSubmatch(line)
		if m == nil || !strings.HasPrefix(m[1], name) {
			t.Fatalf("/metrics prints %q after %s", line, name)
		}
		for _, l := range metricLabel.FindAllStringSubmatch(m[2], -1) {
			values := all[name].labels
			if l[1] != "le" && !slices.Contains(values[l[1]], l[2]) {
				values[l[1]] = append(values[l[1]], l[2])
			}
		}
	}
	return all
}

// TestMetricsAreDocumented compares the table of metrics in docs/OPERATING.md
// with what a hub prints. With -update it writes the table.
func TestMetricsAreDocumented(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{Storage: node.Folder(t.TempDir())})
	families := metricFamilies(t, scrape(t, h))
	rows := []string{"| Name | Type | Labels | Meaning |", "|---|---|---|---|"}
	for _, name := range slices.Sorted(maps.Keys(families)) {
		f := families[name]
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		if !strings.HasPrefix(name, "iotdm_hub_") {
			t.Errorf("%s must begin with iotdm_hub_", name)
		}
		var labels []string
		for _, label := range slices.Sorted(maps.Keys(f.labels)) {
			if values := f.labels[label]; slices.Equal(values, []string{"200"}) {
				labels = append(labels, label+": HTTP status")
			} else {
				slices.Sort(values)
				labels = append(labels, label+": "+strings.Join(values, ", "))
			}
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |", name, f.kind, strings.Join(labels, "; "), f.help))
	}
	for _, name := range []string{"go_goroutines", "go_memstats_heap_inuse_bytes", "process_open_fds", "process_resident_memory_bytes"} {
		if _, ok := families[name]; !ok && (os.PathSeparator == '/' || !strings.HasPrefix(name, "process_open")) {
			t.Errorf("/metrics lacks %s", name)
		}
	}

	const file, begin, end = "../../docs/OPERATING.md", "<!-- metrics -->\n", "<!-- end of metrics -->\n"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(strings.ReplaceAll(string(doc), "\r\n", "\n"), begin)
	table, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatalf("%s has no table between %q and %q", file, begin, end)
	}
	want := strings.Join(rows, "\n") + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, table); diff != "" {
		t.Errorf("%s has another table than /metrics; write it with -update (-printed +documented):\n%s", file, diff)
	}
}

func TestMetricsAreWellFormed(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	problems, err := promlint.New(strings.NewReader(scrape(t, h))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// A refused or odd peer must not make a new series: whoever can reach the hub
// could fill its memory with them.
func TestMetricsDoNotGrowByWhatPeersSend(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	names := func() []string {
		var list []string
		for line := range strings.Lines(scrape(t, h)) {
			if strings.HasPrefix(line, "iotdm_hub_") {
				list = append(list, strings.Fields(line)[0])
			}
		}
		return list
	}
	wiretest.Create(t, h.Node, hub.ID{Device: "d1"}, hub.IdentitySpec{})
	before := names()
	for _, body := range []string{"\x00\x00", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01"} {
		c := wiretest.DialTLS(t, h.Hub)
		c.SendBytes([]byte(body)...)
		c.Close()
	}
	for n := range 5 {
		id := hub.ID{Device: fmt.Sprintf("stranger-%d", n)}
		if code := wiretest.DialTLS(t, h.Hub).Connack(id); code != 5 {
			t.Errorf("CONNACK %d for %s, want 5", code, id)
		}
	}
	c := wiretest.DialTLS(t, h.Hub)
	c.Connect(h.Device("d1"))
	c.Send(wiretest.PublishPacket(1, 1, "somewhere/else", "x"))
	c.WantClosed()
	if diff := cmp.Diff(before, names()); diff != "" {
		t.Errorf("series (-before +after):\n%s", diff)
	}
}

// wantMetrics waits until /metrics prints all these lines: some of what is
// counted ends a moment after the peer has seen it.
func wantMetrics(t *testing.T, h *wiretest.RESTHub, want ...string) {
	t.Helper()
	var missing []string
	text := ""
	for range 200 {
		text = scrape(t, h)
		missing = slices.DeleteFunc(slices.Clone(want), func(line string) bool { return strings.Contains(text, "\n"+line+"\n") })
		if len(missing) == 0 {
			return
		}
	}
	t.Fatalf("/metrics lacks\n%s\nof:\n%s", strings.Join(missing, "\n"), text)
}

func TestMetricsOfConnections(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	device := h.Device("d1")
	wantMetrics(t, h,
		`iotdm_hub_connections{door="https",state="active"} 1`, // that of the scrape
		`iotdm_hub_connections{door="mqtts",state="open"} 0`)

	first := wiretest.DialTLS(t, h.Hub)
	first.Connect(device)
	over := wiretest.DialWebSocket(t, h.Hub)
	over.Connect(device) // takes over
	first.WantClosed()
	opening := wiretest.DialTLS(t, h.Hub)
	if code := wiretest.DialTLS(t, h.Hub).Connack(hub.ID{Device: "d2"}); code != 5 {
		t.Fatalf("CONNACK %d, want 5", code)
	}
	wantMetrics(t, h,
		`iotdm_hub_connected_devices 1`,
		`iotdm_hub_connections{door="mqtts",state="open"} 0`,
		`iotdm_hub_connections{door="mqtts",state="opening"} 1`,
		`iotdm_hub_connections{door="websocket",state="open"} 1`,
		`iotdm_hub_connections_closed_total{door="https",reason="websocket"} 1`,
		`iotdm_hub_connections_closed_total{door="mqtts",reason="taken_over"} 1`,
		`iotdm_hub_connections_refused_total{door="mqtts",reason="unauthorized"} 1`)
	opening.Close()
	over.Disconnect()
	third := wiretest.DialTLS(t, h.Hub)
	third.Connect(device)
	third.Send(wiretest.PublishPacket(1, 1, "somewhere/else", "x"))
	third.WantClosed()
	fourth := wiretest.DialTLS(t, h.Hub)
	fourth.Connect(device)
	fourth.Close()
	wantMetrics(t, h,
		`iotdm_hub_connected_devices 0`,
		`iotdm_hub_connections{door="mqtts",state="opening"} 0`,
		`iotdm_hub_connections_refused_total{door="mqtts",reason="lost"} 1`,
		`iotdm_hub_connections_closed_total{door="websocket",reason="disconnected"} 1`,
		`iotdm_hub_connections_closed_total{door="mqtts",reason="violation"} 1`,
		`iotdm_hub_connections_closed_total{door="mqtts",reason="lost"} 1`,
		`iotdm_hub_outgoing_bytes 0`)
}

func TestMetricsOfMessagesAndJobs(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Device("d1")
	for _, body := range []string{"1", "2", "3"} {
		if err := h.SendMessage("d1", hub.Message{Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	m, ok, err := h.ReceiveMessage("d1", 0)
	if !ok || err != nil {
		t.Fatalf("ReceiveMessage: %v, %v", ok, err)
	}
	wantMetrics(t, h, "iotdm_hub_c2d_queued 3", "iotdm_hub_c2d_in_hand 1", "iotdm_hub_c2d_queues 1", "iotdm_hub_c2d_sent_total 3")
	if err := h.AbandonMessage("d1", m.LockToken); err != nil {
		t.Fatal(err)
	}
	if m, _, _ = h.ReceiveMessage("d1", 0); h.CompleteMessage("d1", m.LockToken) != nil {
		t.Fatal("CompleteMessage fails")
	}
	wiretest.CreateJob(t, h.Node, wiretest.TwinJob("job-1", "*", `{"x":1}`))
	wiretest.WaitJob(t, h.Node, "job-1")
	wantMetrics(t, h,
		"iotdm_hub_c2d_queued 2", "iotdm_hub_c2d_in_hand 0",
		`iotdm_hub_c2d_settled_total{outcome="Abandoned"} 1`, `iotdm_hub_c2d_settled_total{outcome="Success"} 1`,
		`iotdm_hub_jobs_ended_total{status="completed"} 1`, `iotdm_hub_job_rows_total{status="completed"} 1`,
		`iotdm_hub_jobs{status="running"} 0`, `iotdm_hub_job_rows{status="pending"} 0`,
		`iotdm_hub_twin_writes_total{side="service"} 1`, `iotdm_hub_events_total{source="twinChangeEvents"} 1`,
		"iotdm_hub_configuration_lag_seconds 0")
	if err := h.DeleteIdentity(hub.ID{Device: "d1"}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	wantMetrics(t, h, "iotdm_hub_c2d_queued 0", `iotdm_hub_c2d_settled_total{outcome="Purged"} 2`)
}
