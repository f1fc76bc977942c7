package hubrest

import (
	"context"
	"net/http"
)

// A Module is a module identity: a part of a device with keys and a twin of its own. It holds keys: don't log it whole.
// A module has no status; it follows its device. See the article "Understand and use module twins in IoT Hub".
type Module struct {
	ModuleID                   string         `json:"moduleId"`
	DeviceID                   string         `json:"deviceId"`
	ManagedBy                  string         `json:"managedBy,omitempty"` // free text; IotEdge for what a deployment made
	GenerationID               string         `json:"generationId,omitempty"`
	ETag                       string         `json:"etag,omitempty"`            // without quotes
	ConnectionState            string         `json:"connectionState,omitempty"` // Connected or Disconnected
	ConnectionStateUpdatedTime Time           `json:"connectionStateUpdatedTime,omitzero"`
	LastActivityTime           Time           `json:"lastActivityTime,omitzero"`
	CloudToDeviceMessageCount  int            `json:"cloudToDeviceMessageCount"`
	Authentication             Authentication `json:"authentication,omitzero"`
}

// modulePath is the path of a module identity. Without a module id it can't be sent, where Target.path would be that of
// the device.
func modulePath(t Target) []string { return []string{"devices", t.DeviceID, "modules", t.ModuleID} }

// Module returns the identity of a module, or ErrNotFound.
func (c *Client) Module(ctx context.Context, t Target) (Module, error) {
	var m Module
	_, err := c.do(ctx, request{what: "get " + t.noun(), method: http.MethodGet, path: modulePath(t), repeat: repeatAlways}, &m)
	return m, err
}

// Modules returns the identities of all modules of a device.
func (c *Client) Modules(ctx context.Context, deviceID string) ([]Module, error) {
	t := Target{DeviceID: deviceID}
	var list []Module
	_, err := c.do(ctx, request{what: "list modules of " + t.noun(), method: http.MethodGet, path: append(t.path("devices"), "modules"), repeat: repeatAlways}, &list)
	return list, err
}

// CreateModule registers a module, of which only DeviceID and ModuleID are needed, as CreateDevice does a device. A
// device can have 50.
func (c *Client) CreateModule(ctx context.Context, m Module) (Module, error) {
	t := Target{m.DeviceID, m.ModuleID}
	var created Module
	_, err := c.do(ctx, request{what: "create " + t.noun(), method: http.MethodPut, path: modulePath(t), body: m, repeat: repeatRefused}, &created)
	return created, err
}

// UpdateModule replaces what can be changed of a module identity, on the condition that UpdateDevice has.
func (c *Client) UpdateModule(ctx context.Context, m Module) (Module, error) {
	t := Target{m.DeviceID, m.ModuleID}
	r := request{what: "update " + t.noun(), method: http.MethodPut, path: modulePath(t), body: m}
	r.condition(m.ETag)
	var updated Module
	_, err := c.do(ctx, r, &updated)
	return updated, err
}

// DeleteModule removes a module and its twin, if etag is that of its identity; an empty etag removes it in any case.
func (c *Client) DeleteModule(ctx context.Context, t Target, etag string) error {
	_, err := c.do(ctx, request{what: "delete " + t.noun(), method: http.MethodDelete, path: modulePath(t), ifMatch: quoteETag(etag), repeat: repeatAlways}, nil)
	return err
}
