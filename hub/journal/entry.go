package journal

import (
	"encoding/base64"
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// A Kind is what an entry is about.
type Kind string

// The kinds.
const (
	REST         Kind = "rest"         // a request over HTTPS, of a service or a device
	Connection   Kind = "connection"   // a device connected, was refused, or disconnected
	Subscription Kind = "subscription" // a device began or ended to receive something
	Telemetry    Kind = "telemetry"    // a message from a device
	Twin         Kind = "twin"         // a device got its twin or reported, or was told of desired properties
	Method       Kind = "method"       // a direct method was called, or answered
	Message      Kind = "message"      // a cloud-to-device message
)

// Kinds are all kinds, in the order of the documents.
var Kinds = []Kind{REST, Connection, Subscription, Telemetry, Twin, Method, Message}

// What happened, of the entries of a kind. Those about requests have a status instead of a word of their own when
// they were refused.
const (
	Requested    = "requested"    // rest
	Connected    = "connected"    // connection
	Refused      = "refused"      // connection, telemetry
	Disconnected = "disconnected" // connection
	Subscribed   = "subscribed"   // subscription
	Unsubscribed = "unsubscribed" // subscription
	Received     = "received"     // telemetry
	Got          = "got"          // twin: the device got it
	Reported     = "reported"     // twin: the device patched its reported properties
	Desired      = "desired"      // twin: the device was sent desired properties
	Called       = "called"       // method: somebody called it
	Answered     = "answered"     // method: what came of that
	Queued       = "queued"       // message: a service sent it
	Delivered    = "delivered"    // message: the device was sent it
	Completed    = "completed"    // message: the device took it
	Rejected     = "rejected"     // message: the device did not want it
	Abandoned    = "abandoned"    // message: the device gave it back, to get it again
	Dropped      = "dropped"      // message: it expired, was purged, or was abandoned too often
)

// An Entry is one thing that was asked of a hub, or that it did. What does not apply is empty.
type Entry struct {
	Number uint64    `json:"number"` // counts from 1, without gaps
	Time   time.Time `json:"time"`   // by the hub's clock
	On     Kind      `json:"on"`
	What   string    `json:"what"`

	Device string `json:"deviceId,omitempty"`
	Module string `json:"moduleId,omitempty"`
	Door   string `json:"door,omitempty"` // by which it came, as in the metrics: mqtts, mqtt, amqps, amqp, websocket, https

	Verb      string `json:"verb,omitempty"` // of a request
	Path      string `json:"path,omitempty"`
	Query     string `json:"query,omitempty"`
	Caller    string `json:"caller,omitempty"` // the policy, principal or device that asked
	UserAgent string `json:"userAgent,omitempty"`

	Name      string `json:"name,omitempty"`      // of a direct method; a topic filter or an address
	MessageID string `json:"messageId,omitempty"` // of a message from or to a device
	Status    int    `json:"status,omitempty"`    // a request's, a twin operation's; the device's own of a direct method
	Reason    string `json:"reason,omitempty"`    // why it was refused, or ended

	System     map[string]string `json:"system,omitempty"`     // system properties of a message
	Properties map[string]string `json:"properties,omitempty"` // of the application

	Body Body `json:"-"`
}

// ID returns the identity the entry is about as "device" or "device/module".
func (e *Entry) ID() string {
	if e.Module == "" {
		return e.Device
	}
	return e.Device + "/" + e.Module
}

// MarshalJSON prints the entry. A body that is JSON is "body" as it is, one that is text is a JSON string there, and any
// other is in base64 as "bodyBase64". "bodySize" is the size of one that was not kept, or not as a whole.
func (e Entry) MarshalJSON() ([]byte, error) {
	type entry Entry
	doc := struct {
		entry
		Body   any    `json:"body,omitempty"`
		Base64 string `json:"bodyBase64,omitempty"`
		Size   int    `json:"bodySize,omitempty"`
	}{entry: entry(e)}
	doc.Time = e.Time.UTC()
	kept := e.Body.kept
	switch {
	case len(kept) == 0:
	case !utf8.Valid(kept):
		doc.Base64 = base64.StdEncoding.EncodeToString(kept)
	case json.Valid(kept):
		doc.Body = json.RawMessage(kept)
	default:
		doc.Body = string(kept)
	}
	if !e.Body.Whole() {
		doc.Size = e.Body.size
	}
	return jsontext.Marshal(doc)
}
