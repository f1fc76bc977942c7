package clustertest

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"strconv"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/cluster"
	"github.com/iotdm/iotdm/hub/cluster/clusternode"
	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natsevents"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
	"github.com/iotdm/iotdm/hub/internal/several"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/store"
)

// A test binary that imports this package has a flag by which the hubs that
// hubtest.New starts are of several nodes.
func init() {
	flag.Func("nodes", "have hubs be of `n` nodes that serve, each another door, and one more that the test itself asks", func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a number of nodes: give one from 1 on, such as 3", text)
		}
		several.Start = func(t testing.TB, opt node.Options) (*node.Node, []*node.Node) { return startDoors(t, n, opt) }
		return nil
	})
}

// startDoors starts a server of NATS and the nodes of a hub on it. Which of these
// leads depends on the test's name.
func startDoors(t testing.TB, doors int, opt node.Options) (rules *node.Node, serving []*node.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	nats := natstest.StartWith(t, 1, natstest.Settings{LazySync: true})
	at := natsconn.Options{URL: nats.URL()}
	_, err := cluster.Init(ctx, cluster.InitOptions{NATS: at, Copies: 1, More: func(ctx context.Context, conn *natsconn.Conn, copies int) error {
		return natsevents.Create(ctx, conn, natsevents.Settings{
			Copies: copies, Partitions: opt.EventPartitions, MaxAge: opt.EventAge, MaxBytes: opt.EventBytes,
		})
	}})
	if err != nil {
		t.Fatalf("clustertest: %v", err)
	}
	hubs := make([]*clusternode.Hub, doors+1) // the last one is the test's
	lives := make([]*clusternode.Life, len(hubs))
	t.Cleanup(func() {
		for i, h := range hubs {
			if err := end(h, lives[i]); err != nil {
				t.Errorf("clustertest: end node %d: %v", i+1, err)
			}
		}
	})
	for i := range hubs {
		if hubs[i], err = clusternode.Open(ctx, clusternode.Options{Name: fmt.Sprintf("node-%d", i+1), NATS: at, Logger: opt.Logger}); err != nil {
			t.Fatalf("clustertest: %v", err)
		}
	}
	for _, h := range hubs[:doors] {
		if err := follow(h.Store(), hubs[doors].Store()); err != nil {
			t.Fatalf("clustertest: %v", err)
		}
	}
	name := fnv.New32a()
	name.Write([]byte(t.Name()))
	for i := range hubs {
		i = (i + int(name.Sum32()%uint32(len(hubs)))) % len(hubs)
		if lives[i], err = hubs[i].Join(ctx, func() (node.Options, error) { return opt, nil }); err != nil {
			t.Fatalf("clustertest: %v", err)
		}
	}
	for _, l := range lives[:doors] {
		serving = append(serving, l.Node)
	}
	return lives[doors].Node, serving
}

func end(h *clusternode.Hub, life *clusternode.Life) error {
	if h == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if life != nil {
		if err := life.End(ctx); err != nil {
			return err
		}
	}
	return h.Close()
}

// follow has a node acknowledge nothing before another one knows of it: a test that
// looks there sees what a client has done, as it does on a hub of one node.
func follow(follower, first *store.DB) error {
	told := uint64(0) // those at one position come together
	_, err := follower.Subscribe("", func(c store.Change) {
		if c.Pos == told {
			return
		}
		told = c.Pos
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = first.Barrier(ctx) // or it has ended
	})
	return err
}
