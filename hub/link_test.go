package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// A memoryLink is a connection without a network, as a door that is not MQTT
// makes it. What it is sent is kept for the test, which is its peer.
type memoryLink struct {
	hub      *node.Node
	peer     hub.Peer
	window   int                      // messages it holds unsettled at a time
	messages chan hub.ReceivedMessage // has room for all of a queue
	gone     chan struct{}            // closed by End
	calling  atomic.Int32             // methods that wait for their answers

	mu        sync.Mutex // guards what follows
	method    memoryMethod
	causes    []error  // why calls ended that were not answered
	desired   []notice // what SendDesired said
	unsettled []string // lock tokens
	reason    error    // of End
}

// errGone is why a memoryLink ends that its peer ends.
var errGone = errors.New("the peer has gone")

// A memoryMethod is how a peer answers its methods; nil takes none.
type memoryMethod func(ctx context.Context, name string, payload json.RawMessage) (hub.MethodAnswer, error)

type notice struct {
	Version int64
	Body    string
}

// authenticated returns a peer with a token of the identity's that is good for
// an hour.
func authenticated(n *node.Node, id hub.ID, model string) (hub.Peer, error) {
	i, err := n.Identity(id)
	if err != nil {
		return hub.Peer{}, err
	}
	cs := sas.ConnectionString{HostName: "localhost", DeviceID: id.Device, ModuleID: id.Module}
	token, err := sas.Sign(cs.Audience(), "", i.Auth.SymmetricKey.Primary, n.Now().Add(time.Hour))
	if err != nil {
		return hub.Peer{}, err
	}
	grant, err := n.Authenticate("localhost", id, token, nil)
	return hub.Peer{ID: id, Host: "localhost", Model: model, Grant: grant, Since: n.Now()}, err
}

func newMemoryLink(n *node.Node, peer hub.Peer) *memoryLink {
	return &memoryLink{hub: n, peer: peer, messages: make(chan hub.ReceivedMessage, 64), gone: make(chan struct{})}
}

// attach attaches a link of the identity, which exists.
func attach(t testing.TB, n *node.Node, id hub.ID) *memoryLink {
	t.Helper()
	peer, err := authenticated(n, id, "")
	if err != nil {
		t.Fatal(err)
	}
	l := newMemoryLink(n, peer)
	if err := n.Attach(l); err != nil {
		t.Fatalf("attach %s: %v", id, err)
	}
	return l
}

func (l *memoryLink) Peer() hub.Peer          { return l.peer }
func (l *memoryLink) LastActivity() time.Time { return l.peer.Since }

func (l *memoryLink) End(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reason == nil {
		l.reason = reason
		close(l.gone)
	}
}

func (l *memoryLink) EndIdle(reason error) bool {
	if l.calling.Load() > 0 {
		return false
	}
	l.End(reason)
	return true
}

// ended waits for the end of the link, detaches it, and returns why it ended.
func (l *memoryLink) ended(t testing.TB) error {
	t.Helper()
	select {
	case <-l.gone:
	case <-time.After(wiretest.Patience):
		t.Fatalf("the link of %s has not ended", l.peer.ID)
	}
	l.hub.Detach(l, "closed", l.why())
	return l.why()
}

// why returns why the link has ended, or nil.
func (l *memoryLink) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason
}

// serve has the peer answer methods from now on.
func (l *memoryLink) serve(m memoryMethod) {
	l.mu.Lock()
	l.method = m
	l.mu.Unlock()
	l.hub.Ready(l)
}

func (l *memoryLink) served() memoryMethod {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reason != nil {
		return nil
	}
	return l.method
}

func (l *memoryLink) TakesMethod(string) bool { return l.served() != nil }

func (l *memoryLink) Call(ctx context.Context, name string, payload json.RawMessage) (hub.MethodAnswer, bool, error) {
	method := l.served()
	if method == nil {
		return hub.MethodAnswer{}, false, nil
	}
	l.calling.Add(1)
	defer l.calling.Add(-1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-l.gone:
			cancel(hub.ErrDeviceNotOnline)
		case <-stop:
		}
	})
	answer, err := method(ctx, name, payload)
	close(stop)
	watching.Wait()
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.causes = append(l.causes, err)
	}
	return answer, true, err
}

// silent takes methods and never answers.
func silent(ctx context.Context, _ string, _ json.RawMessage) (hub.MethodAnswer, error) {
	<-ctx.Done()
	return hub.MethodAnswer{}, context.Cause(ctx)
}

func (l *memoryLink) SendDesired(version int64, body json.RawMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reason != nil {
		return
	}
	l.desired = append(l.desired, notice{version, string(body)})
}

func (l *memoryLink) notices() []notice {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.desired)
}

// open has the peer hold up to n messages.
func (l *memoryLink) open(n int) {
	l.mu.Lock()
	l.window = n
	l.mu.Unlock()
	l.hub.Ready(l)
}

func (l *memoryLink) TakesMessages() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason == nil && len(l.unsettled) < l.window
}

func (l *memoryLink) Deliver(m *hub.ReceivedMessage) (taken, settled bool) {
	if !l.TakesMessages() {
		return false, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsettled = append(l.unsettled, m.LockToken)
	l.messages <- *m
	return true, false
}

func (l *memoryLink) Forget(token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsettled = slices.DeleteFunc(l.unsettled, func(have string) bool { return have == token })
}

// settle makes room in the window, and says what becomes of the message.
func (l *memoryLink) settle(t testing.TB, m hub.ReceivedMessage, by func(device, token string) error) {
	t.Helper()
	l.Forget(m.LockToken)
	if err := by(l.peer.ID.Device, m.LockToken); err != nil {
		t.Errorf("settle message %s: %v", m.Body, err)
	}
}

// want returns the next message, which has to be body.
func (l *memoryLink) want(t testing.TB, body string) hub.ReceivedMessage {
	t.Helper()
	select {
	case m := <-l.messages:
		if string(m.Body) != body {
			t.Fatalf("message %q comes, want %q", m.Body, body)
		}
		return m
	case <-time.After(wiretest.Patience):
		t.Fatalf("message %q does not come", body)
	}
	panic("unreachable")
}

// wantNone checks that no message has come. What is delivered at all is
// delivered before what causes it returns.
func (l *memoryLink) wantNone(t testing.TB) {
	t.Helper()
	select {
	case m := <-l.messages:
		t.Errorf("message %q comes", m.Body)
	default:
	}
}

func TestLinksOfTwoDoorsTakeOverFromEachOther(t *testing.T) {
	h := hubtest.New(t)
	id := hub.ID{Device: "d1"}
	cs := h.Device(id.Device)
	d := wiretest.DialTLS(t, h)
	d.Connect(cs)
	d.Subscribe(1, "devices/d1/messages/devicebound/#")
	wiretest.SendMessage(t, h.Node, id.Device, wiretest.Message("1"))
	d.WantMessage("1")

	l := attach(t, h.Node, id)
	d.WantClosed()
	l.open(5)
	l.want(t, "1") // what the other has not settled comes again
	if got := h.Link(id); got != hub.Link(l) {
		t.Errorf("the link of %s is %v", id, got)
	}

	again := wiretest.DialTLS(t, h)
	if !again.Connect(cs) {
		t.Error("the session of the connection before is gone")
	}
	if reason := l.ended(t); reason != hub.ErrTakenOver {
		t.Errorf("the link ended because %v, want %v", reason, hub.ErrTakenOver)
	}
	again.Acknowledge(again.WantMessage("1"))
	again.Settled()
	wiretest.WantPending(t, h.Node, id.Device, 0)
	if state := h.ConnectionState(id); !state.Connected {
		t.Error("the end of the link before has disconnected the device")
	}
}

func TestMethodsOfALink(t *testing.T) {
	c := clock.New()
	n := wiretest.NewNode(t, node.Options{Clock: c})
	id := hub.ID{Device: "d1", Module: "m1"}
	wiretest.Create(t, n, hub.ID{Device: "d1"}, hub.IdentitySpec{})
	wiretest.Create(t, n, id, hub.IdentitySpec{})
	l := attach(t, n, id)
	call := hub.MethodCall{Name: "reboot", Payload: json.RawMessage(`{"in":5}`)}

	if _, err := n.InvokeMethod(t.Context(), id, call); !errors.Is(err, hub.ErrDeviceNotOnline) {
		t.Errorf("a call that is not taken: %v, want %v", err, hub.ErrDeviceNotOnline)
	}

	type result struct {
		hub.MethodResult
		err error
	}
	invoke := func(ctx context.Context, call hub.MethodCall) <-chan result {
		done := make(chan result, 1)
		go func() {
			r, err := n.InvokeMethod(ctx, id, call)
			done <- result{r, err}
		}()
		return done
	}
	wait := func(done <-chan result) result {
		t.Helper()
		select {
		case r := <-done:
			return r
		case <-time.After(wiretest.Patience):
			t.Fatal("the call does not return")
		}
		panic("unreachable")
	}

	// One that waits is sent when the peer takes methods.
	patient := call
	patient.ConnectTimeout = time.Minute
	waiting := invoke(t.Context(), patient)
	l.serve(func(_ context.Context, name string, payload json.RawMessage) (hub.MethodAnswer, error) {
		return hub.MethodAnswer{Status: 200, Payload: []byte(`{"method":"` + name + `","payload":` + string(payload) + `}`)}, nil
	})
	if r := wait(waiting); r.err != nil || r.Status != 200 || string(r.Payload) != `{"method":"reboot","payload":{"in":5}}` {
		t.Errorf("a call that is taken: %d %s, %v", r.Status, r.Payload, r.err)
	}

	for name, tt := range map[string]struct {
		answer  string
		payload string
		notJSON bool
		want    error
	}{
		"nothing":       {"", "null", false, nil},
		"not JSON":      {"{", "{", true, nil},
		"not in UTF-8":  {"\"\xe9\"", "\"\xe9\"", true, nil},
		"too long":      {string(make([]byte, hub.MaxMethodPayload+1)), "", false, hub.ErrBadDeviceResponse},
		"JSON in white": {" [1]\n", " [1]\n", false, nil},
	} {
		t.Run("the answer is "+name, func(t *testing.T) {
			l.serve(func(context.Context, string, json.RawMessage) (hub.MethodAnswer, error) {
				return hub.MethodAnswer{Status: 1, Payload: []byte(tt.answer)}, nil
			})
			r, err := n.InvokeMethod(t.Context(), id, call)
			if !errors.Is(err, tt.want) || string(r.Payload) != tt.payload || r.NotJSON != tt.notJSON {
				t.Errorf("%d %q (not JSON: %v), %v, want %q and %v", r.Status, r.Payload, r.NotJSON, err, tt.payload, tt.want)
			}
		})
	}

	// It ends with its caller, with its time, and with the link; the link is
	// told which.
	begun := make(chan struct{})
	l.serve(func(ctx context.Context, name string, payload json.RawMessage) (hub.MethodAnswer, error) {
		begun <- struct{}{}
		return silent(ctx, name, payload)
	})
	leaves := errors.New("the caller leaves")
	ctx, cancel := context.WithCancelCause(t.Context())
	left := invoke(ctx, call)
	<-begun
	cancel(leaves)
	if r := wait(left); !errors.Is(r.err, context.Canceled) {
		t.Errorf("a call whose caller leaves: %v", r.err)
	}
	late := invoke(t.Context(), call)
	<-begun
	c.Advance(hub.DefaultResponseTimeout)
	if r := wait(late); !errors.Is(r.err, hub.ErrGatewayTimeout) {
		t.Errorf("a call that is not answered: %v, want %v", r.err, hub.ErrGatewayTimeout)
	}
	lost := invoke(t.Context(), call)
	<-begun
	l.End(hub.ErrTakenOver)
	if r := wait(lost); !errors.Is(r.err, hub.ErrDeviceNotOnline) {
		t.Errorf("a call whose link ends: %v, want %v", r.err, hub.ErrDeviceNotOnline)
	}
	want := []error{leaves, hub.ErrGatewayTimeout, hub.ErrDeviceNotOnline}
	if !slices.EqualFunc(want, l.causes, errors.Is) {
		t.Errorf("the calls of the link ended because of %v, want %v", l.causes, want)
	}
	if _, err := n.InvokeMethod(t.Context(), id, call); !errors.Is(err, hub.ErrDeviceNotOnline) {
		t.Errorf("a call when the link has ended: %v, want %v", err, hub.ErrDeviceNotOnline)
	}
}

func TestALinkIsToldOfDesiredProperties(t *testing.T) {
	n := wiretest.NewNode(t, node.Options{})
	id := hub.ID{Device: "d1"}
	wiretest.Create(t, n, id, hub.IdentitySpec{})
	l := attach(t, n, id)
	change := func(write func(hub.ID, hub.TwinChange, hub.Match) (hub.TwinView, error), tags, desired string) {
		t.Helper()
		if _, err := write(id, hub.TwinChange{Tags: json.RawMessage(tags), Desired: json.RawMessage(desired)}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	change(n.PatchTwin, `{}`, `{"a":1,"b":{"c":2}}`)
	change(n.PatchTwin, `{"t":1}`, "")
	change(n.PatchTwin, "", `{"b":null}`)
	if _, err := n.PatchReported(id, []byte(`{"a":1}`), hub.AnyVersion); err != nil {
		t.Fatal(err)
	}
	change(n.ReplaceTwin, "", `{"z":3}`)
	change(n.PatchTwin, "", `{"z":{"x":1,"y":{"k":2}}}`)
	change(n.ReplaceTwin, `{"t":2}`, `{"z":{"x":1,"y":{}},"n":0}`)
	for range 2 {
		v, err := n.PatchTwin(id, hub.TwinChange{ClearDesired: true}, hub.Match{})
		if text, _ := v.MarshalJSON(); err != nil || !bytes.Contains(text, []byte(`"tags":{"t":2}`)) || !bytes.Contains(text, []byte(`"desired":{"$metadata":{"$lastUpdated":`)) {
			t.Errorf("cleared, the twin is %s, %v", text, err)
		}
	}
	want := []notice{
		{2, `{"a":1,"b":{"c":2},"$version":2}`},
		{3, `{"b":null,"$version":3}`},
		{4, `{"a":null,"z":3,"$version":4}`},
		{5, `{"z":{"x":1,"y":{"k":2}},"$version":5}`},
		{6, `{"z":{"x":1,"y":{"k":null}},"n":0,"$version":6}`},
		{7, `{"z":null,"n":null,"$version":7}`},
		{8, `{"$version":8}`},
	}
	if diff := cmp.Diff(want, l.notices()); diff != "" {
		t.Errorf("notices (-want +got):\n%s", diff)
	}
}

func TestALinkHasAWindowOfMessages(t *testing.T) {
	c := clock.New()
	n := wiretest.NewNode(t, node.Options{Clock: c})
	id := hub.ID{Device: "d1"}
	wiretest.Create(t, n, id, hub.IdentitySpec{})
	l := attach(t, n, id)
	for _, body := range []string{"1", "2", "3", "4"} {
		wiretest.SendMessage(t, n, id.Device, wiretest.Message(body))
	}
	l.wantNone(t) // it takes none yet
	l.open(2)
	first, second := l.want(t, "1"), l.want(t, "2")
	l.wantNone(t)

	l.settle(t, first, n.CompleteMessage)
	third := l.want(t, "3")
	l.settle(t, second, n.AbandonMessage)
	again := l.want(t, "2") // before what is behind it
	if again.Deliveries != 1 || again.LockToken == second.LockToken {
		t.Errorf("an abandoned message comes with %d deliveries", again.Deliveries)
	}
	if err := n.CompleteMessage(id.Device, second.LockToken); !errors.Is(err, hub.ErrMessageLockLost) {
		t.Errorf("settled again: %v, want %v", err, hub.ErrMessageLockLost)
	}
	l.settle(t, third, n.RejectMessage)
	fourth := l.want(t, "4")
	wiretest.WantPending(t, n, id.Device, 2)

	// When their locks end the link forgets them, has room, and gets them again.
	c.Advance(time.Minute)
	l.want(t, "2")
	last := l.want(t, "4")
	if last.LockToken == fourth.LockToken {
		t.Error("a message comes again with the same lock")
	}
	l.wantNone(t)

	// Those that are in hand when it goes wait for the one that comes.
	n.Detach(l, "closed", errGone)
	wiretest.SendMessage(t, n, id.Device, wiretest.Message("5"))
	next := attach(t, n, id)
	next.open(5)
	for _, body := range []string{"2", "4", "5"} {
		next.settle(t, next.want(t, body), n.CompleteMessage)
	}
	wiretest.WantPending(t, n, id.Device, 0)
	l.wantNone(t)
}

func TestALinkEndsWithItsCredential(t *testing.T) {
	device := hub.ID{Device: "d1"}
	module := hub.ID{Device: "d1", Module: "m1"}
	for name, tt := range map[string]struct {
		id     hub.ID
		change func(*node.Node, *clock.Clock) error
		want   error
	}{
		"the device is disabled": {device, func(n *node.Node, _ *clock.Clock) error {
			_, err := n.PutIdentity(device, hub.IdentitySpec{Status: hub.StatusDisabled}, hub.Match{Any: true})
			return err
		}, hub.ErrRevoked},
		"the device of the module is disabled": {module, func(n *node.Node, _ *clock.Clock) error {
			_, err := n.PutIdentity(device, hub.IdentitySpec{Status: hub.StatusDisabled}, hub.Match{Any: true})
			return err
		}, hub.ErrRevoked},
		"its keys are regenerated": {device, func(n *node.Node, _ *clock.Clock) error {
			_, err := n.RegenerateKeys(device, true, false)
			return err
		}, hub.ErrRevoked},
		"it is deleted": {module, func(n *node.Node, _ *clock.Clock) error {
			return n.DeleteIdentity(module, hub.Match{})
		}, hub.ErrRevoked},
		"its device is deleted": {module, func(n *node.Node, _ *clock.Clock) error {
			return n.DeleteIdentity(device, hub.Match{})
		}, hub.ErrRevoked},
		"its token expires": {module, func(_ *node.Node, c *clock.Clock) error {
			c.Advance(time.Hour + 2*sas.Skew)
			return nil
		}, hub.ErrExpired},
		"the hub stops": {device, func(n *node.Node, _ *clock.Clock) error {
			n.Stop()
			return nil
		}, hub.ErrClosing},
	} {
		t.Run(name, func(t *testing.T) {
			c := clock.New()
			n := wiretest.NewNode(t, node.Options{Clock: c})
			wiretest.Create(t, n, device, hub.IdentitySpec{})
			wiretest.Create(t, n, module, hub.IdentitySpec{})
			l := attach(t, n, tt.id)
			// What concerns neither the credential nor the identity ends nothing.
			if _, err := n.RegenerateKeys(tt.id, false, true); err != nil {
				t.Fatal(err)
			}
			if n.Link(tt.id) != hub.Link(l) {
				t.Fatal("a new secondary key has ended it")
			}
			if err := tt.change(n, c); err != nil {
				t.Fatal(err)
			}
			if reason := l.ended(t); reason != tt.want {
				t.Errorf("it ended because %v, want %v", reason, tt.want)
			}
			if n.Link(tt.id) != nil || n.ConnectionState(tt.id).Connected {
				t.Error("it is still there")
			}
		})
	}
}

func TestALinkEndsWithThePolicyThatItCameBy(t *testing.T) {
	n := wiretest.NewNode(t, node.Options{})
	id, other := hub.ID{Device: "d1"}, hub.ID{Device: "d2"}
	wiretest.Create(t, n, id, hub.IdentitySpec{})
	wiretest.Create(t, n, other, hub.IdentitySpec{})
	policies := slices.Clone(n.Policies())
	device := slices.IndexFunc(policies, func(p hub.Policy) bool { return p.Name == "device" })
	token := wiretest.Sign(t, "localhost/devices/d1", "device", policies[device].PrimaryKey, n.Now().Add(time.Hour))
	grant, err := n.Authenticate("localhost", id, token, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, byOwnKey := newMemoryLink(n, hub.Peer{ID: id, Host: "localhost", Grant: grant, Since: n.Now()}), attach(t, n, other)
	if err := n.Attach(l); err != nil {
		t.Fatal(err)
	}
	policies[device].SecondaryKey = sas.NewKey()
	n.SetPolicies(policies) // the key that it has come by stays
	policies = slices.Clone(policies)
	policies[device].PrimaryKey = sas.NewKey()
	n.SetPolicies(policies)
	if reason := l.ended(t); reason != hub.ErrRevoked {
		t.Errorf("it ended because %v, want %v", reason, hub.ErrRevoked)
	}
	if _, err := n.Authenticate("localhost", id, token, nil); !errors.Is(err, hub.ErrUnauthorizedAccess) {
		t.Errorf("it comes again: %v", err)
	}
	if n.Link(other) != hub.Link(byOwnKey) {
		t.Error("a device with a key of its own is gone")
	}
}

func TestALinkThatComesTooLateIsRefused(t *testing.T) {
	device := hub.ID{Device: "d1"}
	for name, tt := range map[string]struct {
		change func(*node.Node) error
		want   error
	}{
		"new keys": {func(n *node.Node) error { _, err := n.RegenerateKeys(device, true, true); return err }, hub.ErrUnauthorizedAccess},
		"deleted":  {func(n *node.Node) error { return n.DeleteIdentity(device, hub.Match{}) }, hub.ErrDeviceNotFound},
		"stopped":  {func(n *node.Node) error { n.Stop(); return nil }, hub.ErrServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			n := wiretest.NewNode(t, node.Options{})
			wiretest.Create(t, n, device, hub.IdentitySpec{})
			peer, err := authenticated(n, device, "")
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.change(n); err != nil {
				t.Fatal(err)
			}
			if err := n.Attach(newMemoryLink(n, peer)); !errors.Is(err, tt.want) {
				t.Errorf("Attach: %v, want %v", err, tt.want)
			}
			if n.Link(device) != nil {
				t.Error("it is attached")
			}
		})
	}
}

// However fast the clock is moved, what it makes expire ends.
func TestLinksEndHoweverTheClockMoves(t *testing.T) {
	c := clock.New()
	n := wiretest.NewNode(t, node.Options{Clock: c})
	id := hub.ID{Device: "d1"}
	wiretest.Create(t, n, id, hub.IdentitySpec{})
	for range 500 {
		l := attach(t, n, id)
		c.Advance(30 * time.Minute)
		c.Advance(30*time.Minute + 2*sas.Skew)
		if reason := l.ended(t); reason != hub.ErrExpired {
			t.Fatalf("it ended because %v, want %v", reason, hub.ErrExpired)
		}
	}
}
