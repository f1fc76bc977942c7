// Package severaltest has tests run the rules, and what stands on them, on
// several nodes in one process, over a log in memory. There are no doors: devices
// are [Link]s.
package severaltest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/cluster/memlog"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// Scope is the id scope of the nodes' provisioning service, and Name the hub.
const (
	Scope = "0ne00SEVERAL"
	Name  = "several.example"
)

// Patience is how long a test waits for what has to come.
const Patience = 30 * time.Second

// A Cluster is several nodes of a hub. Those of a lower index joined before.
type Cluster struct {
	Nodes []*Node
	Clock *clock.Clock // of all nodes
	peers *memlog.Peers
}

// A Node is one of them.
type Node struct {
	*hub.Server
	Jobs           *jobs.Scheduler
	Configurations *configurations.Engine
	Provisioning   *provisioning.Service

	peer *memlog.Node
	dead bool
}

// Start starts n nodes, which close with the test.
func Start(t testing.TB, n int) *Cluster {
	t.Helper()
	peers, err := memlog.NewPeers(n, nil)
	if err != nil {
		t.Fatal(err)
	}
	events, err := eventlog.OpenMemory(eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{peers: peers, Clock: clock.New()}
	t.Cleanup(func() {
		for _, one := range c.Nodes {
			one.peer.Cut(false) // so that one that is dead learns of it
		}
		for _, one := range c.Nodes {
			one.close()
		}
		if err := errors.Join(peers.Close(), events.Close()); err != nil {
			t.Error(err)
		}
	})
	for _, peer := range peers.Nodes {
		one := &Node{peer: peer}
		if one.Server, err = hub.New(hub.Options{Store: peer.DB(), Events: events, Peers: peer, Clock: c.Clock, HostNames: []string{Name}}); err != nil {
			t.Fatal(err)
		}
		c.Nodes = append(c.Nodes, one)
		if one.Provisioning, err = provisioning.New(one.Server, peer.DB(), provisioning.Options{IDScope: Scope, HostName: func() string { return Name }}); err != nil {
			t.Fatal(err)
		}
		if one.Configurations, err = configurations.New(one.Server, peer.DB(), configurations.Options{}); err != nil {
			t.Fatal(err)
		}
		if one.Jobs, err = jobs.New(one.Server, peer.DB(), jobs.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (n *Node) close() {
	if n.Jobs != nil {
		n.Jobs.Close()
	}
	if n.Configurations != nil {
		n.Configurations.Close()
	}
	n.Server.Close()
}

// Cut cuts node i off from the others, or connects it again. It stays a member.
func (c *Cluster) Cut(i int, cut bool) { c.Nodes[i].peer.Cut(cut) }

// Kill cuts node i off from the others and has these expel it, and returns when they
// know. It goes on by itself, as one does that has been paused and knows of nothing.
func (c *Cluster) Kill(t testing.TB, i int) {
	t.Helper()
	victim := c.Nodes[i].peer
	victim.Cut(true)
	c.Nodes[i].dead = true
	var living []int
	for n, other := range c.Nodes {
		if !other.dead {
			living = append(living, n)
		}
	}
	for first := c.Nodes[living[0]]; first.Alive(victim.Self()); { // it is not while it is heard of
		if err := first.peer.Expel(t.Context(), victim.Self()); err != nil {
			t.Fatalf("expel node %d: %v", i, err)
		}
	}
	c.Settle(t, living...)
}

// Settle returns when all nodes that are connected know what has been
// acknowledged.
func (c *Cluster) Settle(t testing.TB, nodes ...int) {
	t.Helper()
	for _, n := range nodes {
		if err := c.Nodes[n].peer.DB().Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// Create registers devices on a node.
func (n *Node) Create(t testing.TB, devices ...string) {
	t.Helper()
	for _, device := range devices {
		if _, err := n.PutIdentity(hub.ID{Device: device}, hub.IdentitySpec{}, hub.Match{}); err != nil {
			t.Fatalf("create %s: %v", device, err)
		}
	}
}

// Eventually waits until check is true.
func Eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	for !check() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("it does not come: %s", what)
		}
	}
}
