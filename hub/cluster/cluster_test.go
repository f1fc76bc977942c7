package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/cluster"
	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
	"github.com/iotdm/iotdm/hub/store"
)

// within ends a test that hangs.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// await waits until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for ctx := within(t); !ok(); time.Sleep(20 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func initHub(t *testing.T, nats *natstest.Cluster) {
	t.Helper()
	_, err := cluster.Init(within(t), cluster.InitOptions{NATS: natsconn.Options{URL: nats.URL()}, Copies: len(nats.Servers)})
	if err != nil {
		t.Fatal(err)
	}
}

func options(t *testing.T, name, url string) cluster.Options {
	return cluster.Options{NATS: natsconn.Options{URL: url}, Name: name, Instance: name + " of " + t.Name(), Dir: filepath.Join(t.TempDir(), "store")}
}

func open(t *testing.T, opt cluster.Options) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Open(within(t), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func join(t *testing.T, c *cluster.Cluster) *cluster.Membership {
	t.Helper()
	m, err := c.Join(within(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = m.Leave(ctx)
	})
	return m
}

func names(t *testing.T, c *cluster.Cluster) []string {
	t.Helper()
	s, err := c.State(within(t))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range s.Members {
		list = append(list, m.Name)
	}
	return list
}

func TestNodesJoinAskAndLeave(t *testing.T) {
	nats := natstest.Start(t, 1)
	initHub(t, nats)
	a, b := open(t, options(t, "a", nats.URL())), open(t, options(t, "b", nats.URL()))
	ma, mb := join(t, a), join(t, b)
	if got := names(t, a); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("the members are %v", got)
	}
	if ma.Leader() != ma.Self() || mb.Leader() != ma.Self() {
		t.Errorf("a is %d and b %d; a says that %d leads, and b %d", ma.Self(), mb.Self(), ma.Leader(), mb.Leader())
	}

	ctx := within(t)
	mb.Serve("echo", func(_ context.Context, q []byte) ([]byte, error) { return append([]byte("you said "), q...), nil })
	mb.Serve("fail", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no\nway") })
	mb.Serve("large", func(context.Context, []byte) ([]byte, error) { return make([]byte, 2<<20), nil })
	hanging := make(chan error, 1)
	began := make(chan bool, 1)
	mb.Serve("hang", func(ctx context.Context, _ []byte) ([]byte, error) {
		began <- true
		<-ctx.Done()
		hanging <- ctx.Err()
		return nil, ctx.Err()
	})
	if got, err := ma.Call(ctx, mb.Self(), "echo", []byte("hello")); string(got) != "you said hello" || err != nil {
		t.Errorf("echo: %q, %v", got, err)
	}
	if _, err := ma.Call(ctx, mb.Self(), "fail", nil); err == nil || errors.Is(err, hub.ErrNoPeer) || !strings.HasSuffix(err.Error(), "no way") {
		t.Errorf("fail: %v", err)
	}
	if _, err := ma.Call(ctx, mb.Self(), "large", nil); err == nil || !strings.HasSuffix(err.Error(), "too large") {
		t.Errorf("large: %v", err)
	}
	for what, to := range map[string]uint64{"nothing": mb.Self(), "echo": 12345} {
		if _, err := ma.Call(ctx, to, what, nil); !errors.Is(err, hub.ErrNoPeer) {
			t.Errorf("%s of %d: %v", what, to, err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	if _, err := ma.Call(short, mb.Self(), "hang", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hang: %v", err)
	}
	cancel()
	<-began
	if err := <-hanging; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the one that was asked did not hear of the time: %v", err)
	}

	// Who is asked leaves meanwhile.
	asked := make(chan error, 1)
	go func() {
		_, err := ma.Call(ctx, mb.Self(), "hang", nil)
		asked <- err
	}()
	<-began
	if err := mb.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; err == nil || errors.Is(err, hub.ErrNoPeer) {
		t.Errorf("the node that was asked has left: %v", err)
	}
	if !errors.Is(mb.Why(), cluster.ErrLeft) || mb.Alive(mb.Self()) {
		t.Errorf("b has left: %v", mb.Why())
	}
	await(t, "b is no member", func() bool { return !ma.Alive(mb.Self()) })
	if _, err := ma.Call(ctx, mb.Self(), "echo", nil); !errors.Is(err, hub.ErrNoPeer) {
		t.Errorf("asked one that has left: %v", err)
	}
	again := join(t, b)
	if again.Self() <= mb.Self() {
		t.Errorf("the epoch %d follows %d", again.Self(), mb.Self())
	}
}

// TestQuestionsThatAreLost has questions and answers get lost on their way: they are
// asked again, and what was asked is done once.
func TestQuestionsThatAreLost(t *testing.T) {
	nats := natstest.Start(t, 1)
	initHub(t, nats)
	mine, theirs := nats.NewWay(), nats.NewWay()
	a, b := join(t, open(t, options(t, "a", mine.URL()))), join(t, open(t, options(t, "b", theirs.URL())))
	var mu sync.Mutex
	done := make(map[string]int) // by question
	b.Serve("do", func(_ context.Context, q []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		done[string(q)]++
		return append([]byte("done "), q...), nil
	})
	var wg sync.WaitGroup
	ask := func(q string) {
		wg.Go(func() {
			got, err := a.Call(within(t), b.Self(), "do", []byte(q))
			for errors.Is(err, hub.ErrNoPeer) { // before b has connected again
				time.Sleep(10 * time.Millisecond)
				got, err = a.Call(within(t), b.Self(), "do", []byte(q))
			}
			if string(got) != "done "+q || err != nil {
				t.Errorf("%s: %q, %v", q, got, err)
			}
		})
	}
	for i, lose := range []*natstest.Way{mine, theirs, theirs, mine} {
		lose.Cut(natstest.Forth)
		for n := range 50 {
			ask(fmt.Sprint(i, "/", n))
		}
		time.Sleep(100 * time.Millisecond) // for all to be held back
		lose.Break()
		lose.Cut(natstest.None)
		wg.Wait()
	}
	for q, n := range done {
		if n != 1 {
			t.Errorf("%s was done %d times", q, n)
		}
	}
	if len(done) != 200 {
		t.Errorf("%d of 200 were done", len(done))
	}
}

func TestANameInUse(t *testing.T) {
	nats := natstest.Start(t, 1)
	initHub(t, nats)
	first := open(t, options(t, "same", nats.URL()))
	m := join(t, first)
	opt := options(t, "same", nats.URL())
	opt.Instance = "another"
	second := open(t, opt)
	_, err := second.Join(within(t))
	if !errors.Is(err, cluster.ErrNameInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) || !strings.Contains(err.Error(), "--node") {
		t.Errorf("Join: %v", err)
	}
	if m.Why() != nil || !slices.Equal(names(t, first), []string{"same"}) {
		t.Errorf("the first has not stayed: %v", m.Why())
	}
	// The same node may, without waiting until it is expelled.
	third := options(t, "same", nats.URL())
	again := join(t, open(t, third))
	<-m.Lost()
	if !errors.Is(m.Why(), store.ErrReplaced) || cluster.MayJoinAgain(m.Why()) {
		t.Errorf("the first was replaced: %v", m.Why())
	}
	if again.Why() != nil {
		t.Errorf("the last has not stayed: %v", again.Why())
	}
}

func TestLogsThatCannotBeFollowed(t *testing.T) {
	nats, other := natstest.Start(t, 1), natstest.Start(t, 1)
	opt := options(t, "a", nats.URL())
	_, err := cluster.Open(within(t), opt)
	if !errors.Is(err, natsconn.ErrNoHub) || !strings.Contains(err.Error(), "iotdm hub cluster init") {
		t.Errorf("there is no hub: %v", err)
	}
	initHub(t, nats)
	initHub(t, other)
	if existed, err := cluster.Init(within(t), cluster.InitOptions{NATS: opt.NATS}); !existed || err != nil {
		t.Errorf("Init of one that is there: %v, %v", existed, err)
	}
	db, err := store.OpenMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := cluster.Init(within(t), cluster.InitOptions{NATS: opt.NATS, From: db.Records}); !errors.Is(err, cluster.ErrExists) {
		t.Errorf("Init from a store where there is one: %v", err)
	}
	c, err := cluster.Open(within(t), opt)
	if err != nil {
		t.Fatal(err)
	}
	join(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	opt.NATS.URL = other.URL()
	_, err = cluster.Open(within(t), opt)
	if !errors.Is(err, store.ErrOtherLog) {
		t.Errorf("another hub's log: %v", err)
	}
	if strings.Contains(fmt.Sprint(err), "\n") {
		t.Errorf("%q has several lines", err)
	}
	opt.Dir = filepath.Join(t.TempDir(), "ordinary")
	ordinary, err := store.Open(opt.Dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ordinary.Update("x", func(tx *store.Tx) error { tx.Set([]byte("k"), []byte("v")); return nil }), ordinary.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = cluster.Open(within(t), opt)
	if !errors.Is(err, store.ErrReplicated) || !strings.Contains(err.Error(), "--from") {
		t.Errorf("the folder of a single node: %v", err)
	}
}

// TestALogOfANewerProgram has a node meet a group of a form that it does not know: it
// stops for good, and says what to do; and so does one that is started then.
func TestALogOfANewerProgram(t *testing.T) {
	nats := natstest.Start(t, 1)
	initHub(t, nats)
	opt := options(t, "a", nats.URL())
	c := open(t, opt)
	m := join(t, c)
	if _, err := c.Conn().JetStream.Publish(within(t), "iotdm.log", []byte{99, 1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	<-m.Lost()
	says := func(err error) {
		t.Helper()
		if text := fmt.Sprint(err); !errors.Is(err, store.ErrNewerLog) || strings.Contains(text, "\n") ||
			!strings.Contains(text, "its format is 99") || !strings.HasSuffix(text, "; update iotdm on this node") {
			t.Errorf("the error is %q", text)
		}
	}
	says(m.Why())
	if cluster.MayJoinAgain(m.Why()) {
		t.Error("the node tries again")
	}
	opt.Name, opt.Dir = "b", ""
	late := open(t, opt)
	_, err := late.Join(within(t))
	says(err)
}

func TestInitFromAStore(t *testing.T) {
	nats := natstest.Start(t, 1)
	db, err := store.OpenMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i := range 1000 {
		err := db.Update("x", func(tx *store.Tx) error {
			tx.Set(fmt.Appendf(nil, "device/%04d", i), fmt.Appendf(nil, "value %d", i))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cluster.Init(within(t), cluster.InitOptions{NATS: natsconn.Options{URL: nats.URL()}, Copies: 1, From: db.Records}); err != nil {
		t.Fatal(err)
	}
	c := open(t, options(t, "a", nats.URL()))
	join(t, c)
	for _, db := range []*store.DB{c.Store()} {
		v, err := db.Get([]byte("device/0999"))
		if string(v) != "value 999" || err != nil {
			t.Errorf("the cluster has %q, %v", v, err)
		}
	}
}

// TestANodeThatIsCutOff has one of three nodes lose NATS under load: it ends its
// membership, the others go on without it, and it comes back.
func TestANodeThatIsCutOff(t *testing.T) {
	nats := natstest.Start(t, 3)
	initHub(t, nats)
	var ways []*natstest.Way
	var nodes []*cluster.Cluster
	var members []*cluster.Membership
	for i := range 3 {
		way := nats.NewWay()
		c := open(t, options(t, string(rune('a'+i)), way.URL()))
		ways, nodes, members = append(ways, way), append(nodes, c), append(members, join(t, c))
	}
	if members[1].Leader() != members[0].Self() {
		t.Fatal("the first does not lead")
	}
	ways[0].Cut(natstest.Both)
	cut := time.Now()
	await(t, "the second tells of the silence of the first", func() bool {
		return slices.ContainsFunc(members[1].Nodes(), func(n hub.ClusterNode) bool { return n.Name == "a" && n.Silent >= 3 })
	})
	state, err := nodes[1].State(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range state.Members { // the first may have been missed by now
		if m.Answers != (m.Name != "a") {
			t.Errorf("%s answers: %v", m.Name, m.Answers)
		}
	}
	<-members[0].Lost()
	if !errors.Is(members[0].Why(), cluster.ErrQuiet) || !cluster.MayJoinAgain(members[0].Why()) {
		t.Errorf("the first is cut off: %v", members[0].Why())
	}
	t.Logf("quiet after %v", time.Since(cut))
	await(t, "the others have expelled the first", func() bool { return !members[1].Alive(members[0].Self()) && !members[2].Alive(members[0].Self()) })
	t.Logf("expelled after %v", time.Since(cut))
	if members[2].Leader() != members[1].Self() {
		t.Errorf("%d leads, and not %d", members[2].Leader(), members[1].Self())
	}
	if err := update(nodes[1].Store(), "k", 1); err != nil {
		t.Errorf("the others go on: %v", err)
	}
	ways[0].Cut(natstest.None)
	again := join(t, nodes[0])
	if got := names(t, nodes[0]); !slices.Equal(got, []string{"b", "c", "a"}) {
		t.Errorf("the members are %v", got)
	}
	if err := update(nodes[0].Store(), "k", 1); err != nil {
		t.Errorf("the first goes on: %v", err)
	}
	if again.Why() != nil {
		t.Error(again.Why())
	}
}

// update adds to a number.
func update(db *store.DB, key string, n int) error {
	return db.Update(key, func(tx *store.Tx) error {
		old, err := tx.Get([]byte(key))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		var was int
		_, _ = fmt.Sscan(string(old), &was)
		tx.Set([]byte(key), fmt.Append(nil, was+n))
		return nil
	})
}

// TestUpdatesThroughFaults has three nodes count on shared and own keys while the
// servers of NATS have a bad time: no count is lost, none is doubled, and all nodes
// end with the same log.
func TestUpdatesThroughFaults(t *testing.T) {
	nats := natstest.Start(t, 3)
	initHub(t, nats)
	var nodes []*cluster.Cluster
	for i := range 3 {
		c := open(t, options(t, string(rune('a'+i)), nats.NewWay().URL()))
		join(t, c)
		nodes = append(nodes, c)
	}
	ctx, stop := context.WithCancel(within(t))
	var done, unknown [4]atomic.Int64 // by key
	var wg sync.WaitGroup
	for i, c := range nodes {
		for w := range 4 {
			key := w
			if w == 0 {
				key = i + 1 // nobody else's
			} else {
				key = 0
			}
			wg.Go(func() {
				for ctx.Err() == nil {
					err := update(c.Store(), fmt.Sprint("count/", key), 1)
					switch {
					case err == nil:
						done[key].Add(1)
					case errors.Is(err, store.ErrNoLog):
						unknown[key].Add(1)
					default:
						t.Errorf("node %d: %v", i, err)
						return
					}
				}
			})
		}
	}
	total := func() (n int64) {
		for i := range done {
			n += done[i].Load()
		}
		return n
	}
	progress := func() {
		from := total()
		began := time.Now()
		await(t, "updates go on", func() bool { return total() > from+50 })
		t.Logf("50 more after %v", time.Since(began).Round(time.Millisecond))
	}
	progress()
	leader := nats.Leader("iotdm-log")
	t.Log("the log's leader is killed")
	nats.Servers[leader].Kill()
	progress()
	nats.Servers[leader].Start()
	progress()
	follower := (nats.Leader("iotdm-log") + 1) % 3
	t.Log("a follower is paused")
	nats.Servers[follower].Pause()
	progress()
	nats.Servers[follower].Resume()
	leader = nats.Leader("iotdm-log")
	t.Log("the log's leader is stopped")
	nats.Servers[leader].Stop()
	progress()
	nats.Servers[leader].Start()
	stop()
	wg.Wait()

	var states []cluster.State
	for i, c := range nodes {
		if err := c.Store().Barrier(within(t)); err != nil {
			t.Fatal(err)
		}
		for key := range done {
			v, err := c.Store().Get(fmt.Append(nil, "count/", key))
			var n int64
			_, _ = fmt.Sscan(string(v), &n)
			if err != nil || n < done[key].Load() || n > done[key].Load()+unknown[key].Load() {
				t.Errorf("node %d has count/%d = %q, %v; %d updates were acknowledged, and of %d it is not known", i, key, v, err, done[key].Load(), unknown[key].Load())
			}
		}
	}
	await(t, "all nodes have the same log", func() bool {
		states = nil
		for _, c := range nodes {
			s, err := c.State(within(t))
			if err != nil {
				t.Fatal(err)
			}
			states = append(states, s)
		}
		return states[0].Applied == states[1].Applied && states[1].Applied == states[2].Applied
	})
	if states[0].Hash != states[1].Hash || states[1].Hash != states[2].Hash {
		t.Errorf("the nodes have read different logs: %v, %v, %v", states[0].Hash, states[1].Hash, states[2].Hash)
	}
	t.Logf("%d updates acknowledged, %d groups", total(), states[0].Applied)
}

// TestMostServersAway has two of three servers of NATS stop in the middle of what
// they do: every node ends its membership, and all come back when the servers do.
func TestMostServersAway(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: nodes wait so long for an election")
	}
	nats := natstest.Start(t, 3)
	initHub(t, nats)
	var nodes []*cluster.Cluster
	var members []*cluster.Membership
	for i := range 3 {
		c := open(t, options(t, string(rune('a'+i)), nats.NewWay().URL()))
		nodes, members = append(nodes, c), append(members, join(t, c))
	}
	leader := nats.Leader("iotdm-log")
	nats.Servers[leader].Pause()
	nats.Servers[(leader+1)%3].Pause()
	began := time.Now()
	// It is quiet before that if its own server is among those that are paused.
	if err := update(nodes[0].Store(), "k", 1); !errors.Is(err, store.ErrNoLog) && !errors.Is(err, store.ErrFenced) {
		t.Errorf("an update without a majority: %v", err)
	}
	for i, m := range members {
		<-m.Lost()
		if !cluster.MayJoinAgain(m.Why()) {
			t.Errorf("node %d: %v", i, m.Why())
		}
		if err := update(nodes[i].Store(), "k", 1); !errors.Is(err, store.ErrFenced) {
			t.Errorf("node %d takes an update: %v", i, err)
		}
	}
	t.Logf("all are quiet after %v", time.Since(began).Round(100*time.Millisecond))
	nats.Servers[leader].Resume()
	nats.Servers[(leader+1)%3].Resume()
	for i, c := range nodes {
		join(t, c)
		if err := update(c.Store(), "k", 1); err != nil {
			t.Errorf("node %d again: %v", i, err)
		}
	}
	t.Logf("all are back after %v", time.Since(began).Round(100*time.Millisecond))
	v, err := nodes[2].Store().Get([]byte("k"))
	if err != nil || string(v) != "3" && string(v) != "4" { // it is not known of the first
		t.Errorf("k = %s, %v", v, err)
	}
}
