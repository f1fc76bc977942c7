package bulk

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// A slowHub answers requests about identities in a random order, and complains
// of those that come too early.
type slowHub struct {
	t *testing.T

	mu      sync.Mutex // guards what follows
	random  *rand.Rand
	edge    map[string]bool // of the devices that there are: whether they may have children
	changes map[string][]int
	busy    map[string]bool
}

// newSlowHub starts a hub, and returns a client of it.
func newSlowHub(t *testing.T, random *rand.Rand) (*slowHub, *hubrest.Client) {
	h := &slowHub{t: t, random: random, edge: make(map[string]bool), changes: make(map[string][]int), busy: make(map[string]bool)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /devices", h.bulk)
	mux.HandleFunc("POST /devices/query", h.query)
	mux.HandleFunc("GET /devices/{id}", h.device)
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	client, err := hubrest.New(hubrest.Options{
		ConnectionString: sas.ConnectionString{HostName: "example.com", SharedAccessKeyName: "service", SharedAccessKey: sas.NewKey()},
		Addr:             server.Listener.Addr().String(),
		TLS:              &tls.Config{RootCAs: roots},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return h, client
}

func (h *slowHub) device(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	h.mu.Lock()
	edge, found := h.edge[id]
	h.mu.Unlock()
	if !found {
		w.Header().Set("iothub-errorcode", "DeviceNotFound")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	d := hubrest.Device{DeviceID: id, Capabilities: hubrest.Capabilities{IoTEdge: edge}}
	if edge {
		d.DeviceScope = scopeHere(id)
	}
	json.NewEncoder(w).Encode(d)
}

var quoted = regexp.MustCompile(`'(d\d+)'`)

// query answers with the twins of the devices that the query names.
func (h *slowHub) query(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Query string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		h.t.Error(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	rows := []map[string]any{}
	for _, name := range quoted.FindAllStringSubmatch(asked.Query, -1) {
		if edge, found := h.edge[name[1]]; found {
			changes := h.changes[name[1]]
			rows = append(rows, map[string]any{
				"deviceId": name[1], "tags": map[string]int{"line": changes[len(changes)-1]}, "capabilities": map[string]bool{"iotEdge": edge},
			})
		}
	}
	json.NewEncoder(w).Encode(rows)
}

// scopeHere is the scope of an IoT Edge device on the hub; that in a file has
// another number.
func scopeHere(id string) string { return "ms-azure-iot-edge://" + id + "-2" }

func (h *slowHub) bulk(w http.ResponseWriter, r *http.Request) {
	var entries []hubrest.BulkEntry
	if err := json.NewDecoder(r.Body).Decode(&entries); err != nil {
		h.t.Error(err)
	}
	h.mu.Lock()
	for _, e := range entries {
		if h.busy[e.ID] {
			h.t.Errorf("%s is in two requests at once, or twice in one", e.ID)
		}
		h.busy[e.ID] = true
	}
	pause := time.Duration(h.random.IntN(100)) * time.Microsecond
	h.mu.Unlock()
	time.Sleep(pause) // so that requests under way end in another order than they began
	h.mu.Lock()
	defer h.mu.Unlock()
	result := hubrest.BulkResult{IsSuccessful: true}
	for _, e := range entries {
		h.busy[e.ID] = false
		if !h.change(e) {
			result.IsSuccessful = false
			result.Errors = append(result.Errors, hubrest.BulkError{DeviceID: e.ID, Name: "DeviceNotFound"})
		}
	}
	if !result.IsSuccessful {
		w.Header().Set("iothub-errorcode", "BulkRegistryOperationFailure")
		w.WriteHeader(http.StatusBadRequest)
	}
	json.NewEncoder(w).Encode(result)
}

// change makes the change of an entry, if there is its device.
func (h *slowHub) change(e hubrest.BulkEntry) bool {
	_, found := h.edge[e.ID]
	if changesOnlyTwin(e.ImportMode) && !found {
		return false
	}
	if parent := parentOf(e); parent != "" {
		if !h.edge[parent] || e.ParentScopes[0] != scopeHere(parent) {
			h.t.Errorf("%s came before its parent %s, or with the scope %s", e.ID, parent, e.ParentScopes[0])
		}
	}
	if !found {
		h.edge[e.ID] = e.Capabilities != nil && e.Capabilities.IoTEdge
	}
	var tags struct{ Line int }
	if err := json.Unmarshal(e.Tags, &tags); err != nil {
		h.t.Error(err)
	}
	h.changes[e.ID] = append(h.changes[e.ID], tags.Line)
	return true
}

// A plannedFile is an import file, with what has to come of it.
type plannedFile struct {
	text   strings.Builder
	lines  int
	order  map[string][]int // the lines of each device that gets created
	failed []int            // those of the others
}

// plan makes a file of devices, each with one line that creates it and up to
// changes that change its twin, in an order that is random apart from that. Some
// are children of others, whose lines may stand below theirs, and some those of
// a parent that there is not.
func plan(random *rand.Rand, devices, changes int) *plannedFile {
	f := &plannedFile{order: make(map[string][]int)}
	orphans := make(map[string]bool)
	type device struct {
		id    string
		lines []string // without their ends
	}
	var left []device
	for i := range devices {
		id, parent := fmt.Sprint("d", i), ""
		switch {
		case i > 0 && random.IntN(10) == 0:
			parent = "nobody"
		case i > 0 && random.IntN(2) == 0:
			parent = fmt.Sprint("d", 4*random.IntN((i+3)/4)) // a smaller number, so that they don't go in circles
		}
		create := fmt.Sprintf(`{"id":%q,"capabilities":{"iotEdge":%t}`, id, i%4 == 0)
		if parent != "" {
			create += fmt.Sprintf(`,"parentScopes":["ms-azure-iot-edge://%s-1"]`, parent)
		}
		orphans[id] = parent == "nobody" || orphans[parent]
		d := device{id, []string{create}}
		for range changes/2 + random.IntN(changes/2+1) {
			d.lines = append(d.lines, fmt.Sprintf(`{"id":%q,"importMode":"updateTwin"`, id))
		}
		left = append(left, d)
	}
	for len(left) > 0 {
		i := random.IntN(len(left))
		d := &left[i]
		f.lines++
		fmt.Fprintf(&f.text, "%s,\"tags\":{\"line\":%d}}\n", d.lines[0], f.lines)
		if orphans[d.id] {
			f.failed = append(f.failed, f.lines)
		} else {
			f.order[d.id] = append(f.order[d.id], f.lines)
		}
		if d.lines = d.lines[1:]; len(d.lines) == 0 {
			left = slices.Delete(left, i, i+1)
		}
	}
	return f
}

// Whatever the order of lines and of answers: a device is changed in the order
// of its lines and created after its parent, each line is reported once, and
// what waits stays within bounds.
func TestImportKeepsTheOrderOfEachDevice(t *testing.T) {
	for _, tt := range []struct {
		name             string
		devices, changes int
		parallel         int
	}{
		{"a few devices, many lines of each", 6, 40, 4},
		{"many devices", 400, 3, 8},
		{"one request at a time", 60, 5, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seed := rand.Uint64()
			random := rand.New(rand.NewPCG(seed, 0))
			f := plan(random, tt.devices, tt.changes)
			hub, client := newSlowHub(t, random)
			lines, err := NewReader(strings.NewReader(f.text.String()), "ndjson")
			if err != nil {
				t.Fatal(err)
			}
			im := &Import{Client: client, Mode: hubrest.ImportCreateOrUpdate, Parallel: tt.parallel, FromLine: 1, Lines: lines}
			var reported, failed []int
			im.Report = func(r LineResult) error {
				reported = append(reported, r.Line)
				if r.Failed() {
					failed = append(failed, r.Line)
				}
				if len(im.held) > maxHeldBack || len(im.parked) > maxParked || im.running > tt.parallel {
					t.Errorf("%d held back, %d parked, %d under way", len(im.held), len(im.parked), im.running)
				}
				return nil
			}
			if err := im.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			slices.Sort(reported)
			slices.Sort(failed)
			want := make([]int, f.lines)
			for i := range want {
				want[i] = i + 1
			}
			if diff := cmp.Diff(want, reported); diff != "" {
				t.Errorf("seed %d: lines reported (-want +got):\n%s", seed, diff)
			}
			if diff := cmp.Diff(f.failed, failed); diff != "" {
				t.Errorf("seed %d: lines failed (-want +got):\n%s", seed, diff)
			}
			if diff := cmp.Diff(f.order, hub.changes); diff != "" {
				t.Errorf("seed %d: changes of devices (-want +got):\n%s", seed, diff)
			}
		})
	}
}

// An import that is interrupted says where to go on: no line before that is
// undone. It has read no more than it may hold back.
func TestImportResumesBehindWhatIsDone(t *testing.T) {
	for _, tt := range []struct {
		name             string
		devices, changes int
		after            int // lines
	}{
		{"many devices", 100, 5, 150},
		{"more lines of one device than may be held back", 1, 4 * maxHeldBack, 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seed := rand.Uint64()
			random := rand.New(rand.NewPCG(seed, 0))
			f := plan(random, tt.devices, tt.changes)
			_, client := newSlowHub(t, random)
			lines, err := NewReader(strings.NewReader(f.text.String()), "ndjson")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(map[int]bool)
			im := &Import{Client: client, Mode: hubrest.ImportCreateOrUpdate, Parallel: 4, FromLine: 1, Lines: lines}
			im.Report = func(r LineResult) error {
				if done[r.Line] = true; len(done) == tt.after {
					cancel()
				}
				return nil
			}
			if err := im.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Fatalf("Run = %v, want %v", err, context.Canceled)
			}
			for n := 1; n < im.Resume(); n++ {
				if !done[n] {
					t.Errorf("seed %d: go on with line %d, but line %d is not done", seed, im.Resume(), n)
				}
			}
			if most := len(done) + maxHeldBack + 4*hubrest.MaxBulk; im.read > most {
				t.Errorf("seed %d: line %d is read when %d are done, want up to %d", seed, im.read, len(done), most)
			}
		})
	}
}
