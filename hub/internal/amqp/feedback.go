package amqp

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// Paths of what services receive, and the type of feedback, which .NET's client
// insists on.
const (
	feedbackPath         = "/messages/servicebound/feedback"
	fileNotificationPath = "/messages/servicebound/filenotifications"
	feedbackType         = "application/vnd.microsoft.iothub.feedback.json"
)

// attachFeedback attaches a link on which a service receives feedback.
func (c *conn) attachFeedback(l *engine.Link) error {
	allowed := func() error {
		_, err := c.caller(hub.ReceiveFeedback, feedbackPath)
		return err
	}
	if err := allowed(); err != nil {
		return err
	}
	f := &feedback{conn: c, link: l}
	var ctx context.Context
	ctx, f.stop = context.WithCancel(c.door.ctx)
	if !c.door.running.Go(func() { f.send(ctx) }) {
		f.stop()
		return c.refusalOf(hub.ErrServiceUnavailable.With("%v", hub.ErrClosing))
	}
	l.Outlet = f
	c.guard(l, allowed)
	return nil
}

// feedback sends batches of feedback on a link. It waits for credit first, and
// only then takes a batch, so that it holds none that others could have.
type feedback struct {
	conn *conn
	link *engine.Link
	stop context.CancelFunc

	mu       sync.Mutex // guards what follows
	detached bool
	held     []hub.FeedbackBatch // sent, and not settled
}

// send sends until the link has ended.
func (f *feedback) send(ctx context.Context) {
	for f.link.Wait(ctx) == nil {
		batch, err := f.conn.door.hub.NextFeedback(ctx)
		if err != nil {
			if ctx.Err() == nil {
				f.link.Detach(f.conn.refusalOf(err))
			}
			return
		}
		f.give(batch)
	}
}

// give sends a batch. What can no longer be sent is given back.
func (f *feedback) give(batch hub.FeedbackBatch) {
	if !f.hold(batch) || !f.link.Send(f.encode(batch), deliveryTag(batch.LockToken), false, batch.LockToken) {
		f.settle(batch.LockToken, f.conn.door.hub.AbandonFeedback)
		return
	}
	if mode := f.link.SndSettleMode; mode != nil && *mode == wire.SndSettled {
		f.settle(batch.LockToken, f.conn.door.hub.CompleteFeedback)
	}
}

// hold notes that a batch is being sent, unless the link has ended. Batches whose
// lock has ended come again, to whoever is next: they are forgotten.
func (f *feedback) hold(batch hub.FeedbackBatch) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.conn.door.hub.Now()
	var late []string
	f.held = slices.DeleteFunc(f.held, func(b hub.FeedbackBatch) bool {
		if b.Until.After(now) {
			return false
		}
		late = append(late, b.LockToken)
		return true
	})
	for _, token := range late {
		f.link.Unsettle(token)
	}
	if f.detached {
		return false
	}
	f.held = append(f.held, hub.FeedbackBatch{LockToken: batch.LockToken, Until: batch.Until})
	return true
}

// settle tells the rules what became of a batch, and reports whether they knew
// it.
func (f *feedback) settle(token string, by func(string) error) (known bool) {
	f.mu.Lock()
	f.held = slices.DeleteFunc(f.held, func(b hub.FeedbackBatch) bool { return b.LockToken == token })
	f.mu.Unlock()
	err := by(token)
	if err != nil && !errors.Is(err, hub.ErrMessageLockLost) {
		f.conn.door.log.Error("settling feedback", words.LogReason, err)
	}
	return err == nil
}

// encode prints a batch.
func (f *feedback) encode(batch hub.FeedbackBatch) []byte {
	now := f.conn.door.hub.Now()
	body, _ := json.Marshal(batch.Records) // of strings and times: it cannot fail
	name, _, _ := strings.Cut(f.conn.host, ".")
	return wire.AppendMessage(nil, &wire.Message{
		Annotations: wire.Map{
			{Key: wire.Symbol("iothub-enqueuedtime"), Value: now},
			{Key: wire.Symbol("x-opt-enqueued-time"), Value: now},
		},
		Properties: &wire.Properties{MessageID: batch.LockToken, UserID: []byte(name), ContentType: feedbackType, CreationTime: now},
		Data:       [][]byte{body},
	})
}

// Ready implements engine.Outlet: send waits by itself.
func (*feedback) Ready() {}

// Settled implements engine.Outlet.
func (f *feedback) Settled(ref any, state wire.State) wire.State {
	token, ok := ref.(string)
	if !ok {
		return nil
	}
	by := f.conn.door.hub.CompleteFeedback // who rejects it does not want it either
	switch s := state.(type) {
	case wire.Released:
		by = f.conn.door.hub.AbandonFeedback
	case *wire.Modified:
		if !s.UndeliverableHere {
			by = f.conn.door.hub.AbandonFeedback
		}
	}
	if !f.settle(token, by) {
		return &wire.Rejected{Error: refuse(condLockLost, "the lock of the feedback has ended")}
	}
	return nil
}

// Detached implements engine.Outlet. What was not settled is given back.
func (f *feedback) Detached() {
	f.stop()
	f.mu.Lock()
	f.detached = true
	held := f.held
	f.held = nil
	f.mu.Unlock()
	for _, b := range held {
		f.settle(b.LockToken, f.conn.door.hub.AbandonFeedback)
	}
}

// attachFileNotifications attaches a link on which a service would be told of
// files that devices have uploaded. There are none here, but a service that asks
// for both need not be refused feedback.
func (c *conn) attachFileNotifications(l *engine.Link) error {
	allowed := func() error {
		_, err := c.caller(hub.ReceiveFileNotifications, fileNotificationPath)
		return err
	}
	if err := allowed(); err != nil {
		return err
	}
	l.Outlet = noNotifications{}
	c.guard(l, allowed)
	return nil
}

// noNotifications is a link on which nothing comes.
type noNotifications struct{}

// Ready implements engine.Outlet.
func (noNotifications) Ready() {}

// Settled implements engine.Outlet.
func (noNotifications) Settled(any, wire.State) wire.State { return nil }

// Detached implements engine.Outlet.
func (noNotifications) Detached() {}
