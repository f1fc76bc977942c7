package memlog_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/cluster/memlog"
	"github.com/iotdm/iotdm/hub/store"
)

func newPeers(t *testing.T, n int) *memlog.Peers {
	t.Helper()
	p, err := memlog.NewPeers(n, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestAllNodesReadWhatOneHasWritten(t *testing.T) {
	p := newPeers(t, 3)
	var wg sync.WaitGroup
	for i, n := range p.Nodes {
		for j := range 20 {
			wg.Go(func() {
				err := n.DB().Update("counter", func(tx *store.Tx) error {
					tx.Set(fmt.Appendf(nil, "key/%d/%02d", i, j), nil)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for _, n := range p.Nodes {
		if err := n.DB().Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		count := 0
		if err := n.DB().Scan(nil, nil, func(_, _ []byte) error { count++; return nil }); err != nil || count != 60 {
			t.Errorf("%s holds %d keys, error %v", n.Name(), count, err)
		}
	}
}

func TestNodesAskEachOther(t *testing.T) {
	p := newPeers(t, 3)
	first, second, third := p.Nodes[0], p.Nodes[1], p.Nodes[2]
	second.Serve("double", func(_ context.Context, q []byte) ([]byte, error) { return slices.Concat(q, q), nil })
	got, err := first.Call(t.Context(), second.Self(), "double", []byte("x"))
	if diff := cmp.Diff("xx", string(got)); diff != "" || err != nil {
		t.Errorf("(-want +got):\n%s, error %v", diff, err)
	}
	second.Cut(true)
	if _, err := first.Call(t.Context(), second.Self(), "double", nil); !errors.Is(err, hub.ErrNoPeer) {
		t.Errorf("a node that is cut off: %v", err)
	}
	changes := 0
	third.OnChange(func() { changes++ })
	old := second.Self()
	if err := third.Expel(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if third.Alive(old) || changes != 1 || third.Leader() != first.Self() {
		t.Errorf("after expulsion: alive %v, %d changes, leader %d", third.Alive(old), changes, third.Leader())
	}
	second.Cut(false)
	select {
	case <-second.Fenced():
	case <-time.After(time.Minute):
		t.Fatal("the node does not learn that it was expelled")
	}
	if err := second.DB().Update("", func(*store.Tx) error { return nil }); !errors.Is(err, store.ErrFenced) {
		t.Errorf("an expelled node: %v", err)
	}
	if epoch, err := second.Join(t.Context()); err != nil || epoch <= old {
		t.Errorf("joining again: epoch %d after %d, error %v", epoch, old, err)
	}
	if _, err := first.Call(t.Context(), second.Self(), "double", nil); err != nil {
		t.Errorf("after joining again: %v", err)
	}
}
