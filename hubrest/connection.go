package hubrest

import (
	"context"
	"net/http"
)

// A Connection is what a hub of iotdm tells of the connection of a device or module, so that an operator sees why it
// isn't there.
type Connection struct {
	ConnectionState string    `json:"connectionState,omitempty"` // Connected or Disconnected
	Connection      *Link     `json:"connection,omitempty"`
	LastDisconnect  *Incident `json:"lastDisconnect,omitempty"`
	LastRefusal     *Incident `json:"lastRefusal,omitempty"`
}

// A Link is a connection that there is.
type Link struct {
	Since  Time   `json:"since"`
	Door   string `json:"door"`   // by which it came, such as mqtts or amqp-websocket
	Remote string `json:"remote"` // the peer's address
}

// An Incident is why a connection was refused or has ended.
type Incident struct {
	Time   Time   `json:"time"`
	Reason string `json:"reason"` // a word, as in the hub's metrics: unauthorized, taken_over, silent, ...
	Detail string `json:"detail"` // the same in full
	Door   string `json:"door"`
	Remote string `json:"remote"`
}

// A Refusal is an incident with whom the peer claimed to be, as far as that showed. There need not be such a device.
type Refusal struct {
	DeviceID string `json:"deviceId,omitempty"`
	ModuleID string `json:"moduleId,omitempty"`
	Incident
}

// Refusals are the last connections and credentials that a hub refused, the newest first, and how many it has refused
// since it was started, by reason.
type Refusals struct {
	Since  Time              `json:"since"`
	Counts map[string]uint64 `json:"counts"`
	Recent []Refusal         `json:"recent"`
}

// OwnHub reports whether an answer has come that shows that the hub is one of iotdm, which has calls that Azure IoT Hub
// hasn't.
func (c *Client) OwnHub() bool { return c.own.Load() }

// Connection returns what the hub knows of the connection of t, or ErrNotFound.
//
// Only the hub of iotdm has this call; see [Client.OwnHub].
func (c *Client) Connection(ctx context.Context, t Target) (Connection, error) {
	var v Connection
	_, err := c.do(ctx, request{what: "get the connection of " + t.noun(), method: http.MethodGet,
		path: append(append([]string{"iotdm"}, t.path("devices")...), "connection"), repeat: repeatAlways}, &v)
	return v, err
}

// Refusals returns what the hub has refused. Only the hub of iotdm has this call.
func (c *Client) Refusals(ctx context.Context) (Refusals, error) {
	var v Refusals
	_, err := c.do(ctx, request{what: "list refusals", method: http.MethodGet, path: []string{"iotdm", "refusals"}, repeat: repeatAlways}, &v)
	return v, err
}
