package rest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/twin"
)

// maxListed is how many identities a list shows at most; see "Understand the
// identity registry".
const maxListed = 1000

// A deviceDoc is a device identity as the service prints it. The order of the
// members is the service's.
type deviceDoc struct {
	DeviceID          string             `json:"deviceId"`
	GenerationID      string             `json:"generationId"`
	ETag              string             `json:"etag"`
	ConnectionState   string             `json:"connectionState"`
	Status            hub.Status         `json:"status"`
	StatusReason      *string            `json:"statusReason"`
	ConnectionUpdated string             `json:"connectionStateUpdatedTime"`
	StatusUpdated     string             `json:"statusUpdatedTime"`
	LastActivity      string             `json:"lastActivityTime"`
	PendingMessages   int                `json:"cloudToDeviceMessageCount"`
	Authentication    hub.Authentication `json:"authentication"`
	Capabilities      hub.Capabilities   `json:"capabilities"`
	DeviceScope       string             `json:"deviceScope,omitempty"`
	ParentScopes      []string           `json:"parentScopes"`
}

func (d *Door) deviceDoc(i hub.Identity) deviceDoc {
	state := d.hub.ConnectionState(i.ID)
	parents := i.ParentScopes
	if parents == nil {
		parents = []string{}
	}
	return deviceDoc{
		DeviceID: i.Device, GenerationID: i.GenerationID, ETag: i.ETag(),
		ConnectionState: state.String(), Status: i.Status, StatusReason: i.StatusReason,
		ConnectionUpdated: twin.FormatTime(state.Changed), StatusUpdated: twin.FormatTime(i.StatusUpdated),
		LastActivity: twin.FormatTime(state.LastActivity), PendingMessages: state.PendingMessages,
		Authentication: i.Auth, Capabilities: hub.Capabilities{IoTEdge: i.IoTEdge},
		DeviceScope: i.DeviceScope, ParentScopes: parents,
	}
}

// A moduleDoc is a module identity as the service prints it.
type moduleDoc struct {
	ModuleID          string             `json:"moduleId"`
	ManagedBy         *string            `json:"managedBy"`
	DeviceID          string             `json:"deviceId"`
	GenerationID      string             `json:"generationId"`
	ETag              string             `json:"etag"`
	ConnectionState   string             `json:"connectionState"`
	ConnectionUpdated string             `json:"connectionStateUpdatedTime"`
	LastActivity      string             `json:"lastActivityTime"`
	PendingMessages   int                `json:"cloudToDeviceMessageCount"`
	Authentication    hub.Authentication `json:"authentication"`
}

func (d *Door) moduleDoc(i hub.Identity) moduleDoc {
	state := d.hub.ConnectionState(i.ID)
	return moduleDoc{
		ModuleID: i.Module, ManagedBy: i.ManagedBy, DeviceID: i.Device, GenerationID: i.GenerationID, ETag: i.ETag(),
		ConnectionState: state.String(), ConnectionUpdated: twin.FormatTime(state.Changed),
		LastActivity: twin.FormatTime(state.LastActivity), PendingMessages: state.PendingMessages,
		Authentication: i.Auth,
	}
}

// An identityInput is what a caller may say of an identity. Everything else in
// a document, etag included, is read-only and ignored: clients send back what
// they were given.
type identityInput struct {
	DeviceID       string               `json:"deviceId"`
	ModuleID       string               `json:"moduleId"`
	ManagedBy      *string              `json:"managedBy"`
	Status         string               `json:"status"`
	StatusReason   *string              `json:"statusReason"`
	Authentication *authenticationInput `json:"authentication"`
	Capabilities   *hub.Capabilities    `json:"capabilities"`
	DeviceScope    *string              `json:"deviceScope"`
	ParentScopes   few[string]          `json:"parentScopes"`
}

// An authenticationInput is what a caller may say of credentials.
type authenticationInput struct {
	hub.Authentication

	// newKeys is whether a key is given as an empty text, which makes new ones
	// in the place of those that are there: the tests of the Azure CLI reset
	// keys so. That keys which are null or absent stay is assumed.
	newKeys bool
}

func (in *authenticationInput) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, &in.Authentication); err != nil {
		return err
	}
	var given struct {
		SymmetricKey struct {
			Primary   *string `json:"primaryKey"`
			Secondary *string `json:"secondaryKey"`
		} `json:"symmetricKey"`
	}
	if err := json.Unmarshal(data, &given); err != nil {
		return err
	}
	for _, key := range []*string{given.SymmetricKey.Primary, given.SymmetricKey.Secondary} {
		in.newKeys = in.newKeys || key != nil && *key == ""
	}
	return nil
}

func (in identityInput) spec() hub.IdentitySpec {
	spec := hub.IdentitySpec{
		Status: hub.Status(strings.ToLower(in.Status)), StatusReason: in.StatusReason, ManagedBy: in.ManagedBy,
		ParentScopes: in.ParentScopes,
	}
	if in.Capabilities != nil {
		spec.IoTEdge = in.Capabilities.IoTEdge
	}
	if in.DeviceScope != nil && !spec.IoTEdge {
		// The Azure CLI takes a device from its parent by an empty scope, and
		// sends the parent scopes it has read along with it.
		spec.DeviceScope, spec.ParentScopes = *in.DeviceScope, nil
	}
	if in.Authentication != nil {
		spec.Auth, spec.NewKeys = in.Authentication.Authentication, in.Authentication.newKeys
	}
	return spec
}

func (d *Door) listDevices(r *request) (reply, error) {
	limit := maxListed
	if n, err := strconv.Atoi(r.URL.Query().Get("top")); err == nil && n >= 1 && n < maxListed {
		limit = n
	}
	list := []deviceDoc{}
	for i, err := range d.hub.Devices() {
		if err != nil {
			return reply{}, err
		}
		if list = append(list, d.deviceDoc(i)); len(list) == limit {
			break
		}
	}
	return reply{body: list}, nil
}

func (d *Door) getDevice(r *request) (reply, error) {
	return d.deviceReply(d.hub.Identity(r.id))
}

func (d *Door) putDevice(r *request) (reply, error) {
	return d.deviceReply(d.putIdentity(r))
}

func (d *Door) deviceReply(i hub.Identity, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	return reply{body: d.deviceDoc(i), etag: i.ETag()}, nil
}

func (d *Door) listModules(r *request) (reply, error) {
	modules, err := d.hub.Modules(r.id.Device)
	list := make([]moduleDoc, len(modules))
	for n, i := range modules {
		list[n] = d.moduleDoc(i)
	}
	return reply{body: list}, err
}

func (d *Door) getModule(r *request) (reply, error) {
	return d.moduleReply(d.hub.Identity(r.id))
}

func (d *Door) putModule(r *request) (reply, error) {
	return d.moduleReply(d.putIdentity(r))
}

// moduleReply has no ETag header: the service sends none with modules.
func (d *Door) moduleReply(i hub.Identity, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	return reply{body: d.moduleDoc(i)}, nil
}

func (d *Door) putIdentity(r *request) (hub.Identity, error) {
	var in identityInput
	if err := r.decode(&in); err != nil {
		return hub.Identity{}, err
	}
	if in.DeviceID != "" && in.DeviceID != r.id.Device {
		return hub.Identity{}, hub.ErrArgumentInvalid.With("deviceId in the body is not the one of the path")
	}
	if in.ModuleID != "" && in.ModuleID != r.id.Module {
		return hub.Identity{}, hub.ErrArgumentInvalid.With("moduleId in the body is not the one of the path")
	}
	if r.peer.ID.Device != "" {
		return d.hub.PutOwnModule(r.id, in.spec(), r.ifMatch())
	}
	return d.hub.PutIdentity(r.id, in.spec(), r.ifMatch())
}

func (d *Door) deleteIdentity(r *request) (reply, error) {
	return reply{status: http.StatusNoContent}, d.hub.DeleteIdentity(r.id, r.ifMatch())
}
