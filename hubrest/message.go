package hubrest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Ack says which feedback the sender of a message wants.
type Ack string

// The kinds of feedback.
const (
	AckNone     Ack = "none"
	AckPositive Ack = "positive" // when the device took the message
	AckNegative Ack = "negative" // when it refused it, or it expired
	AckFull     Ack = "full"     // in both cases
)

// A Message goes from a service to a device. See the article "Understand cloud-to-device messaging from an IoT hub".
type Message struct {
	Body            []byte // up to 64 KiB
	ContentType     string
	ContentEncoding string
	MessageID       string
	CorrelationID   string
	UserID          string
	Ack             Ack       // empty: none
	Expiry          time.Time // when the hub may throw the message away; zero: the hub's default, one hour
	// Properties are the application's own. They travel as headers: names must be tokens as HTTP has them (letters,
	// digits and !#$%&'*+-.^_`|~) and may change their case, values lose the blanks at both ends.
	Properties map[string]string
}

// SendMessage puts a message into the queue of a device. It is sent once; after an error without an answer (a broken
// connection) the device may get it.
//
// Azure IoT Hub has this call without documenting it: its SDKs send these messages over AMQP.
func (c *Client) SendMessage(ctx context.Context, deviceID string, m Message) error {
	t := Target{DeviceID: deviceID}
	body := m.Body
	if body == nil {
		body = []byte{}
	}
	h := http.Header{"Content-Type": nil} // none but the caller's
	for name, value := range map[string]string{
		"Content-Type":         m.ContentType,
		"IoTHub-MessageId":     m.MessageID,
		"IoTHub-CorrelationId": m.CorrelationID,
		"IoTHub-UserId":        m.UserID,
		// Not "Content-Encoding", which is about how the body travels.
		"iothub-contentencoding": m.ContentEncoding,
		"IoTHub-Ack":             string(m.Ack),
	} {
		if value != "" {
			h[name] = []string{value}
		}
	}
	if !m.Expiry.IsZero() {
		h["IoTHub-Expiry"] = []string{m.Expiry.UTC().Format(time.RFC3339)}
	}
	for name, value := range m.Properties {
		h["iothub-app-"+name] = []string{value} // not in canonical form: who keeps the case shall see it
	}
	_, err := c.do(ctx, request{
		what:   "send message to " + t.noun(),
		method: http.MethodPost,
		path:   append(t.path("devices"), "messages", "deviceBound"),
		header: h,
		body:   body,
		repeat: repeatUnsent,
	}, nil)
	return err
}

// Feedback tells what became of one message.
type Feedback struct {
	OriginalMessageID  string `json:"originalMessageId"`
	EnqueuedTime       Time   `json:"enqueuedTimeUtc"` // when that became of it
	StatusCode         string `json:"statusCode"`      // Success, Expired, DeliveryCountExceeded, Rejected or Purged
	Description        string `json:"description"`
	DeviceID           string `json:"deviceId"`
	DeviceGenerationID string `json:"deviceGenerationId"`
}

// A FeedbackBatch is feedback the hub hands to one reader at a time. It comes again unless it is completed within a
// minute.
type FeedbackBatch struct {
	LockToken string
	Records   []Feedback
}

// ReceiveFeedback returns the next batch of feedback; one without records and token when there is none.
func (c *Client) ReceiveFeedback(ctx context.Context) (FeedbackBatch, error) {
	const what = "receive feedback"
	var b FeedbackBatch
	h, err := c.do(ctx, request{what: what, method: http.MethodGet, path: feedbackPath(), repeat: repeatAlways}, &b.Records)
	if err != nil || b.Records == nil {
		return FeedbackBatch{}, err
	}
	b.LockToken = strings.Trim(h.Get("ETag"), `"`)
	if b.LockToken == "" {
		return FeedbackBatch{}, errors.New(what + ": the hub sent no lock token")
	}
	return b, nil
}

// CompleteFeedback removes a batch. It fails with ErrPreconditionFailed when the minute has passed.
func (c *Client) CompleteFeedback(ctx context.Context, lockToken string) error {
	_, err := c.do(ctx, request{what: "complete feedback", method: http.MethodDelete, path: feedbackPath(lockToken), repeat: repeatRefused}, nil)
	return err
}

// AbandonFeedback gives a batch back at once, for another reader.
func (c *Client) AbandonFeedback(ctx context.Context, lockToken string) error {
	_, err := c.do(ctx, request{what: "abandon feedback", method: http.MethodPost, path: feedbackPath(lockToken, "abandon"), repeat: repeatRefused}, nil)
	return err
}

func feedbackPath(rest ...string) []string {
	return append([]string{"messages", "serviceBound", "feedback"}, rest...)
}

// checkHeader refuses what HTTP can't carry, before a connection is made for it.
func checkHeader(h http.Header) error {
	for name, values := range h {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
		}) {
			return fmt.Errorf("%q can't be the name of a header", name)
		}
		for _, v := range values {
			if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return fmt.Errorf("the header %s can't have control characters", name)
			}
		}
	}
	return nil
}
