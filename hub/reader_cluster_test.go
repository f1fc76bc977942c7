package hub_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/cluster/memlog"
	"github.com/iotdm/iotdm/hub/eventlog"
)

// eventNodes returns the servers of a hub of n nodes, which share a log of events.
func eventNodes(t *testing.T, n int) ([]*hub.Server, *memlog.Peers) {
	t.Helper()
	peers, err := memlog.NewPeers(n, nil)
	if err != nil {
		t.Fatal(err)
	}
	events, err := eventlog.OpenMemory(eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var servers []*hub.Server
	for _, p := range peers.Nodes {
		s, err := hub.New(hub.Options{Store: p.DB(), Events: events, Peers: p, ConsumerGroups: []string{"Other"}})
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, s)
	}
	t.Cleanup(func() {
		for _, s := range servers {
			s.Close()
		}
		if err := errors.Join(peers.Close(), events.Close()); err != nil {
			t.Error(err)
		}
	})
	return servers, peers
}

// A clusterReader knows whether it was ended.
type clusterReader struct {
	*hub.Reader
	ended chan error
}

func newClusterReader(group string, epoch *int64) *clusterReader {
	r := &clusterReader{&hub.Reader{Group: group, Partition: 1, Epoch: epoch}, make(chan error, 1)}
	r.End = func(reason error) { r.ended <- reason }
	return r
}

func (r *clusterReader) attach(t *testing.T, s *hub.Server, want error) {
	t.Helper()
	if err := s.AttachReader(r.Reader); !errors.Is(err, want) {
		t.Errorf("attach: %v, want %v", err, want)
	}
}

func TestReadersOfAllNodesShareAPlace(t *testing.T) {
	servers, peers := eventNodes(t, 3)
	var five []*clusterReader
	for i := range 5 {
		r := newClusterReader("other", nil)
		r.attach(t, servers[i%3], nil)
		five = append(five, r)
	}
	newClusterReader("OTHER", nil).attach(t, servers[0], hub.ErrTooManyReaders)
	newClusterReader("$Default", nil).attach(t, servers[0], nil) // another place

	servers[4%3].DetachReader(five[4].Reader)
	sixth := newClusterReader("Other", nil)
	for until := time.Now().Add(time.Minute); ; { // the other nodes hear of it a moment later
		err := servers[2].AttachReader(sixth.Reader)
		if err == nil {
			break
		}
		if !errors.Is(err, hub.ErrTooManyReaders) || time.Now().After(until) {
			t.Fatal(err)
		}
	}

	owner := newClusterReader("other", new(int64(7)))
	owner.attach(t, servers[1], nil)
	for i, r := range append(five[:4:4], sixth) {
		if reason := <-r.ended; !errors.Is(reason, hub.ErrReaderStolen) {
			t.Errorf("reader %d is ended by %v", i, reason)
		}
	}
	newClusterReader("other", new(int64(6))).attach(t, servers[2], hub.ErrReaderStolen)
	newClusterReader("other", nil).attach(t, servers[2], hub.ErrReaderStolen)
	newer := newClusterReader("other", new(int64(7)))
	newer.attach(t, servers[2], nil)
	if reason := <-owner.ended; !errors.Is(reason, hub.ErrReaderStolen) {
		t.Errorf("the owner is ended by %v", reason)
	}
	servers[1].DetachReader(owner.Reader) // which the door does; the newer one stays
	newClusterReader("other", nil).attach(t, servers[0], hub.ErrReaderStolen)
	counts := []int{1, 0, 1}
	for i, s := range servers {
		if got := s.Readers(); got != counts[i] {
			t.Errorf("node %d counts %d readers, want %d", i, got, counts[i])
		}
	}

	// The readers of a node that has gone hold nobody up.
	if err := peers.Nodes[0].Expel(t.Context(), peers.Nodes[2].Self()); err != nil {
		t.Fatal(err)
	}
	newClusterReader("other", new(int64(1))).attach(t, servers[0], nil)
}

func TestOneOfManyReadersStays(t *testing.T) {
	servers, peers := eventNodes(t, 3)
	const n = 30
	var attached sync.Map
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r := newClusterReader("$Default", new(int64(i%3)))
			if err := servers[i%3].AttachReader(r.Reader); err == nil {
				attached.Store(i, r)
			} else if !errors.Is(err, hub.ErrReaderStolen) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := peers.Nodes[0].DB().Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		var stay []string
		attached.Range(func(i, r any) bool {
			if len(r.(*clusterReader).ended) == 0 {
				stay = append(stay, fmt.Sprint(i))
			}
			return true
		})
		left := 0
		for _, s := range servers {
			left += s.Readers()
		}
		if len(stay) == 1 && left == 1 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("readers %q were not ended, %d are counted, want one", stay, left)
		}
	}
}
