package amqp_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// completed has a device complete a message, of which its sender wants to hear.
func completed(t testing.TB, h *hubtest.Hub, id string) {
	t.Helper()
	wiretest.SendMessage(t, h.Node, "d1", hub.Message{MessageID: id, Ack: hub.AckFull})
	m, ok, err := h.ReceiveMessage("d1", 0)
	if err != nil || !ok {
		t.Fatalf("ReceiveMessage: %t, %v", ok, err)
	}
	if err := h.CompleteMessage("d1", m.LockToken); err != nil {
		t.Fatal(err)
	}
}

// idsOf receives a batch and returns the messages that it is about.
func idsOf(t testing.TB, l *goamqp.Receiver) (*goamqp.Message, []string) {
	t.Helper()
	m, err := l.Receive(wiretest.WithPatience(t), nil)
	if err != nil {
		t.Fatalf("no feedback: %v", err)
	}
	var records []hub.Feedback
	if err := json.Unmarshal(m.GetData(), &records); err != nil {
		t.Fatalf("feedback %q: %v", m.GetData(), err)
	}
	var ids []string
	for _, r := range records {
		ids = append(ids, r.OriginalMessageID)
	}
	return m, ids
}

func wantIDs(t testing.TB, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("feedback is about (-want +got):\n%s", diff)
	}
}

func TestFeedbackMessage(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	l := dialService(t, h).Receiver("/messages/servicebound/feedback")
	completed(t, h, "m1")
	m, ids := idsOf(t, l)
	wantIDs(t, ids, "m1")
	if m.Properties == nil || m.Properties.ContentType == nil || *m.Properties.ContentType != "application/vnd.microsoft.iothub.feedback.json" || string(m.Properties.UserID) != "localhost" {
		t.Errorf("properties: %+v", m.Properties)
	}
	for _, name := range []string{"iothub-enqueuedtime", "x-opt-enqueued-time"} {
		if when, ok := m.Annotations[name].(time.Time); !ok || h.Now().Sub(when) > time.Minute {
			t.Errorf("%s is %v", name, m.Annotations[name])
		}
	}
	if len(m.DeliveryTag) != 16 {
		t.Errorf("the delivery tag is %x, want a GUID", m.DeliveryTag)
	}
	if err := l.AcceptMessage(wiretest.WithPatience(t), m); err != nil {
		t.Fatal(err)
	}
}

func TestFeedbackIsSettled(t *testing.T) {
	now := clock.New()
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Clock: now}))
	h.Device("d1")
	c := dialService(t, h)
	l := c.Receiver("/messages/serviceBound/feedback")
	ctx := wiretest.WithPatience(t)

	completed(t, h, "1")
	m, ids := idsOf(t, l)
	wantIDs(t, ids, "1")
	if err := l.ReleaseMessage(ctx, m); err != nil { // abandoned: it comes again
		t.Fatal(err)
	}
	m, ids = idsOf(t, l)
	wantIDs(t, ids, "1")
	if err := l.RejectMessage(ctx, m, nil); err != nil { // dropped
		t.Fatal(err)
	}
	completed(t, h, "2")
	now.Advance(15 * time.Second)
	m, ids = idsOf(t, l)
	wantIDs(t, ids, "2")
	if err := l.AcceptMessage(ctx, m); err != nil {
		t.Fatal(err)
	}
	completed(t, h, "3")
	now.Advance(15 * time.Second)
	m, ids = idsOf(t, l)
	wantIDs(t, ids, "3")
	if err := l.ModifyMessage(ctx, m, nil); err != nil { // as released
		t.Fatal(err)
	}
	_, ids = idsOf(t, l)
	wantIDs(t, ids, "3")
	now.Advance(time.Minute) // the lock ends, and nobody has said anything
	m, ids = idsOf(t, l)
	wantIDs(t, ids, "3")
	if err := l.AcceptMessage(ctx, m); err != nil {
		t.Fatal(err)
	}
}

// A link that goes gives back what it has not settled, and one without credit
// takes nothing that another could have.
func TestFeedbackGoesToWhoTakesIt(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	idle, err := dialService(t, h).NewReceiver(wiretest.WithPatience(t), "/messages/servicebound/feedback", &goamqp.ReceiverOptions{Credit: -1})
	if err != nil {
		t.Fatal(err)
	}
	c := dialService(t, h)
	l := c.Receiver("/messages/servicebound/feedback")
	completed(t, h, "1")
	_, ids := idsOf(t, l)
	wantIDs(t, ids, "1")
	c.Conn.Close() // without having settled it

	if err := idle.IssueCredit(1); err != nil {
		t.Fatal(err)
	}
	m, ids := idsOf(t, idle)
	wantIDs(t, ids, "1")
	if err := idle.AcceptMessage(wiretest.WithPatience(t), m); err != nil {
		t.Fatal(err)
	}
}

// A receiver that asks for settled deliveries has to settle nothing.
func TestFeedbackThatIsSettledAtOnce(t *testing.T) {
	now := clock.New()
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Clock: now}))
	h.Device("d1")
	l, err := dialService(t, h).NewReceiver(wiretest.WithPatience(t), "/messages/servicebound/feedback",
		&goamqp.ReceiverOptions{Credit: 10, RequestedSenderSettleMode: goamqp.SenderSettleModeSettled.Ptr()})
	if err != nil {
		t.Fatal(err)
	}
	completed(t, h, "1")
	_, ids := idsOf(t, l)
	wantIDs(t, ids, "1")
	completed(t, h, "2")
	now.Advance(15 * time.Second) // the first may not be settled yet, and stays locked
	_, ids = idsOf(t, l)
	wantIDs(t, ids, "2")
}

func TestFileNotificationsStayEmpty(t *testing.T) {
	h := hubtest.New(t)
	l := dialService(t, h).Receiver("/messages/serviceBound/filenotifications")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if m, err := l.Receive(ctx, nil); err == nil {
		t.Errorf("there is %+v", m)
	}
	if err := l.Close(wiretest.WithPatience(t)); err != nil {
		t.Error(err)
	}
}
