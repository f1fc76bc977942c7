package hub_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/severaltest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
)

const aDevice = "d1"

// send puts a message into a device's queue on a node.
func send(t testing.TB, n *severaltest.Node, m hub.Message) {
	t.Helper()
	if err := n.SendMessage(aDevice, m); err != nil {
		t.Fatal(err)
	}
}

// receive has a device without a connection ask a node for a message.
func receive(t testing.TB, n *severaltest.Node) (hub.ReceivedMessage, bool) {
	t.Helper()
	m, ok, err := n.ReceiveMessage(aDevice, 0)
	if err != nil {
		t.Fatal(err)
	}
	return m, ok
}

// wantFeedback has a node wait for a batch of one record.
func wantFeedback(t testing.TB, n *severaltest.Node, messageID, status string) hub.FeedbackBatch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), severaltest.Patience)
	defer cancel()
	batch, err := n.NextFeedback(ctx)
	if err != nil {
		t.Fatalf("no feedback comes: %v", err)
	}
	if len(batch.Records) != 1 || batch.Records[0].OriginalMessageID != messageID || string(batch.Records[0].StatusCode) != status {
		t.Fatalf("feedback %+v, want one on %s: %s", batch.Records, messageID, status)
	}
	return batch
}

func pending(n *severaltest.Node) int {
	return n.ConnectionState(hub.ID{Device: aDevice}).PendingMessages
}

func TestAMessageGoesByTheNodeThatHasTheDevice(t *testing.T) {
	c := severaltest.Start(t, 3)
	c.Nodes[2].Create(t, aDevice)
	d := c.Nodes[1].Attach(t, aDevice, nil)
	for _, body := range []string{"1", "2", "3"} { // each accepted by another node
		m := wiretest.Message(body)
		m.MessageID, m.Ack = body, hub.AckFull
		send(t, c.Nodes[body[0]-'1'], m)
	}
	first := d.Want(t, "1")
	if err := c.Nodes[2].AbandonMessage(aDevice, first.LockToken); err != nil { // whichever node is told
		t.Fatal(err)
	}
	d.Release()
	again := d.Want(t, "1")
	if again.Sequence != first.Sequence || again.Deliveries != 1 {
		t.Errorf("message %d comes again as %d, delivered %d times before", first.Sequence, again.Sequence, again.Deliveries)
	}
	d.Complete(t, again)
	d.Complete(t, d.Want(t, "2"))
	third := d.Want(t, "3")
	if err := c.Nodes[0].RejectMessage(aDevice, third.LockToken); err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes[0].CompleteMessage(aDevice, third.LockToken); !errors.Is(err, hub.ErrMessageLockLost) {
		t.Errorf("a message that was rejected is completed: %v, want %v", err, hub.ErrMessageLockLost)
	}
	c.Settle(t, 0, 1, 2)
	for i, n := range c.Nodes {
		if got := pending(n); got != 0 {
			t.Errorf("node %d knows of %d messages that wait", i, got)
		}
	}
}

func TestFeedbackComesToWhicheverNodeAsks(t *testing.T) {
	c := severaltest.Start(t, 3)
	c.Nodes[0].Create(t, aDevice)
	d := c.Nodes[1].Attach(t, aDevice, nil)
	m := wiretest.Message("1")
	m.MessageID, m.Ack = "first", hub.AckPositive
	send(t, c.Nodes[2], m)
	d.Complete(t, d.Want(t, "1"))
	batch := wantFeedback(t, c.Nodes[2], "first", "Success")
	if _, ok, err := c.Nodes[1].ReceiveFeedback(); ok || err != nil {
		t.Errorf("another node hands out what is handed out: %v, %v", ok, err)
	}
	if err := c.Nodes[1].AbandonFeedback(batch.LockToken); err != nil {
		t.Fatal(err)
	}
	batch = wantFeedback(t, c.Nodes[0], "first", "Success")
	if err := c.Nodes[2].CompleteFeedback(batch.LockToken); err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes[0].CompleteFeedback(batch.LockToken); !errors.Is(err, hub.ErrMessageLockLost) {
		t.Errorf("feedback is completed twice: %v, want %v", err, hub.ErrMessageLockLost)
	}

	// Who waits on a node goes on waiting when the leader dies.
	batches := make(chan hub.FeedbackBatch, 1)
	go func() {
		batch, err := c.Nodes[2].NextFeedback(t.Context())
		if err != nil {
			t.Error(err)
		}
		batches <- batch
	}()
	c.Kill(t, 0)
	m.MessageID = "second"
	send(t, c.Nodes[1], m)
	d.Complete(t, d.Want(t, "1"))
	select {
	case batch := <-batches:
		if len(batch.Records) != 1 || batch.Records[0].OriginalMessageID != "second" {
			t.Errorf("feedback %+v, want one record on the second message", batch.Records)
		}
	case <-time.After(severaltest.Patience):
		t.Error("no feedback comes from the next leader")
	}
}

func TestADeviceWithoutAConnectionAsksAnyNode(t *testing.T) {
	c := severaltest.Start(t, 3)
	c.Nodes[1].Create(t, aDevice)
	send(t, c.Nodes[1], wiretest.Message("1"))
	c.Settle(t, 0, 2)
	m, ok := receive(t, c.Nodes[2])
	if !ok || string(m.Body) != "1" {
		t.Fatalf("the device receives %q, %v", m.Body, ok)
	}
	for i, n := range c.Nodes {
		if m, ok := receive(t, n); ok {
			t.Errorf("node %d gives the device %q, which it has in hand", i, m.Body)
		}
	}
	if err := c.Nodes[1].CompleteMessage(aDevice, m.LockToken); err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes[2].CompleteMessage(aDevice, m.LockToken); !errors.Is(err, hub.ErrMessageLockLost) {
		t.Errorf("it is completed twice: %v, want %v", err, hub.ErrMessageLockLost)
	}
	for _, token := range []string{"", "no token", "6c7b9a3e-1d0f-4c2b-9e8a-5f4d3c2b1a00"} {
		if err := c.Nodes[2].CompleteMessage(aDevice, token); !errors.Is(err, hub.ErrMessageLockLost) {
			t.Errorf("token %q: %v, want %v", token, err, hub.ErrMessageLockLost)
		}
	}
}

func TestWhatADeviceHasInHandIsVisibleAgainWhenItsHomeDies(t *testing.T) {
	t.Run("the node with its connection", func(t *testing.T) {
		c := severaltest.Start(t, 3)
		c.Nodes[0].Create(t, aDevice)
		d := c.Nodes[2].Attach(t, aDevice, nil)
		send(t, c.Nodes[1], wiretest.Message("1"))
		send(t, c.Nodes[1], wiretest.Message("2"))
		first := d.Want(t, "1")
		c.Kill(t, 2)
		if err := c.Nodes[1].CompleteMessage(aDevice, first.LockToken); !errors.Is(err, hub.ErrMessageLockLost) {
			t.Errorf("the lock of a node that is dead: %v, want %v", err, hub.ErrMessageLockLost)
		}
		d = c.Nodes[1].Attach(t, aDevice, nil)
		again := d.Want(t, "1")
		if again.Sequence != first.Sequence || again.Deliveries != 0 {
			t.Errorf("message %d comes again as %d, delivered %d times before", first.Sequence, again.Sequence, again.Deliveries)
		}
		d.Complete(t, again)
		d.Complete(t, d.Want(t, "2"))
	})
	t.Run("the leader", func(t *testing.T) {
		c := severaltest.Start(t, 3)
		c.Nodes[0].Create(t, aDevice)
		send(t, c.Nodes[2], wiretest.Message("1"))
		c.Settle(t, 1)
		m, ok := receive(t, c.Nodes[1])
		if !ok {
			t.Fatal("no message comes")
		}
		c.Kill(t, 0)
		again, ok := receive(t, c.Nodes[2])
		if !ok || again.Sequence != m.Sequence {
			t.Fatalf("message %d, %v comes again, want %d", again.Sequence, ok, m.Sequence)
		}
		if err := c.Nodes[1].CompleteMessage(aDevice, again.LockToken); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatADeviceHasTakenOnOneNodeDoesNotComeOnAnother(t *testing.T) {
	c := severaltest.Start(t, 3)
	c.Nodes[0].Create(t, aDevice)
	send(t, c.Nodes[0], wiretest.Message("1"))
	send(t, c.Nodes[0], wiretest.Message("2"))
	before := c.Nodes[0].Attach(t, aDevice, nil)
	for i, body := range []string{"1", "2"} {
		d := c.Nodes[i+1].Attach(t, aDevice, nil) // it takes over
		<-before.Gone()
		d.Complete(t, d.Want(t, body))
		before = d
	}
}

func TestOnlyTheHomeHasMessagesExpire(t *testing.T) {
	c := severaltest.Start(t, 3)
	c.Nodes[0].Create(t, aDevice)
	soon := func(id string) hub.Message {
		m := wiretest.Message(id)
		m.MessageID, m.Ack, m.Expires = id, hub.AckFull, c.Clock.Now().Add(30*time.Second)
		return m
	}
	d := c.Nodes[2].Attach(t, aDevice, nil)
	send(t, c.Nodes[1], soon("in-hand"))
	send(t, c.Nodes[1], soon("waits"))
	m := d.Want(t, "in-hand")
	c.Clock.Advance(40 * time.Second) // less than its lock lasts
	batch := wantFeedback(t, c.Nodes[0], "waits", "Expired")
	if err := c.Nodes[0].CompleteFeedback(batch.LockToken); err != nil {
		t.Fatal(err)
	}
	send(t, c.Nodes[0], wiretest.Message("later"))
	if got := pending(c.Nodes[0]); got != 2 {
		t.Errorf("%d messages wait, want that in hand and the last", got)
	}
	d.Complete(t, m)
	d.Complete(t, d.Want(t, "later"))
	c.Clock.Advance(time.Minute)
	wantFeedback(t, c.Nodes[1], "in-hand", "Success")
}
