package hubamqp

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/iotdm/iotdm/internal/wait"
)

// Feedback tells what became of one message.
type Feedback struct {
	OriginalMessageID  string
	EnqueuedTime       time.Time // when that became of it
	StatusCode         string    // Success, Expired, DeliveryCountExceeded, Rejected or Purged
	Description        string
	DeviceID           string
	DeviceGenerationID string
}

// UnmarshalJSON reads a record as the hub writes it.
func (f *Feedback) UnmarshalJSON(b []byte) error {
	var wire struct {
		OriginalMessageID  string `json:"originalMessageId"`
		EnqueuedTime       string `json:"enqueuedTimeUtc"`
		StatusCode         any    `json:"statusCode"`
		Description        string `json:"description"`
		DeviceID           string `json:"deviceId"`
		DeviceGenerationID string `json:"deviceGenerationId"`
	}
	if err := json.Unmarshal(b, &wire); err != nil {
		return err
	}
	*f = Feedback{OriginalMessageID: wire.OriginalMessageID, Description: wire.Description, DeviceID: wire.DeviceID, DeviceGenerationID: wire.DeviceGenerationID}
	if wire.StatusCode != nil {
		f.StatusCode = fmt.Sprint(wire.StatusCode)
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05"} { // without a zone it is UTC
		if t, err := time.Parse(layout, wire.EnqueuedTime); err == nil {
			f.EnqueuedTime = t.UTC()
		}
	}
	return nil
}

// A FeedbackReceiver takes the feedback of messages that were sent with an Ack. Each batch goes to one receiver of the
// hub. It is for one goroutine, but for Close.
type FeedbackReceiver struct {
	c *Client

	mu      sync.Mutex
	link    *amqp.Receiver // nil: none yet
	session *amqp.Session  // that of link
	conn    *connection    // that of both
}

// A FeedbackBatch has to be completed, abandoned or rejected within a minute; otherwise it comes again.
type FeedbackBatch struct {
	Records  []Feedback
	Enqueued time.Time // when the hub put them together

	link    *amqp.Receiver
	message *amqp.Message
}

// Feedback returns a receiver of feedback. It connects when it is first used.
func (c *Client) Feedback() *FeedbackReceiver { return &FeedbackReceiver{c: c} }

// Receive waits for the next batch. When the connection is lost it makes another one, unless it was never made: then
// it fails at once. It also fails with what would only come back the same, such as ErrUnauthorized.
func (r *FeedbackReceiver) Receive(ctx context.Context) (*FeedbackBatch, error) {
	ctx, cancel := r.c.while(ctx)
	defer cancel()
	b, err := r.receive(ctx)
	if err != nil {
		return nil, fmt.Errorf("receive feedback: %w", err)
	}
	r.c.log.Debug("feedback received", keyRecords, len(b.Records))
	return b, nil
}

func (r *FeedbackReceiver) receive(ctx context.Context) (*FeedbackBatch, error) {
	first := r.link == nil
	for pauses := newPauses(); ; {
		link, err := r.attach(ctx)
		if err == nil {
			first = false
			pauses.Reset()
			var m *amqp.Message
			if m, err = link.Receive(ctx, nil); err == nil {
				return newFeedbackBatch(link, m), nil
			}
			err = wireError(ctx, err)
		}
		r.detach()
		if over(ctx) {
			return nil, context.Cause(ctx)
		}
		if first || final(err) {
			return nil, err
		}
		delay := pauses.NextBackOff()
		r.c.log.Warn("receiving feedback is interrupted", keyErr, err, keyWait, delay)
		if err := wait.For(ctx, delay); err != nil {
			return nil, err
		}
	}
}

// attach returns the link for feedback, a new one if there is none.
func (r *FeedbackReceiver) attach(ctx context.Context) (*amqp.Receiver, error) {
	r.mu.Lock()
	link := r.link
	r.mu.Unlock()
	if link != nil {
		return link, nil
	}
	conn, err := r.c.connect(ctx)
	if err != nil {
		return nil, err
	}
	session, err := conn.amqp.NewSession(ctx, nil)
	if err != nil {
		return nil, wireError(ctx, err)
	}
	// One batch at a time: what this receiver has not got yet may go to another one.
	if link, err = session.NewReceiver(ctx, "/messages/servicebound/feedback", &amqp.ReceiverOptions{Credit: 1}); err != nil {
		return nil, wireError(ctx, err)
	}
	r.mu.Lock()
	r.link, r.session, r.conn = link, session, conn
	r.mu.Unlock()
	return link, nil
}

// detach gives the link back, and with it what was not completed.
func (r *FeedbackReceiver) detach() {
	r.mu.Lock()
	session, conn := r.session, r.conn
	r.link, r.session, r.conn = nil, nil, nil
	r.mu.Unlock()
	if session != nil {
		conn.end(session)
	}
}

// Close gives back what was received and not completed.
func (r *FeedbackReceiver) Close() { r.detach() }

func newFeedbackBatch(link *amqp.Receiver, m *amqp.Message) *FeedbackBatch {
	b := &FeedbackBatch{link: link, message: m}
	_ = json.Unmarshal(join(m.Data), &b.Records) // what is no feedback has no records
	for _, name := range []string{"iothub-enqueuedtime", "x-opt-enqueued-time"} {
		if t, ok := m.Annotations[name].(time.Time); ok {
			b.Enqueued = t.UTC()
		}
	}
	return b
}

// Complete removes the batch. If its minute has passed it comes again all the same; the hub does not say so.
func (b *FeedbackBatch) Complete(ctx context.Context) error {
	return b.settled(ctx, "complete", b.link.AcceptMessage(ctx, b.message))
}

// Abandon gives the batch back at once, for this receiver or another one.
func (b *FeedbackBatch) Abandon(ctx context.Context) error {
	return b.settled(ctx, "abandon", b.link.ReleaseMessage(ctx, b.message))
}

// Reject removes the batch as one that could not be handled.
func (b *FeedbackBatch) Reject(ctx context.Context) error {
	return b.settled(ctx, "reject", b.link.RejectMessage(ctx, b.message, nil))
}

func (b *FeedbackBatch) settled(ctx context.Context, what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s feedback: %w", what, wireError(ctx, err))
	}
	return nil
}
