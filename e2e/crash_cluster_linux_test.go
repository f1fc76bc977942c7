package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/cluster/natstest"
)

var clusterFor = flag.Duration("crash.cluster", 40*time.Second, "how long TestCrashCluster breaks things")

// TestCrashCluster is TestCrash for a hub of three nodes on three nats-servers,
// all of them processes of their own: the same writers write through nodes at
// random, while nodes and servers are killed, stopped in their tracks, and cut
// off from each other, one way and both. After each round everything is as it
// must be, on whichever node one looks, and all nodes have the same state.
func TestCrashCluster(t *testing.T) {
	c := newCrash(t, 100, *clusterFor)
	cluster := newCrashCluster(t, c.r, plainPlace(t))
	c.prepare(cluster.front)
	for i := range 3 {
		w := &registerWriter{id: fmt.Sprintf("register-%d", i)}
		if err := w.setup(cluster.front); err != nil {
			t.Fatal(err)
		}
		c.writers = append(c.writers, w)
	}
	c.events.gaps = true
	for c.more() {
		stop := c.writing()
		c.wait(300*time.Millisecond, 1500*time.Millisecond)
		fault := crashFaults[c.r.IntN(len(crashFaults))]
		began := time.Now()
		heal, least, most := fault.begin(cluster)
		c.wait(least, most)
		heal()
		c.wait(100*time.Millisecond, time.Second)
		stop()
		cluster.await()
		t.Logf("round %d: %s, for %v; whole again after %v", c.rounds, fault.name, most, time.Since(began).Round(100*time.Millisecond))
		c.check()
		cluster.same()
	}
	c.finish()
	cluster.stop()
	t.Logf("%d rounds; %d requests were acknowledged to the twin writers, %d messages of telemetry, %d of provisioning",
		c.rounds-1, c.acknowledged(), c.telemetryAcked(), c.provisioningAcked())
}

// A crashFault breaks something, and returns what mends it and how long it lasts.
type crashFault struct {
	name  string
	begin func(*crashCluster) (heal func(), least, most time.Duration)
}

var crashFaults = []crashFault{
	{"a node is killed", func(c *crashCluster) (func(), time.Duration, time.Duration) {
		n := c.nodes[c.r.IntN(3)]
		c.down(n)
		n.kill()
		return func() { n.begin() }, 0, 3 * time.Second
	}},
	{"a node is told to stop", func(c *crashCluster) (func(), time.Duration, time.Duration) {
		n := c.nodes[c.r.IntN(3)]
		c.down(n)
		n.stop(false)
		return func() { n.begin() }, 0, 2 * time.Second
	}},
	{"a node stops in its tracks", func(c *crashCluster) (func(), time.Duration, time.Duration) {
		n := c.nodes[c.r.IntN(3)]
		freeze(n.t, n.cmd.Process.Pid)
		return func() { n.cmd.Process.Signal(syscall.SIGCONT) }, time.Second, 10 * time.Second
	}},
	{"a nats-server is killed", func(c *crashCluster) (func(), time.Duration, time.Duration) {
		s := c.nats.Servers[c.r.IntN(3)]
		s.Kill()
		return s.Start, 0, 5 * time.Second
	}},
	{"who leads the log is killed", func(c *crashCluster) (func(), time.Duration, time.Duration) {
		s := c.nats.Servers[c.nats.Leader("iotdm-log")]
		s.Kill()
		return s.Start, time.Second, 12 * time.Second
	}},
	{"a nats-server stops in its tracks", func(c *crashCluster) (func(), time.Duration, time.Duration) {
		s := c.nats.Servers[c.r.IntN(3)]
		s.Pause()
		return s.Resume, time.Second, 5 * time.Second
	}},
	{"two nats-servers are killed", func(c *crashCluster) (func(), time.Duration, time.Duration) {
		left := c.r.IntN(3)
		var killed []*natstest.Server
		for i, s := range c.nats.Servers {
			if i != left {
				s.Kill()
				killed = append(killed, s)
			}
		}
		return func() {
			for _, s := range killed {
				s.Start()
			}
		}, time.Second, 4 * time.Second
	}},
	{"a node is cut off from all nats-servers", func(c *crashCluster) (func(), time.Duration, time.Duration) {
		w := c.ways[c.r.IntN(3)]
		w.Cut(c.direction())
		return func() { w.Cut(natstest.None) }, time.Second, 10 * time.Second
	}},
	{"a node is cut off from one nats-server", func(c *crashCluster) (func(), time.Duration, time.Duration) {
		w, s := c.ways[c.r.IntN(3)], c.r.IntN(3)
		w.CutFrom(s, c.direction())
		return func() { w.CutFrom(s, natstest.None) }, time.Second, 5 * time.Second
	}},
	{"a nats-server is cut off from the others", func(c *crashCluster) (func(), time.Duration, time.Duration) {
		s := c.r.IntN(3)
		c.nats.Isolate(s, c.direction())
		return func() { c.nats.Isolate(s, natstest.None) }, time.Second, 6 * time.Second
	}},
}

// A crashCluster is a hub of three nodes.
type crashCluster struct {
	t     *testing.T
	r     *rand.Rand
	nats  *natstest.Cluster
	nodes []*crashHub
	ways  []*natstest.Way // of the nodes to the nats-servers
	front *crashHub       // what the writers see

	balancer *crashHub // the addresses of all nodes; nil: the writers choose among those of the nodes

	up [3]atomic.Bool
}

// newCrashCluster starts a hub of which everything has its files at p.
func newCrashCluster(t *testing.T, r *rand.Rand, p place) *crashCluster {
	t.Helper()
	c := &crashCluster{t: t, r: r, nats: natstest.StartWith(t, 3, natstest.Settings{Place: p.ofNATS()})}
	c.iotdm("hub", "cluster", "init", "--cluster", c.nats.URL())
	for i := range 3 {
		w := c.nats.NewWay()
		n := newCrashHub(t, p.within(nodeName(i)))
		n.flags = []string{"--cluster", w.URL(), "--node", nodeName(i)}
		n.begin()
		c.nodes, c.ways = append(c.nodes, n), append(c.ways, w)
	}
	c.front = &crashHub{t: t, cluster: c, place: c.nodes[0].place}
	c.front.reconnect()
	c.await()
	c.nodes[0].readKey()
	c.front.key, c.front.token = c.nodes[0].key, c.nodes[0].token
	return c
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }

func (p place) ofNATS() natstest.Place { return natstest.Place{Dir: p.data, Enter: p.enter} }

// move has everything, of which nothing runs, have its files at p, where they are.
func (c *crashCluster) move(p place) {
	c.nats.Move(p.ofNATS())
	for i, n := range c.nodes {
		n.place = p.within(nodeName(i))
	}
	c.front.place = c.nodes[0].place
}

func (c *crashCluster) stop() {
	c.t.Helper()
	for _, n := range c.nodes {
		n.stop(false)
	}
}

func (c *crashCluster) iotdm(args ...string) {
	c.t.Helper()
	if out, err := exec.Command("iotdm", args...).CombinedOutput(); err != nil {
		c.t.Fatalf("iotdm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// any returns a node at random, of those that are not known to be down, or who chooses one.
func (c *crashCluster) any() *crashHub {
	if c.balancer != nil {
		return c.balancer
	}
	var up []*crashHub
	for i, n := range c.nodes {
		if c.up[i].Load() {
			up = append(up, n)
		}
	}
	if len(up) == 0 {
		up = c.nodes
	}
	return up[rand.IntN(len(up))]
}

func (c *crashCluster) down(n *crashHub) {
	for i := range c.nodes {
		if c.nodes[i] == n {
			c.up[i].Store(false)
		}
	}
}

func (c *crashCluster) running() bool {
	for _, n := range c.nodes {
		if !n.running() {
			return false
		}
	}
	return true
}

func (c *crashCluster) tail() string {
	var b strings.Builder
	for i, n := range c.nodes {
		text := n.tail()
		fmt.Fprintf(&b, "node-%d:\n%s\n", i, text[max(0, len(text)-2000):])
	}
	return b.String()
}

// await returns when all nodes serve.
func (c *crashCluster) await() {
	c.t.Helper()
	c.front.reconnect()
	deadline := time.Now().Add(2 * crashPatience)
	for i, n := range c.nodes {
		for {
			if a, err := c.front.doAt(n.rest, "GET", "/health", ""); err == nil && a.status == 200 {
				break
			}
			if !n.running() || time.Now().After(deadline) {
				c.t.Fatalf("node-%d does not serve; it is running: %v\n%s", i, n.running(), c.tail())
			}
			time.Sleep(50 * time.Millisecond)
		}
		c.up[i].Store(true)
	}
}

// direction is one way or both.
func (c *crashCluster) direction() natstest.Direction {
	return []natstest.Direction{natstest.Forth, natstest.Back, natstest.Both}[c.r.IntN(3)]
}

// same checks that all nodes have the same identities, twins and rows of jobs.
func (c *crashCluster) same() {
	c.t.Helper()
	for _, query := range []string{"SELECT * FROM devices", "SELECT * FROM devices.modules", "SELECT * FROM devices.jobs"} {
		var differ error
		for deadline := time.Now().Add(crashPatience); ; pause(context.Background(), 50*time.Millisecond) {
			var first []byte
			differ = nil
			for i, n := range c.nodes {
				rows, err := c.front.queryAt(n.rest, query)
				if err != nil {
					c.t.Fatalf("node-%d: %v", i, err)
				}
				text, err := json.Marshal(rows)
				if err != nil {
					c.t.Fatal(err)
				}
				if first == nil {
					first = text
				} else if !bytes.Equal(first, text) {
					differ = fmt.Errorf("%s: node-0 and node-%d have not the same (-node-0 +node-%d):\n%s", query, i, i, cmp.Diff(lines(first), lines(text)))
				}
			}
			if differ == nil || time.Now().After(deadline) {
				break
			}
		}
		if differ != nil {
			c.t.Fatal(differ)
		}
	}
}

// lines has a line for each row.
func lines(rows []byte) []string { return strings.SplitAfter(string(rows), "},{\"deviceId\"") }
