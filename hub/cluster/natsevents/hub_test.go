package natsevents_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/cluster/memlog"
	"github.com/iotdm/iotdm/hub/cluster/natsevents"
)

// nodes are those of a hub, whose events are in a stream.
type nodes struct {
	t       *testing.T
	peers   *memlog.Peers
	logs    []*natsevents.Log
	servers []*hub.Server
}

func startNodes(t *testing.T, n int) *nodes {
	t.Helper()
	conn := create(t, natsevents.Settings{Partitions: 3})
	peers, err := memlog.NewPeers(n, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &nodes{t: t, peers: peers, servers: make([]*hub.Server, n)}
	for i, p := range peers.Nodes {
		l := open(t, conn)
		t.Cleanup(hub.KeepOwnEvents(p.DB(), l))
		h.logs = append(h.logs, l)
		h.start(i)
	}
	t.Cleanup(func() {
		for i := range h.servers {
			h.stop(i)
		}
		if err := peers.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *nodes) start(i int) {
	h.t.Helper()
	var err error
	h.servers[i], err = hub.New(hub.Options{Store: h.peers.Nodes[i].DB(), Events: h.logs[i], Peers: h.peers.Nodes[i], ConsumerGroups: []string{"Other"}})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *nodes) stop(i int) {
	if h.servers[i] != nil {
		h.servers[i].Close()
		h.servers[i] = nil
	}
}

// touch patches the reported properties of a device, of which an event tells.
func (h *nodes) touch(i int, device string, n int) {
	if err := h.servers[i].Update(device, func(tx *hub.Tx) error {
		_, err := tx.PatchReported(hub.ID{Device: device}, fmt.Appendf(nil, `{"n":%d}`, n), hub.AnyVersion)
		return err
	}); err != nil {
		h.t.Errorf("node %d: %v", i, err)
	}
}

// reported returns what the events of each device say of n, in order.
func (h *nodes) reported(i int) map[string][]int {
	h.t.Helper()
	all := map[string][]int{}
	for e, err := range h.servers[i].Events(h.t.Context(), hub.EventQuery{Sources: []hub.EventSource{hub.SourceTwinChange}}) {
		if err != nil {
			h.t.Fatal(err)
		}
		var body struct {
			Properties struct {
				Reported struct {
					N int `json:"n"`
				} `json:"reported"`
			} `json:"properties"`
		}
		if err := json.Unmarshal(e.Body, &body); err != nil {
			h.t.Fatal(err)
		}
		all[e.From.Device] = append(all[e.From.Device], body.Properties.Reported.N)
	}
	return all
}

// TestTheHubTellsOfItselfOnce changes twins on all nodes, while the one that leads
// goes and others lead.
func TestTheHubTellsOfItselfOnce(t *testing.T) {
	h := startNodes(t, 3)
	const devices, changes = 4, 60
	want := map[string][]int{}
	for d := range devices {
		name := fmt.Sprint("d", d)
		if _, err := h.servers[0].PutIdentity(hub.ID{Device: name}, hub.IdentitySpec{}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
		for n := range 3 * changes {
			want[name] = append(want[name], n)
		}
	}
	round := func(from int, nodes ...int) {
		var wg sync.WaitGroup
		for d := range devices {
			wg.Go(func() {
				for n := range changes {
					h.touch(nodes[n%len(nodes)], fmt.Sprint("d", d), from+n)
				}
			})
		}
		wg.Wait()
	}
	round(0, 0, 1, 2)
	// The leader is silent, but its store hears: what follows is kept on all nodes.
	h.stop(0)
	round(changes, 1, 2)
	leader := h.peers.Nodes[0].Self()
	if err := h.peers.Nodes[1].Expel(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
	round(2*changes, 1, 2)
	if diff := cmp.Diff(want, h.reported(1)); diff != "" {
		t.Errorf("events of changes (-want +got):\n%s", diff)
	}
	// It comes back, as the last one, and then leads again.
	if _, err := h.peers.Nodes[0].Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.start(0)
	for _, i := range []int{1, 2} {
		h.stop(i)
		if err := h.peers.Nodes[0].Expel(t.Context(), h.peers.Nodes[i].Self()); err != nil {
			t.Fatal(err)
		}
	}
	h.touch(0, "d0", 3*changes)
	want["d0"] = append(want["d0"], 3*changes)
	if diff := cmp.Diff(want, h.reported(0)); diff != "" {
		t.Errorf("events of changes, behind those of another leader (-want +got):\n%s", diff)
	}
}

// TestAnyNodeReadsWhatAnotherReceives has one node receive telemetry, and others
// read it as clients of Event Hubs do.
func TestAnyNodeReadsWhatAnotherReceives(t *testing.T) {
	h := startNodes(t, 2)
	send := func(i int, device string, bodies ...string) {
		t.Helper()
		stored := make(chan error, len(bodies))
		for _, body := range bodies {
			if err := h.servers[i].ReceiveTelemetry(hub.Peer{ID: hub.ID{Device: device}}, hub.Telemetry{Body: []byte(body)}, func(err error) { stored <- err }); err != nil {
				t.Fatal(err)
			}
		}
		for range bodies {
			if err := <-stored; err != nil {
				t.Fatal(err)
			}
		}
	}
	send(0, "d1", "a", "b")
	partition := -1
	for e, err := range h.servers[1].Events(t.Context(), hub.EventQuery{Device: "d1"}) {
		if err != nil {
			t.Fatal(err)
		}
		partition = e.Partition
	}
	p, err := h.servers[1].EventPartition(t.Context(), partition, []hub.EventSource{hub.SourceTelemetry})
	if err != nil || p.Empty {
		t.Fatalf("%+v, %v", p, err)
	}
	readers := map[string]*hub.Reader{
		"from the beginning": {},
		"behind all":         {Query: hub.EventQuery{Latest: true}},
		"at the last":        {Query: hub.EventQuery{Sequence: p.Last}},
		"the last":           {Query: hub.EventQuery{Last: 1}},
	}
	for name, r := range readers {
		r.Group, r.Partition = "other", partition
		if err := h.servers[1].AttachReader(r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	send(0, "d1", "c")
	for name, want := range map[string][]string{"from the beginning": {"a", "b", "c"}, "behind all": {"c"}, "at the last": {"b", "c"}, "the last": {"c"}} {
		var got []string
		for e, err := range h.servers[1].Events(t.Context(), readers[name].Query) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(e.Body))
		}
		if !slices.Equal(got, want) {
			t.Errorf("a reader %s reads %q, want %q", name, got, want)
		}
	}
	later := &hub.Reader{Group: "other", Partition: partition, Query: hub.EventQuery{Sequence: p.Last + 1<<20}}
	if err := h.servers[1].AttachReader(later); !errors.Is(err, hub.ErrNoPosition) {
		t.Errorf("a position that has not come: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	atEnd := make(chan struct{}, 1)
	got := make(chan string)
	go func() {
		q := hub.EventQuery{Latest: true, Follow: true, Sources: []hub.EventSource{hub.SourceTelemetry}, AtEnd: func() {
			select {
			case atEnd <- struct{}{}:
			default:
			}
		}}
		for e, err := range h.servers[1].Events(ctx, q) {
			if err != nil {
				return
			}
			got <- string(e.Body)
		}
	}()
	<-atEnd
	send(0, "d2", "x")
	send(1, "d1", "y")
	for _, want := range []string{"x", "y"} {
		if e := <-got; e != want {
			t.Errorf("%q comes, want %q", e, want)
		}
	}
}
