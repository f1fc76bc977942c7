package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/cluster/memlog"
	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/internal/severaltest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/sas"
)

// A cluster is the rules on several nodes over one log.
type cluster struct {
	*memlog.Peers
	servers []*hub.Server
}

func newCluster(t testing.TB, nodes int) *cluster {
	t.Helper()
	p, err := memlog.NewPeers(nodes, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Peers: p}
	for _, n := range p.Nodes {
		events, err := eventlog.OpenMemory(eventlog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := hub.New(hub.Options{Store: n.DB(), Events: events, Peers: n})
		if err != nil {
			t.Fatal(err)
		}
		c.servers = append(c.servers, s)
		t.Cleanup(func() { events.Close() })
	}
	t.Cleanup(func() {
		var closing sync.WaitGroup
		for _, s := range c.servers {
			closing.Go(s.Close)
		}
		closing.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// device registers a device by the first node.
func (c *cluster) device(t testing.TB, name string) hub.Identity {
	t.Helper()
	i, err := c.servers[0].PutIdentity(hub.ID{Device: name}, hub.IdentitySpec{}, hub.Match{})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// A distantLink is a connection without a network to one node of a cluster. The
// test is its peer.
type distantLink struct {
	server *hub.Server
	peer   hub.Peer
	gone   chan struct{} // closed by End
	method func(ctx context.Context, payload json.RawMessage) (hub.MethodAnswer, error)

	mu      sync.Mutex // guards what follows
	desired []int64    // the versions of SendDesired
	reason  error      // of End
}

func (l *distantLink) Peer() hub.Peer                            { return l.peer }
func (l *distantLink) LastActivity() time.Time                   { return l.peer.Since }
func (l *distantLink) TakesMethod(string) bool                   { return l.method != nil }
func (l *distantLink) TakesMessages() bool                       { return false }
func (l *distantLink) Deliver(*hub.ReceivedMessage) (bool, bool) { return false, false }
func (l *distantLink) Forget(string)                             {}

func (l *distantLink) Call(ctx context.Context, _ string, payload json.RawMessage) (hub.MethodAnswer, bool, error) {
	if l.method == nil {
		return hub.MethodAnswer{}, false, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-l.gone:
			cancel(hub.ErrDeviceNotOnline)
		case <-ctx.Done():
		}
	}()
	answer, err := l.method(ctx, payload)
	return answer, true, err
}

func (l *distantLink) EndIdle(reason error) bool {
	l.End(reason)
	return true
}

func (l *distantLink) SendDesired(version int64, _ json.RawMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.desired = append(l.desired, version)
}

func (l *distantLink) End(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reason == nil {
		l.reason = reason
		close(l.gone)
	}
}

// versions returns what SendDesired was called with.
func (l *distantLink) versions() []int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]int64(nil), l.desired...)
}

// leave ends the link from the side of its peer.
func (l *distantLink) leave() {
	l.End(errGone)
	l.server.Detach(l, "closed", errGone)
}

// ended waits for the end of the link, detaches it, and returns why it ended.
func (l *distantLink) ended(t testing.TB) error {
	t.Helper()
	select {
	case <-l.gone:
	case <-time.After(wiretest.Patience):
		t.Fatalf("the link of %s has not ended", l.peer.ID)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.server.Detach(l, "closed", l.reason)
	return l.reason
}

// link connects a device to a node.
func (c *cluster) link(node int, i hub.Identity, method func(context.Context, json.RawMessage) (hub.MethodAnswer, error)) (*distantLink, error) {
	s := c.servers[node]
	cs := sas.ConnectionString{HostName: "localhost", DeviceID: i.Device, ModuleID: i.Module}
	token, err := sas.Sign(cs.Audience(), "", i.Auth.SymmetricKey.Primary, s.Now().Add(time.Hour))
	if err != nil {
		return nil, err
	}
	grant, err := s.AuthenticateLink("localhost", i.ID, token, nil)
	if err != nil {
		return nil, err
	}
	l := &distantLink{server: s, gone: make(chan struct{}), method: method,
		peer: hub.Peer{ID: i.ID, Host: "localhost", Grant: grant, Since: s.Now(), Door: "test", Remote: "here"}}
	if err := s.Attach(l); err != nil {
		return nil, err
	}
	s.Ready(l)
	return l, nil
}

func (c *cluster) mustLink(t testing.TB, node int, i hub.Identity, method func(context.Context, json.RawMessage) (hub.MethodAnswer, error)) *distantLink {
	t.Helper()
	l, err := c.link(node, i, method)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// settle waits until every node knows what any has acknowledged.
func (c *cluster) settle(t testing.TB) {
	t.Helper()
	for _, s := range c.servers {
		if err := s.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(wiretest.Patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come to pass: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func echo(_ context.Context, payload json.RawMessage) (hub.MethodAnswer, error) {
	return hub.MethodAnswer{Status: 200, Payload: payload}, nil
}

func TestALinkIsKnownOnEveryNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	i := c.device(t, "d1")
	l := c.mustLink(t, 1, i, nil)
	c.settle(t)
	for n, s := range c.servers {
		state := s.ConnectionState(i.ID)
		if !state.Connected || !state.Changed.Equal(l.peer.Since) {
			t.Errorf("node %d says %+v", n, state)
		}
		if p, ok := s.Connection(i.ID); !ok || p.Door != "test" || p.Remote != "here" {
			t.Errorf("node %d has the connection %+v, %t", n, p, ok)
		}
		if got := s.ConnectedDevices(); got != 1 {
			t.Errorf("node %d counts %d connected devices", n, got)
		}
		for q, want := range map[string]int{
			"SELECT deviceId FROM devices WHERE connectionState = 'Connected'":    1,
			"SELECT deviceId FROM devices WHERE connectionState = 'Disconnected'": 0,
		} {
			if page, err := s.Query(t.Context(), q, 0, ""); err != nil || page.Rows != want {
				t.Errorf("node %d answers %q with %s, %v", n, q, page.Body, err)
			}
		}
	}
	l.leave()
	for n, s := range c.servers {
		eventually(t, "the link is gone", func() bool { return !s.ConnectionState(i.ID).Connected && s.ConnectedDevices() == 0 })
		if _, ok := s.Connection(i.ID); ok {
			t.Errorf("node %d still has a connection", n)
		}
	}
}

func TestALinkOfAnotherNodeTakesOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	i := c.device(t, "d1")
	before := c.mustLink(t, 0, i, nil)
	if _, _, err := c.servers[0].OpenSession(before, true); err != nil {
		t.Fatal(err)
	}
	after := c.mustLink(t, 2, i, nil)
	// At once, whether or not the first node has heard of it.
	if _, err := c.servers[0].PatchReported(i.ID, []byte(`{"who":"before"}`), hub.AnyVersion); !errors.Is(err, hub.ErrTakenOver) {
		t.Errorf("a patch by the link that was taken over: %v", err)
	}
	if err := c.servers[0].KeepSession(before, []byte("before")); !errors.Is(err, hub.ErrTakenOver) {
		t.Errorf("its session: %v", err)
	}
	if _, _, err := c.servers[0].OpenSession(before, false); !errors.Is(err, hub.ErrTakenOver) {
		t.Errorf("the end of its session: %v", err)
	}
	if err := before.ended(t); !errors.Is(err, hub.ErrTakenOver) {
		t.Errorf("it ended with: %v", err)
	}
	if _, err := c.servers[2].PatchReported(i.ID, []byte(`{"who":"after"}`), hub.AnyVersion); err != nil {
		t.Error(err)
	}
	if err := c.servers[2].KeepSession(after, []byte("after")); err != nil {
		t.Error(err)
	}
	if session, present, err := c.servers[2].OpenSession(after, true); err != nil || !present || string(session) != "after" {
		t.Errorf("the session is %q, %t, %v", session, present, err)
	}
	c.settle(t)
	if s := c.servers[0].ConnectionState(i.ID); !s.Connected {
		t.Error("the first node takes the device for gone")
	}
	after.leave()
	eventually(t, "the device is gone", func() bool { return !c.servers[0].ConnectionState(i.ID).Connected })
}

// Of connections of one identity to several nodes at once, the patches of one end
// before those of the next begin.
func TestTwoLinksOfAnIdentityAreNeverBothServed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	i := c.device(t, "d1")
	const rounds = 60
	var mu sync.Mutex
	var owners []string // by version, from 2 on: whose patch made it
	var running sync.WaitGroup
	for node, s := range c.servers {
		running.Go(func() {
			for round := range rounds {
				l, err := c.link(node, i, nil)
				if err != nil {
					t.Error(err)
					return
				}
				for range 3 {
					version, err := s.PatchReported(i.ID, []byte(`{"a":1}`), hub.AnyVersion)
					if errors.Is(err, hub.ErrTakenOver) {
						break
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for int64(len(owners)) < version-1 {
						owners = append(owners, "")
					}
					owners[version-2] = fmt.Sprintf("link %d of node %d", round, node)
					mu.Unlock()
				}
				l.server.Detach(l, "closed", errGone)
			}
		})
	}
	running.Wait()
	served := map[string]bool{}
	for n, owner := range owners {
		if owner == "" {
			t.Errorf("nobody was told that version %d is theirs", n+2)
		}
		if served[owner] && owners[n-1] != owner {
			t.Errorf("%s wrote version %d behind %s", owner, n+2, owners[n-1])
		}
		served[owner] = true
	}
	t.Logf("%d links wrote %d versions", len(served), len(owners))
}

func TestAMethodIsCalledWhereTheDeviceIs(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	i := c.device(t, "d1")
	c.mustLink(t, 1, i, echo)
	payload := json.RawMessage(`{"a": "<b>"}`)
	for n, s := range c.servers {
		r, err := s.InvokeMethod(t.Context(), i.ID, hub.MethodCall{Name: "m", Payload: payload})
		if err != nil || r.Status != 200 || string(r.Payload) != string(payload) {
			t.Errorf("by node %d: %d %s, %v", n, r.Status, r.Payload, err)
		}
	}
	for name, method := range map[string]func(context.Context, json.RawMessage) (hub.MethodAnswer, error){
		"not JSON": func(context.Context, json.RawMessage) (hub.MethodAnswer, error) {
			return hub.MethodAnswer{Status: -1, Payload: []byte("\xffno")}, nil
		},
	} {
		c.mustLink(t, 2, i, method)
		c.settle(t)
		if r, err := c.servers[0].InvokeMethod(t.Context(), i.ID, hub.MethodCall{Name: "m"}); err != nil || r.Status != -1 || !r.NotJSON || string(r.Payload) != "\xffno" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if _, err := c.servers[0].InvokeMethod(t.Context(), hub.ID{Device: "none"}, hub.MethodCall{Name: "m"}); !errors.Is(err, hub.ErrDeviceNotFound) {
		t.Errorf("of no device: %v", err)
	}
}

func TestAMethodWaitsForADeviceOfAnotherNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	i := c.device(t, "d1")
	answered := make(chan error, 1)
	go func() {
		_, err := c.servers[0].InvokeMethod(t.Context(), i.ID, hub.MethodCall{Name: "m", ConnectTimeout: wiretest.Patience})
		answered <- err
	}()
	// It connects, and takes methods only later.
	l := c.mustLink(t, 1, i, nil)
	c.settle(t)
	l.leave()
	c.mustLink(t, 2, i, echo)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestAMethodEndsWithTheNodeOfTheDevice(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	i := c.device(t, "d1")
	called := make(chan struct{})
	c.mustLink(t, 2, i, func(ctx context.Context, _ json.RawMessage) (hub.MethodAnswer, error) {
		close(called)
		<-ctx.Done()
		return hub.MethodAnswer{}, context.Cause(ctx)
	})
	answered := make(chan error, 1)
	go func() {
		_, err := c.servers[0].InvokeMethod(t.Context(), i.ID, hub.MethodCall{Name: "m"})
		answered <- err
	}()
	<-called
	if err := c.Nodes[0].Expel(t.Context(), c.Nodes[2].Self()); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; !errors.Is(err, hub.ErrDeviceNotOnline) {
		t.Errorf("the call ended with %v", err)
	}
	for n, s := range c.servers[:2] {
		eventually(t, "the device is gone", func() bool { return !s.ConnectionState(i.ID).Connected })
		if s.ConnectedDevices() != 0 {
			t.Errorf("node %d counts %d connected devices", n, s.ConnectedDevices())
		}
	}
	eventually(t, "it is known why", func() bool {
		_, ended := c.servers[1].Incidents(t.Context(), i.ID)
		return ended != nil && ended.Reason == "node"
	})
}

// However a device moves, it gets a call once or not at all, and who got an answer
// has called it.
func TestNoMethodIsCalledTwice(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	i := c.device(t, "d1")
	var mu sync.Mutex
	calls := map[string]int{}
	count := func(ctx context.Context, payload json.RawMessage) (hub.MethodAnswer, error) {
		mu.Lock()
		defer mu.Unlock()
		calls[string(payload)]++
		return hub.MethodAnswer{Status: 200, Payload: payload}, nil
	}
	moving, stop := context.WithCancel(t.Context())
	var mover sync.WaitGroup
	mover.Go(func() {
		for n := 0; moving.Err() == nil; n++ {
			l, err := c.link(n%3, i, count)
			if err != nil {
				t.Error(err)
				return
			}
			if n%2 == 0 {
				l.leave()
			}
		}
	})
	var callers sync.WaitGroup
	var numbers, answers atomic.Int64
	for _, s := range c.servers {
		for range 4 {
			callers.Go(func() {
				for range 100 {
					payload, _ := json.Marshal(numbers.Add(1))
					r, err := s.InvokeMethod(t.Context(), i.ID, hub.MethodCall{Name: "m", Payload: payload, ConnectTimeout: 5 * time.Second})
					if err != nil {
						if !errors.Is(err, hub.ErrDeviceNotOnline) {
							t.Error(err)
						}
						continue
					}
					answers.Add(1)
					mu.Lock()
					if string(r.Payload) != string(payload) || calls[string(payload)] != 1 {
						t.Errorf("call %s was answered with %s and reached the device %d times", payload, r.Payload, calls[string(payload)])
					}
					mu.Unlock()
				}
			})
		}
	}
	callers.Wait()
	stop()
	mover.Wait()
	for payload, n := range calls {
		if n != 1 {
			t.Errorf("the device got call %s %d times", payload, n)
		}
	}
	if answers.Load() == 0 {
		t.Error("no call was answered")
	}
	t.Logf("%d of %d calls were answered", answers.Load(), numbers.Load())
}

// Whichever nodes write desired properties, the versions that a connection is told
// rise, and none is left out.
func TestVersionsOfDesiredPropertiesRise(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	i := c.device(t, "d1")
	l := c.mustLink(t, 1, i, nil)
	const each = 40
	var writers sync.WaitGroup
	for _, s := range c.servers {
		writers.Go(func() {
			for range each {
				if _, err := s.PatchTwin(i.ID, hub.TwinChange{Desired: json.RawMessage(`{"a":1}`)}, hub.Match{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	c.settle(t)
	got := l.versions()
	if len(got) != 3*each {
		t.Errorf("the device was told of %d versions of %d", len(got), 3*each)
	}
	for n, version := range got {
		if version != int64(n)+2 {
			t.Fatalf("version %d came as number %d of %v", version, n, got)
		}
	}
}

func TestARevocationByAnotherNodeEndsALink(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for name, revoke := range map[string]func(hub.ID) error{
		"disabled": func(id hub.ID) error {
			_, err := c.servers[0].PutIdentity(id, hub.IdentitySpec{Status: hub.StatusDisabled}, hub.Match{Any: true})
			return err
		},
		"deleted": func(id hub.ID) error { return c.servers[2].DeleteIdentity(id, hub.Match{}) },
		"new keys": func(id hub.ID) error {
			_, err := c.servers[2].RegenerateKeys(id, true, true)
			return err
		},
	} {
		i := c.device(t, "device-"+name[:3])
		l := c.mustLink(t, 1, i, nil)
		if err := revoke(i.ID); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := l.ended(t); !errors.Is(err, hub.ErrRevoked) {
			t.Errorf("%s: the link ended with %v", name, err)
		}
		// No node lets it in again, however far behind it is.
		for n := range c.servers {
			if _, err := c.link(n, i, nil); !errors.Is(err, hub.ErrUnauthorizedAccess) && !errors.Is(err, hub.ErrDeviceNotFound) {
				t.Errorf("%s: node %d says %v", name, n, err)
			}
		}
	}
}

// What one node has acknowledged the next request finds, on whichever node.
func TestRequestsOnOtherNodesFindWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for n := range 26 {
		a, b, d := c.servers[n%3], c.servers[(n+1)%3], c.servers[(n+2)%3]
		id := hub.ID{Device: "d" + string(rune('a'+n))}
		i, err := a.PutIdentity(id, hub.IdentitySpec{}, hub.Match{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.PatchTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"a":1}`)}, hub.Match{}); err != nil {
			t.Errorf("a change of a twin: %v", err)
		}
		l, err := c.link((n+2)%3, i, nil)
		if err != nil {
			t.Fatalf("a connection: %v", err)
		}
		if doc, err := d.DeviceTwin(id); err != nil || string(doc) != `{"desired":{"a":1,"$version":2},"reported":{"$version":1}}` {
			t.Errorf("the device's twin is %s, %v", doc, err)
		}
		l.leave()
	}
}

// A node that is cut off accepts nothing from a device that has gone on to another
// one, and ends the connection when it hears of that.
func TestANodeThatIsCutOffServesNobodyWhoHasMoved(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	i := c.device(t, "d1")
	before := c.mustLink(t, 0, i, nil)
	c.Nodes[0].Cut(true)
	after := c.mustLink(t, 1, i, nil)
	refused := make(chan error, 1)
	go func() {
		_, err := c.servers[0].PatchReported(i.ID, []byte(`{"who":"before"}`), hub.AnyVersion)
		refused <- err
	}()
	if _, err := c.servers[1].PatchReported(i.ID, []byte(`{"who":"after"}`), hub.AnyVersion); err != nil {
		t.Error(err)
	}
	c.Nodes[0].Cut(false)
	if err := <-refused; !errors.Is(err, hub.ErrTakenOver) {
		t.Errorf("the patch to the node that was cut off: %v", err)
	}
	if err := before.ended(t); !errors.Is(err, hub.ErrTakenOver) {
		t.Errorf("its link ended with %v", err)
	}
	c.settle(t)
	if doc, err := c.servers[0].DeviceTwin(i.ID); err != nil || string(doc) != `{"desired":{"$version":1},"reported":{"who":"after","$version":2}}` {
		t.Errorf("the twin is %s, %v", doc, err)
	}
	after.leave()
}

// A node that is behind refuses nothing that another one has made possible.
func TestANodeThatIsBehindLooksBeforeItRefuses(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(c *cluster, i hub.Identity) error{
		"a change of a twin": func(c *cluster, i hub.Identity) error {
			_, err := c.servers[1].PatchTwin(i.ID, hub.TwinChange{Tags: json.RawMessage(`{"a":1}`)}, hub.Match{})
			return err
		},
		"a message": func(c *cluster, i hub.Identity) error { return c.servers[1].SendMessage(i.Device, hub.Message{}) },
		"a connection": func(c *cluster, i hub.Identity) error {
			_, err := c.link(1, i, nil)
			return err
		},
		"a method": func(c *cluster, i hub.Identity) error {
			_, err := c.servers[1].InvokeMethod(t.Context(), i.ID, hub.MethodCall{Name: "m"})
			if errors.Is(err, hub.ErrDeviceNotOnline) {
				err = nil
			}
			return err
		},
		"a query": func(c *cluster, i hub.Identity) error {
			if err := c.servers[1].Fresh(t.Context()); err != nil {
				return err
			}
			_, err := c.servers[1].Identity(i.ID)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 2)
			c.Nodes[1].Cut(true)
			i := c.device(t, "d1")
			done := make(chan error, 1)
			go func() { done <- do(c, i) }()
			c.Nodes[1].Cut(false)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// Every node says why a device was refused, and why its connection has ended, whichever
// node did it, and before it is stored.
func TestIncidentsOfAllNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	i := c.device(t, "d1")
	c.settle(t)
	l := c.mustLink(t, 2, i, nil)
	l.server.Detach(l, "violation", errors.New("first"))
	c.servers[0].Refused(hub.Peer{ID: i.ID}, "unauthorized", errors.New("second"))
	c.servers[1].Refused(hub.Peer{ID: i.ID}, "unauthorized", errors.New("third"))
	c.servers[1].Refused(hub.Peer{}, "tls", errors.New("fourth"))
	for n, s := range c.servers {
		var details []string
		all := s.Refusals(t.Context())
		for _, r := range all.Recent {
			details = append(details, r.Detail)
		}
		if diff := cmp.Diff([]string{"fourth", "third", "second"}, details); diff != "" {
			t.Errorf("refusals as node %d knows them (-want +got):\n%s", n, diff)
		}
		if diff := cmp.Diff(map[string]uint64{"unauthorized": 2, "tls": 1}, all.Counts); diff != "" {
			t.Errorf("counts as node %d knows them (-want +got):\n%s", n, diff)
		}
		if since := c.servers[0].Started(); !all.Since.Equal(since) {
			t.Errorf("node %d counts since %v, want %v", n, all.Since, since)
		}
		refused, ended := s.Incidents(t.Context(), i.ID)
		if refused == nil || refused.Detail != "third" || ended == nil || ended.Detail != "first" {
			t.Errorf("incidents as node %d knows them: %+v, %+v", n, refused, ended)
		}
	}
}

func TestALeaderThatDoesNotAnswerIsUnavailable(t *testing.T) {
	c := severaltest.Start(t, 2)
	answer := func(ctx context.Context, _ struct{}) (struct{}, error) {
		<-ctx.Done()
		return struct{}{}, ctx.Err()
	}
	hub.AnswerAsLeader(c.Nodes[0].Server, "slow", answer)
	ctx, end := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer end()
	_, err := hub.AskLeader(ctx, c.Nodes[1].Server, "slow", struct{}{}, answer)
	if hub.RefusalOf(err).Status != 503 || !strings.Contains(err.Error(), "may have done what it was asked") {
		t.Errorf("asking a node that takes too long: %v", err)
	}
}
