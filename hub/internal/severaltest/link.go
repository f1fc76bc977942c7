package severaltest

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/sas"
)

// A Link is a device that is connected to a node. It takes one message at a time,
// and answers direct methods if it has something to.
type Link struct {
	node     *Node
	peer     hub.Peer
	messages chan hub.ReceivedMessage
	gone     chan struct{} // closed by End

	mu     sync.Mutex // guards what follows
	holds  bool       // a message that it has not settled
	answer func(payload json.RawMessage) (status int32)
	calls  int
	reason error
}

// Attach connects a device. answer is what it does when a direct method is called;
// nil takes none.
func (n *Node) Attach(t testing.TB, device string, answer func(json.RawMessage) int32) *Link {
	t.Helper()
	id := hub.ID{Device: device}
	if err := n.Fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	i, err := n.Identity(id)
	if err != nil {
		t.Fatal(err)
	}
	cs := sas.ConnectionString{HostName: "localhost", DeviceID: device}
	token, err := sas.Sign(cs.Audience(), "", i.Auth.SymmetricKey.Primary, n.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	grant, err := n.Authenticate("localhost", id, token, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{
		node: n, peer: hub.Peer{ID: id, Host: "localhost", Grant: grant, Since: n.Now(), Door: "test"},
		messages: make(chan hub.ReceivedMessage, 64), gone: make(chan struct{}), answer: answer,
	}
	if err := n.Server.Attach(l); err != nil {
		t.Fatalf("attach %s: %v", device, err)
	}
	n.Ready(l)
	return l
}

// Leave ends the connection as the device does.
func (l *Link) Leave() {
	l.End(nil)
	l.node.Detach(l, "closed", nil)
}

// Gone is closed when the hub ends the connection.
func (l *Link) Gone() <-chan struct{} { return l.gone }

// Calls returns how many direct methods the device has received.
func (l *Link) Calls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

// Want returns the next message, which has to be body.
func (l *Link) Want(t testing.TB, body string) hub.ReceivedMessage {
	t.Helper()
	select {
	case m := <-l.messages:
		if string(m.Body) != body {
			t.Fatalf("message %q comes, want %q", m.Body, body)
		}
		return m
	case <-time.After(Patience):
		t.Fatalf("message %q does not come", body)
	}
	panic("unreachable")
}

// Release has the device take another message.
func (l *Link) Release() {
	l.Forget("")
	l.node.Ready(l)
}

// Complete says that the device has got a message.
func (l *Link) Complete(t testing.TB, m hub.ReceivedMessage) {
	t.Helper()
	l.Forget(m.LockToken)
	if err := l.node.CompleteMessage(l.peer.ID.Device, m.LockToken); err != nil {
		t.Errorf("complete %q: %v", m.Body, err)
	}
}

// Peer implements hub.Link.
func (l *Link) Peer() hub.Peer { return l.peer }

// LastActivity implements hub.Link.
func (l *Link) LastActivity() time.Time { return l.peer.Since }

// TakesMethod implements hub.Link.
func (l *Link) TakesMethod(string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason == nil && l.answer != nil
}

// Call implements hub.Link.
func (l *Link) Call(ctx context.Context, _ string, payload json.RawMessage) (hub.MethodAnswer, bool, error) {
	if !l.TakesMethod("") {
		return hub.MethodAnswer{}, false, nil
	}
	l.mu.Lock()
	l.calls++
	l.mu.Unlock()
	done := make(chan int32, 1)
	go func() { done <- l.answer(payload) }()
	select {
	case status := <-done:
		return hub.MethodAnswer{Status: status}, true, nil
	case <-l.gone:
		return hub.MethodAnswer{}, true, hub.ErrDeviceNotOnline
	case <-ctx.Done():
		return hub.MethodAnswer{}, true, context.Cause(ctx)
	}
}

// SendDesired implements hub.Link.
func (l *Link) SendDesired(int64, json.RawMessage) {}

// TakesMessages implements hub.Link.
func (l *Link) TakesMessages() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason == nil && !l.holds
}

// Deliver implements hub.Link.
func (l *Link) Deliver(m *hub.ReceivedMessage) (taken, settled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reason != nil || l.holds {
		return false, false
	}
	l.holds = true
	l.messages <- *m
	return true, false
}

// Forget implements hub.Link.
func (l *Link) Forget(string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds = false
}

// EndIdle implements hub.Link.
func (l *Link) EndIdle(reason error) bool {
	l.End(reason)
	return true
}

// End implements hub.Link.
func (l *Link) End(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reason == nil {
		l.reason = reason
		if reason == nil {
			l.reason = hub.ErrClosing
		}
		close(l.gone)
	}
}
