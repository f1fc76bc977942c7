package hub

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/iotdm/iotdm/twin"
)

// maxListed is how many identities a list shows at most; see "Understand the
// identity registry".
const maxListed = 1000

// capabilities is what an identity's document and a device twin say of the
// device itself.
type capabilities struct {
	IoTEdge bool `json:"iotEdge"`
}

// A deviceDoc is a device identity as the service prints it. The order of the
// members is the service's.
type deviceDoc struct {
	DeviceID          string         `json:"deviceId"`
	GenerationID      string         `json:"generationId"`
	ETag              string         `json:"etag"`
	ConnectionState   string         `json:"connectionState"`
	Status            Status         `json:"status"`
	StatusReason      *string        `json:"statusReason"`
	ConnectionUpdated string         `json:"connectionStateUpdatedTime"`
	StatusUpdated     string         `json:"statusUpdatedTime"`
	LastActivity      string         `json:"lastActivityTime"`
	PendingMessages   int            `json:"cloudToDeviceMessageCount"`
	Authentication    Authentication `json:"authentication"`
	Capabilities      capabilities   `json:"capabilities"`
	DeviceScope       string         `json:"deviceScope,omitempty"`
	ParentScopes      []string       `json:"parentScopes"`
}

func (s *Server) deviceDoc(i Identity) deviceDoc {
	state := s.ConnectionState(i.ID)
	parents := i.ParentScopes
	if parents == nil {
		parents = []string{}
	}
	return deviceDoc{
		DeviceID: i.Device, GenerationID: i.GenerationID, ETag: i.ETag(),
		ConnectionState: state.String(), Status: i.Status, StatusReason: i.StatusReason,
		ConnectionUpdated: twin.FormatTime(state.Changed), StatusUpdated: twin.FormatTime(i.StatusUpdated),
		LastActivity: twin.FormatTime(state.LastActivity), PendingMessages: state.PendingMessages,
		Authentication: i.Auth, Capabilities: capabilities{i.IoTEdge},
		DeviceScope: i.DeviceScope, ParentScopes: parents,
	}
}

// A moduleDoc is a module identity as the service prints it.
type moduleDoc struct {
	ModuleID          string         `json:"moduleId"`
	ManagedBy         *string        `json:"managedBy"`
	DeviceID          string         `json:"deviceId"`
	GenerationID      string         `json:"generationId"`
	ETag              string         `json:"etag"`
	ConnectionState   string         `json:"connectionState"`
	ConnectionUpdated string         `json:"connectionStateUpdatedTime"`
	LastActivity      string         `json:"lastActivityTime"`
	PendingMessages   int            `json:"cloudToDeviceMessageCount"`
	Authentication    Authentication `json:"authentication"`
}

func (s *Server) moduleDoc(i Identity) moduleDoc {
	state := s.ConnectionState(i.ID)
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
	DeviceID       string          `json:"deviceId"`
	ModuleID       string          `json:"moduleId"`
	ManagedBy      *string         `json:"managedBy"`
	Status         string          `json:"status"`
	StatusReason   *string         `json:"statusReason"`
	Authentication *Authentication `json:"authentication"`
	Capabilities   *capabilities   `json:"capabilities"`
	DeviceScope    *string         `json:"deviceScope"`
	ParentScopes   []string        `json:"parentScopes"`
}

func (in identityInput) spec() IdentitySpec {
	spec := IdentitySpec{
		Status: Status(strings.ToLower(in.Status)), StatusReason: in.StatusReason, ManagedBy: in.ManagedBy,
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
		spec.Auth = *in.Authentication
	}
	return spec
}

func (s *Server) restListDevices(r *restRequest) (reply, error) {
	limit := maxListed
	if n, err := strconv.Atoi(r.URL.Query().Get("top")); err == nil && n >= 1 && n < maxListed {
		limit = n
	}
	list := []deviceDoc{}
	err := s.Devices(limit, func(i Identity) error {
		list = append(list, s.deviceDoc(i))
		return nil
	})
	return reply{body: list}, err
}

func (s *Server) restGetDevice(r *restRequest) (reply, error) {
	return s.deviceReply(s.Identity(r.id))
}

func (s *Server) restPutDevice(r *restRequest) (reply, error) {
	return s.deviceReply(s.restPutIdentity(r))
}

func (s *Server) deviceReply(i Identity, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	return reply{body: s.deviceDoc(i), etag: i.ETag()}, nil
}

func (s *Server) restListModules(r *restRequest) (reply, error) {
	modules, err := s.Modules(r.id.Device)
	list := make([]moduleDoc, len(modules))
	for n, i := range modules {
		list[n] = s.moduleDoc(i)
	}
	return reply{body: list}, err
}

func (s *Server) restGetModule(r *restRequest) (reply, error) {
	return s.moduleReply(s.Identity(r.id))
}

func (s *Server) restPutModule(r *restRequest) (reply, error) {
	return s.moduleReply(s.restPutIdentity(r))
}

// moduleReply has no ETag header: the service sends none with modules.
func (s *Server) moduleReply(i Identity, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	return reply{body: s.moduleDoc(i)}, nil
}

func (s *Server) restPutIdentity(r *restRequest) (Identity, error) {
	var in identityInput
	if err := r.decode(&in); err != nil {
		return Identity{}, err
	}
	if in.DeviceID != "" && in.DeviceID != r.id.Device {
		return Identity{}, ErrArgumentInvalid.with("deviceId in the body is not the one of the path")
	}
	if in.ModuleID != "" && in.ModuleID != r.id.Module {
		return Identity{}, ErrArgumentInvalid.with("moduleId in the body is not the one of the path")
	}
	return s.PutIdentity(r.id, in.spec(), r.ifMatch())
}

func (s *Server) restDeleteIdentity(r *restRequest) (reply, error) {
	return reply{status: http.StatusNoContent}, s.DeleteIdentity(r.id, r.ifMatch())
}
