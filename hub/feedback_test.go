package hub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// feedbackOf completes the feedback that waits and returns what it says, by
// message.
func feedbackOf(t testing.TB, h *node.Node) map[string]string {
	t.Helper()
	batch, ok, err := h.ReceiveFeedback()
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return nil
	}
	got := map[string]string{}
	for _, f := range batch.Records {
		got[f.OriginalMessageID] = string(f.StatusCode)
	}
	if err := h.CompleteFeedback(batch.LockToken); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFeedbackTellsWhatBecameOfMessages(t *testing.T) {
	now := clock.New()
	h := wiretest.NewNode(t, node.Options{Clock: now})
	wiretest.Create(t, h, hub.ID{Device: "d1"}, hub.IdentitySpec{})
	wants := func(outcome string) map[string]string {
		success := outcome == "Success"
		want := map[string]string{outcome + "-full": outcome}
		if success {
			want[outcome+"-positive"] = outcome
		} else {
			want[outcome+"-negative"] = outcome
		}
		return want
	}
	for outcome, bring := range map[string]func(m hub.ReceivedMessage) error{
		"Success":  func(m hub.ReceivedMessage) error { return h.CompleteMessage("d1", m.LockToken) },
		"Rejected": func(m hub.ReceivedMessage) error { return h.RejectMessage("d1", m.LockToken) },
		"DeliveryCountExceeded": func(m hub.ReceivedMessage) error {
			for range 9 {
				if err := h.AbandonMessage("d1", m.LockToken); err != nil {
					return err
				}
				again := receivedOf(t, h, "d1")
				if again.MessageID != m.MessageID {
					t.Errorf("after abandon comes %s, want %s", again.MessageID, m.MessageID)
				}
				m = again
			}
			return h.AbandonMessage("d1", m.LockToken)
		},
		"Expired": nil,
		"Purged":  nil,
	} {
		t.Run(outcome, func(t *testing.T) {
			now.Advance(time.Minute) // after the last batch
			for _, ack := range []hub.Ack{"", hub.AckNone, hub.AckPositive, hub.AckNegative, hub.AckFull} {
				wiretest.SendMessage(t, h, "d1", hub.Message{MessageID: outcome + "-" + string(ack), Ack: ack, Expires: now.Now().Add(time.Hour)})
			}
			switch outcome {
			case "Expired":
				now.Advance(time.Hour)
				h.SweepQueues()
			case "Purged":
				receivedOf(t, h, "d1") // what a device has in hand goes too
				if n, err := h.PurgeMessages("d1"); n != 5 || err != nil {
					t.Errorf("PurgeMessages: %d, %v, want 5", n, err)
				}
			default:
				for range 5 {
					if err := bring(receivedOf(t, h, "d1")); err != nil {
						t.Fatal(err)
					}
				}
			}
			wiretest.WantPending(t, h, "d1", 0)
			if diff := cmp.Diff(wants(outcome), feedbackOf(t, h)); diff != "" {
				t.Errorf("feedback (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFeedbackComesInBatches(t *testing.T) {
	now := clock.New()
	h := wiretest.NewNode(t, node.Options{Clock: now})
	var want []string
	for i := range 70 {
		device := fmt.Sprintf("d%d", i%7)
		if i < 7 {
			wiretest.Create(t, h, hub.ID{Device: device}, hub.IdentitySpec{})
		}
		wiretest.SendMessage(t, h, device, hub.Message{MessageID: fmt.Sprint(i), Ack: hub.AckPositive})
		if err := h.CompleteMessage(device, receivedOf(t, h, device).LockToken); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprint(i))
	}
	receive := func() (ids []string, token string) {
		t.Helper()
		b, _, err := h.ReceiveFeedback()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range b.Records {
			ids = append(ids, f.OriginalMessageID)
		}
		return ids, b.LockToken
	}
	first, lock := receive()
	if diff := cmp.Diff(want[:64], first); diff != "" {
		t.Errorf("first batch (-want +got):\n%s", diff)
	}
	if rest, _ := receive(); rest != nil {
		t.Errorf("%d records come at once after the first batch", len(rest))
	}
	now.Advance(15 * time.Second)
	rest, _ := receive()
	if diff := cmp.Diff(want[64:], rest); diff != "" {
		t.Errorf("second batch (-want +got):\n%s", diff)
	}
	if err := h.AbandonFeedback(lock); err != nil {
		t.Fatal(err)
	}
	again, lock := receive()
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("abandoned batch (-want +got):\n%s", diff)
	}
	if err := h.CompleteFeedback(lock); err != nil {
		t.Fatal(err)
	}
	if err := h.CompleteFeedback(lock); !errors.Is(err, hub.ErrMessageLockLost) {
		t.Errorf("completing twice: %v, want %v", err, hub.ErrMessageLockLost)
	}
	now.Advance(time.Minute) // the lock of the second batch ends
	if err := h.DeleteIdentity(hub.ID{Device: "d1"}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	last, _ := receive()
	want = slices.DeleteFunc(want[64:], func(id string) bool { return id == "64" }) // 64 was for d1
	if diff := cmp.Diff(want, last); diff != "" {
		t.Errorf("last batch (-want +got):\n%s", diff)
	}
	now.Advance(2 * time.Hour)
	h.SweepQueues()
	if old, _ := receive(); old != nil {
		t.Errorf("feedback is left after two hours: %v", old)
	}
}

// Whoever waits for feedback gets it when it has come to a batch: the first
// record at once, more after 15 seconds or when there are enough, and what was
// given back or not settled in time again.
func TestNextFeedbackWaits(t *testing.T) {
	now := clock.New()
	h := wiretest.NewNode(t, node.Options{Clock: now})
	wiretest.Create(t, h, hub.ID{Device: "d1"}, hub.IdentitySpec{})
	complete := func(ids ...string) {
		t.Helper()
		for _, id := range ids {
			wiretest.SendMessage(t, h, "d1", hub.Message{MessageID: id, Ack: hub.AckPositive})
			if err := h.CompleteMessage("d1", receivedOf(t, h, "d1").LockToken); err != nil {
				t.Fatal(err)
			}
		}
	}
	batches := make(chan hub.FeedbackBatch)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		for {
			b, err := h.NextFeedback(ctx)
			if err != nil {
				ended <- err
				return
			}
			batches <- b
		}
	}()
	next := func(want ...string) (token string) {
		t.Helper()
		select {
		case b := <-batches:
			var got []string
			for _, f := range b.Records {
				got = append(got, f.OriginalMessageID)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("feedback (-want +got):\n%s", diff)
			}
			if d := b.Until.Sub(now.Now()); d <= 0 || d > time.Minute {
				t.Errorf("it is locked for %v", d)
			}
			return b.LockToken
		case <-time.After(wiretest.Patience):
			t.Fatalf("no feedback, want %v", want)
		}
		return ""
	}
	complete("1")
	first := next("1")
	complete("2", "3")
	select {
	case b := <-batches:
		t.Fatalf("%d records came before 15 seconds were over", len(b.Records))
	default:
	}
	now.Advance(15 * time.Second)
	if err := h.CompleteFeedback(next("2", "3")); err != nil {
		t.Fatal(err)
	}
	if err := h.AbandonFeedback(first); err != nil {
		t.Fatal(err)
	}
	next("1")
	now.Advance(time.Minute) // the lock
	if err := h.CompleteFeedback(next("1")); err != nil {
		t.Fatal(err)
	}
	var many []string
	for i := range 64 {
		many = append(many, fmt.Sprint("m", i))
	}
	complete(many...)
	next(many...)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("NextFeedback: %v, want %v", err, context.Canceled)
	}
}
