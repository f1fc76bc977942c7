package hubamqp_test

import (
	"context"
	"errors"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubamqp"
)

func TestFeedbackIsGivenBack(t *testing.T) {
	h := hubtest.New(t)
	c := start(t, options(h, "service"))
	_, messages := device(t, h, "dev-1")
	if err := c.Send(within(t), hubamqp.Target{DeviceID: "dev-1"}, hubamqp.Message{MessageID: "m-1", Ack: hubamqp.AckFull}); err != nil {
		t.Fatal(err)
	}
	next(t, messages)
	receive := func(r *hubamqp.FeedbackReceiver) *hubamqp.FeedbackBatch {
		t.Helper()
		b, err := r.Receive(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Records) != 1 || b.Records[0].OriginalMessageID != "m-1" {
			t.Fatalf("feedback %+v, want that of m-1", b.Records)
		}
		return b
	}
	r := c.Feedback()
	if err := receive(r).Abandon(within(t)); err != nil {
		t.Fatal(err)
	}
	receive(r)
	r.Close() // with a batch that is not settled
	other := start(t, options(h, "service"))
	r = other.Feedback()
	defer r.Close()
	if err := receive(r).Reject(within(t)); err != nil {
		t.Fatal(err)
	}
}

func TestFeedbackRefused(t *testing.T) {
	h := hubtest.New(t)
	if _, err := start(t, options(h, "registryRead")).Feedback().Receive(within(t)); !errors.Is(err, hubamqp.ErrUnauthorized) {
		t.Errorf("Receive without the right returned %v, want %v", err, hubamqp.ErrUnauthorized)
	}
}

func TestFeedbackConnectsAgain(t *testing.T) {
	h := hubtest.New(t)
	cable := newCable(t, h.AMQPSAddr)
	opt := options(h, "service")
	opt.Addr, opt.Transport = cable.addr, hubamqp.TCP
	c := start(t, opt)
	r := c.Feedback()
	defer r.Close()
	got := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		for {
			b, err := r.Receive(ctx)
			if err != nil {
				ended <- err
				return
			}
			for _, f := range b.Records {
				got <- f.OriginalMessageID
			}
			b.Complete(ctx)
		}
	}()
	defer func() { cancel(); <-ended }()
	_, messages := device(t, h, "dev-1")
	for _, id := range []string{"m-1", "m-2"} {
		if err := h.SendMessage("dev-1", hub.Message{MessageID: id, Ack: hub.AckFull}); err != nil {
			t.Fatal(err)
		}
		next(t, messages)
		for next(t, got) != id {
			// That on m-1 may come again, if the hub did not hear that it was completed.
		}
		cable.cut()
	}
}
