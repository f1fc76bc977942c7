package hubrest

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/iotdm/iotdm/sas"
)

// Status says whether a device may connect.
type Status string

// The two statuses of a device.
const (
	Enabled  Status = "enabled"
	Disabled Status = "disabled"
)

// AuthenticationType says how a device or module proves who it is.
type AuthenticationType string

// The ways to authenticate.
const (
	AuthSAS                  AuthenticationType = "sas"
	AuthSelfSigned           AuthenticationType = "selfSigned"
	AuthCertificateAuthority AuthenticationType = "certificateAuthority"
	AuthNone                 AuthenticationType = "none"
)

// A Device is a device identity: an entry of the hub's identity registry. It holds keys: don't log it whole.
//
// The hub keeps GenerationID, ETag, ConnectionState, the times and CloudToDeviceMessageCount; it ignores them in what
// it is sent. See the article "Understand the identity registry in your IoT hub".
type Device struct {
	DeviceID                   string         `json:"deviceId"`
	GenerationID               string         `json:"generationId,omitempty"`    // another one when the device is created anew
	ETag                       string         `json:"etag,omitempty"`            // without quotes
	ConnectionState            string         `json:"connectionState,omitempty"` // Connected or Disconnected
	Status                     Status         `json:"status,omitempty"`          // empty when sent: Enabled
	StatusReason               string         `json:"statusReason,omitempty"`    // up to 128 characters
	ConnectionStateUpdatedTime Time           `json:"connectionStateUpdatedTime,omitzero"`
	StatusUpdatedTime          Time           `json:"statusUpdatedTime,omitzero"`
	LastActivityTime           Time           `json:"lastActivityTime,omitzero"`
	CloudToDeviceMessageCount  int            `json:"cloudToDeviceMessageCount"` // messages that wait for the device
	Authentication             Authentication `json:"authentication,omitzero"`
	Capabilities               Capabilities   `json:"capabilities"`
	DeviceScope                string         `json:"deviceScope,omitempty"` // of an IoT Edge device, or of its child
	ParentScopes               []string       `json:"parentScopes,omitempty"`
}

// Authentication is how a device or module proves who it is. Its zero value, sent with a new identity, means SAS with
// keys made by the hub.
type Authentication struct {
	SymmetricKey   SymmetricKey       `json:"symmetricKey,omitzero"`
	X509Thumbprint X509Thumbprint     `json:"x509Thumbprint,omitzero"`
	Type           AuthenticationType `json:"type,omitempty"`
}

// SymmetricKey holds the two keys that sign tokens; either is valid.
type SymmetricKey struct {
	PrimaryKey   sas.Key `json:"primaryKey,omitempty"`
	SecondaryKey sas.Key `json:"secondaryKey,omitempty"`
}

// Renew puts new keys in the place of those that which names. They count once the identity is updated.
func (k *SymmetricKey) Renew(which PolicyKey) {
	if which != SecondaryKey {
		k.PrimaryKey = sas.NewKey()
	}
	if which != PrimaryKey {
		k.SecondaryKey = sas.NewKey()
	}
}

// Swap has the keys change places.
func (k *SymmetricKey) Swap() { k.PrimaryKey, k.SecondaryKey = k.SecondaryKey, k.PrimaryKey }

// X509Thumbprint holds the SHA-1 or SHA-256 of two certificates, in hexadecimal; either is valid.
type X509Thumbprint struct {
	PrimaryThumbprint   string `json:"primaryThumbprint,omitempty"`
	SecondaryThumbprint string `json:"secondaryThumbprint,omitempty"`
}

// Capabilities tell what a device is besides a device.
type Capabilities struct {
	IoTEdge bool `json:"iotEdge"`
}

// Device returns the identity of a device, or ErrNotFound.
func (c *Client) Device(ctx context.Context, id string) (Device, error) {
	t := Target{DeviceID: id}
	var d Device
	_, err := c.do(ctx, request{what: "get " + t.noun(), method: http.MethodGet, path: t.path("devices"), repeat: repeatAlways}, &d)
	return d, err
}

// CreateDevice registers a device and returns its identity with the keys it got. Only DeviceID is needed. It answers
// ErrAlreadyExists for a device that is there; after an error without an answer (a broken connection) the device may
// have been created.
func (c *Client) CreateDevice(ctx context.Context, d Device) (Device, error) {
	t := Target{DeviceID: d.DeviceID}
	var created Device
	_, err := c.do(ctx, request{what: "create " + t.noun(), method: http.MethodPut, path: t.path("devices"), body: d, repeat: repeatRefused}, &created)
	return created, err
}

// UpdateDevice replaces what can be changed of an identity (take it from Device, change it, send it back whole), if
// d.ETag is still that of the identity (else ErrPreconditionFailed); an empty ETag replaces whatever is there.
func (c *Client) UpdateDevice(ctx context.Context, d Device) (Device, error) {
	t := Target{DeviceID: d.DeviceID}
	r := request{what: "update " + t.noun(), method: http.MethodPut, path: t.path("devices"), body: d}
	r.condition(d.ETag)
	var updated Device
	_, err := c.do(ctx, r, &updated)
	return updated, err
}

// DeleteDevice removes a device with its modules, twins and waiting messages, if etag is that of its identity; an empty
// etag removes it in any case.
func (c *Client) DeleteDevice(ctx context.Context, id, etag string) error {
	t := Target{DeviceID: id}
	_, err := c.do(ctx, request{what: "delete " + t.noun(), method: http.MethodDelete, path: t.path("devices"), ifMatch: quoteETag(etag), repeat: repeatAlways}, nil)
	return err
}

// Devices returns up to top identities in no particular order; 0, like anything over 1,000, means 1,000. The hub has no
// second page of them: to see every device of a large hub, query.
func (c *Client) Devices(ctx context.Context, top int) ([]Device, error) {
	r := request{what: "list devices", method: http.MethodGet, path: []string{"devices"}, repeat: repeatAlways}
	if top > 0 {
		r.query = url.Values{"top": {strconv.Itoa(top)}}
	}
	var list []Device
	_, err := c.do(ctx, r, &list)
	return list, err
}

// condition makes r, which replaces or patches something, depend on etag. After an unconditional request of that kind
// another one leaves the same state; a conditional one would not find its etag again and call it a conflict.
func (r *request) condition(etag string) {
	r.ifMatch = quoteETag(etag)
	r.repeat = repeatRefused
	if r.ifMatch == "*" {
		r.repeat = repeatAlways
	}
}
