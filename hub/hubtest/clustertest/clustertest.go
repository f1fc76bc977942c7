// Package clustertest provides a hub of several nodes for tests, as package hubtest
// provides one of a single node. The nodes are real ones, in this process, each with
// its copy of the state in memory; the servers of NATS below them are processes.
//
//	c := clustertest.New(t, 3)
//	device := c.Nodes[0].Device("thermostat-1")
//	... // connect it to c.Nodes[1].MQTTSAddr, and call it at c.Nodes[2].HTTPSAddr
//
// Each node can be cut off from NATS by its Way, and a server of NATS be stopped,
// killed and paused.
//
// Tests that know of one node only run on several, too: a test binary that imports this
// package has the flag -nodes, with which the hubs that hubtest.New starts are of several
// nodes, on a server of NATS of their own. MQTT is served by one of them, HTTPS by the
// second, AMQP by the third, and the methods of hubtest.Hub are those of a further one
// that serves nothing: so nearly all that a test does crosses nodes.
//
//	import _ "github.com/iotdm/iotdm/hub/hubtest/clustertest"
//
//	go test -nodes 3
package clustertest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/cluster"
	"github.com/iotdm/iotdm/hub/cluster/clusternode"
	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
)

// A Cluster is a running hub of several nodes. It ends with the test.
type Cluster struct {
	NATS  *natstest.Cluster
	Nodes []*Node
}

// A Node is one of them.
type Node struct {
	*hubtest.Hub

	Name string
	Way  *natstest.Way // to NATS
	Life *clusternode.Life
}

// New starts three servers of NATS and a hub of n nodes on them, and returns when all
// of them serve.
func New(t testing.TB, n int, options ...hubtest.Option) *Cluster {
	t.Helper()
	return On(t, natstest.Start(t, 3), n, options...)
}

// On does so on servers of NATS that run and have no hub.
func On(t testing.TB, nats *natstest.Cluster, n int, options ...hubtest.Option) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := clusternode.Init(ctx, cluster.InitOptions{NATS: natsconn.Options{URL: nats.URL()}, Copies: len(nats.Servers)}); err != nil {
		t.Fatalf("clustertest: %v", err)
	}
	c := &Cluster{NATS: nats}
	for i := range n {
		c.Nodes = append(c.Nodes, c.start(ctx, t, fmt.Sprintf("node-%d", i+1), options))
	}
	return c
}

func (c *Cluster) start(ctx context.Context, t testing.TB, name string, options []hubtest.Option) *Node {
	t.Helper()
	n := &Node{Name: name, Way: c.NATS.NewWay()}
	h, err := clusternode.Open(ctx, clusternode.Options{Name: name, NATS: natsconn.Options{URL: n.Way.URL()}})
	if err != nil {
		t.Fatalf("clustertest: %v", err)
	}
	// This comes after what hubtest cleans up.
	t.Cleanup(func() {
		if n.Life != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := n.Life.End(ctx); err != nil {
				t.Errorf("clustertest: end %s: %v", name, err)
			}
		}
		if err := h.Close(); err != nil {
			t.Errorf("clustertest: close %s: %v", name, err)
		}
	})
	n.Hub = hubtest.New(t, append(options, hubtest.WithNode(func(opt node.Options) (*node.Node, error) {
		n.Life, err = h.Join(ctx, func() (node.Options, error) { return opt, nil })
		if err != nil {
			return nil, err
		}
		return n.Life.Node, nil
	}))...)
	return n
}
