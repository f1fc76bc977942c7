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

// A Node is one of the nodes of a hub.
type Node struct {
	Name   string `json:"name"`
	Epoch  uint64 `json:"epoch"` // rises over all nodes each time that one joins
	Host   string `json:"host"`  // the name of its machine; empty if it is not known
	Joined Time   `json:"joined"`
	Leads  bool   `json:"leads"`           // it does what one node does for all
	Self   bool   `json:"self"`            // it has answered
	Silent int    `json:"silentInSeconds"` // since it was last heard of, while others were
}

// Nodes returns the nodes of a hub that has several, and none for others. Only the hub of iotdm has this call.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	var nodes []Node
	_, err := c.do(ctx, request{what: "list the nodes", method: http.MethodGet, path: []string{"iotdm", "nodes"}, repeat: repeatAlways}, &nodes)
	return nodes, err
}

// Traffic is what goes through a hub: how much since it was started, and who is connected now. Two readings make a rate.
type Traffic struct {
	ConnectedDevices int64  `json:"connectedDeviceCount"`
	ConnectedModules int64  `json:"connectedModuleCount"`
	Telemetry        uint64 `json:"telemetry"`      // messages of devices that were stored
	MethodCalls      uint64 `json:"methodCalls"`    // direct methods that ended
	MethodFailures   uint64 `json:"methodFailures"` // of these, without an answer of the device
	TwinWrites       uint64 `json:"twinWrites"`
	MessagesSent     uint64 `json:"messagesSent"` // to devices, put into a queue
}

// Traffic returns what goes through the hub. Only the hub of iotdm has this call.
func (c *Client) Traffic(ctx context.Context) (Traffic, error) {
	var v Traffic
	_, err := c.do(ctx, request{what: "read the traffic", method: http.MethodGet, path: []string{"iotdm", "traffic"}, repeat: repeatAlways}, &v)
	return v, err
}
