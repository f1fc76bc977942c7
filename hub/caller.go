package hub

import (
	"context"
	"crypto/subtle"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/sas"
)

// A Caller is the service client that a credential has proved: a shared access
// policy, or a principal of Microsoft Entra ID.
type Caller struct {
	Name    string
	Rights  []Right  // of a policy
	Actions []string // of a principal, in full, in which "*" is any text; nil for a policy

	Expires time.Time // when the credential ends, for who keeps a connection open; zero never
}

// Title names the caller with what it is, such as "policy service".
func (c Caller) Title() string {
	if c.Actions != nil {
		return "principal " + c.Name
	}
	return "policy " + c.Name
}

// A Permission is what a caller needs for an operation.
type Permission struct {
	Rights AnyOf  // of a policy
	Action string // of a principal: data actions, separated by blanks, those of a hub without HubActions
}

// HubActions and ProvisioningActions begin the data actions of a hub and of the
// provisioning service.
const (
	HubActions          = "Microsoft.Devices/IotHubs/"
	ProvisioningActions = "Microsoft.Devices/provisioningServices/"
)

// AnyOf lists combinations of rights of which a policy needs one in full.
type AnyOf [][]Right

// Permissions of what can be done through more than one door. Rights are those
// of "Control access to IoT Hub with shared access signatures", actions those of
// "Control access to IoT Hub by using Microsoft Entra ID".
var (
	SendMessages    = Permission{AnyOf{{ServiceConnect}}, "cloudToDeviceMessages/send/action"}
	ReceiveFeedback = Permission{AnyOf{{ServiceConnect}}, "cloudToDeviceMessages/feedback/action"}
	ReadEvents      = Permission{AnyOf{{ServiceConnect}}, "events/read"}

	ReceiveFileNotifications = Permission{AnyOf{{ServiceConnect}}, "fileUpload/notifications/action"}
)

// May returns why the caller must not do what needs the permission, if so.
// operation says what that is, for the error.
//
// Errors: ErrUnauthorizedAccess, of a principal ErrPrincipalUnauthorized.
func (c Caller) May(need Permission, operation string) error {
	switch {
	case c.Actions != nil && !c.hasActions(need.Action):
		return ErrPrincipalUnauthorized.With("Principal %s is not authorized for %s due to no assigned permissions", c.Name, operation)
	case c.Actions == nil && !c.hasRights(need.Rights):
		return ErrUnauthorizedAccess.With("policy %s does not allow %s", c.Name, operation)
	}
	return nil
}

func (c Caller) hasRights(needed AnyOf) bool {
	return slices.ContainsFunc(needed, func(all []Right) bool {
		return !slices.ContainsFunc(all, func(right Right) bool { return !slices.Contains(c.Rights, right) })
	})
}

func (c Caller) hasActions(needed string) bool {
	for action := range strings.FieldsSeq(needed) {
		if !strings.HasPrefix(action, ProvisioningActions) {
			action = HubActions + action
		}
		if !slices.ContainsFunc(c.Actions, func(pattern string) bool { return matchAction(pattern, action) }) {
			return false
		}
	}
	return true
}

// matchAction reports whether pattern, in which "*" is any text, is action.
func matchAction(pattern, action string) bool {
	pattern, action = strings.ToLower(pattern), strings.ToLower(action)
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == action
	}
	first, last := parts[0], parts[len(parts)-1]
	if !strings.HasPrefix(action, first) || !strings.HasSuffix(action[len(first):], last) {
		return false
	}
	rest := action[len(first) : len(action)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		var found bool
		if _, rest, found = strings.Cut(rest, part); !found {
			return false
		}
	}
	return true
}

// AuthenticateCaller checks the credential of a service client that asks for
// path (such as "/twins/dev1", decoded) at the hub that it calls host: a shared
// access signature of a policy, or "Bearer" and a token of Entra ID.
//
// Errors: ErrUnauthorizedAccess, whatever the cause, with a text that is for the
// hub's log alone.
func (s *Server) AuthenticateCaller(ctx context.Context, credential, host, path string) (Caller, error) {
	return s.AuthenticateCallerAt(ctx, s.Now(), credential, host, path)
}

// AuthenticateCallerAt is AuthenticateCaller for a signature that counts at
// another time than the hub's.
func (s *Server) AuthenticateCallerAt(ctx context.Context, at time.Time, credential, host, path string) (Caller, error) {
	if token, ok := cutBearer(credential); ok {
		return s.authenticatePrincipal(ctx, token)
	}
	t, err := parseTokenAt(at, credential)
	if err != nil {
		return Caller{}, err
	}
	p, err := s.policyOf(t, sas.Token.SignedBy, serviceRights...)
	switch {
	case err != nil:
		return Caller{}, err
	case !s.covers(t, host, path):
		return Caller{}, ErrUnauthorizedAccess.With("the token is for another resource")
	}
	return p.caller(t.Expiry.Add(sas.Skew)), nil
}

// AuthenticateReader checks the credential of who wants to read events at path,
// such as "/events/ConsumerGroups/$Default/Partitions/0", of the endpoint that is
// compatible with Event Hubs. Besides what AuthenticateCaller takes for the whole
// hub, it takes what clients of Event Hubs make of a policy's name and key: they
// sign with the text of the key, and write the resource as a URL.
//
// Errors: those of AuthenticateCaller.
func (s *Server) AuthenticateReader(ctx context.Context, credential, path string) (Caller, error) {
	if token, ok := cutBearer(credential); ok {
		return s.authenticatePrincipal(ctx, token)
	}
	t, err := s.parseToken(credential)
	if err != nil {
		return Caller{}, err
	}
	p, err := s.policyOf(t, signedEitherWay, RegistryRead, RegistryWrite, ServiceConnect)
	if err != nil {
		return Caller{}, err
	}
	if host, _ := t.Entity(); !s.names.contains(host) || !t.CoversEntity(path) {
		return Caller{}, ErrUnauthorizedAccess.With("the token is for another resource")
	}
	return p.caller(t.Expiry.Add(sas.Skew)), nil
}

// AuthenticateKey checks the name and the bare key of a policy, which clients of
// Event Hubs may authenticate with, and never expire.
//
// Errors: ErrUnauthorizedAccess.
func (s *Server) AuthenticateKey(policy string, key sas.Key) (Caller, error) {
	p, ok := s.policyNamed(policy)
	if !ok {
		return Caller{}, ErrUnauthorizedAccess.With("there is no policy %q", words.Clip(policy))
	}
	for _, of := range []sas.Key{p.PrimaryKey, p.SecondaryKey} {
		if of != "" && subtle.ConstantTimeCompare([]byte(of), []byte(key)) == 1 {
			return p.caller(time.Time{}), nil
		}
	}
	return Caller{}, ErrUnauthorizedAccess.With("the key is not one of policy %s", p.Name)
}

// ExamineToken checks of a shared access signature what shows before it is known
// what it is used for: that it has not expired, and that, if it names a policy, a
// key of that has signed it. Of one that names none, nothing is proved.
//
// Errors: ErrUnauthorizedAccess.
func (s *Server) ExamineToken(token string) (sas.Token, error) {
	t, err := s.parseToken(token)
	if err == nil && t.Policy != "" {
		_, err = s.policyOf(t, signedEitherWay, RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect)
	}
	return t, err
}

// signedEitherWay reports whether key has signed t as IoT Hub's clients sign or
// as those of Event Hubs do.
func signedEitherWay(t sas.Token, key sas.Key) bool { return t.SignedBy(key) || t.SignedByText(key) }

// cutBearer returns the token of Entra ID that a credential holds.
func cutBearer(credential string) (token string, ok bool) {
	scheme, token, ok := strings.Cut(credential, " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

func (s *Server) authenticatePrincipal(ctx context.Context, token string) (Caller, error) {
	if s.bearer == nil {
		return Caller{}, ErrUnauthorizedAccess.With("a bearer token, but Entra ID is not configured on this hub")
	}
	return s.bearer(ctx, token)
}

func (p Policy) caller(expires time.Time) Caller {
	return Caller{Name: p.Name, Rights: p.Rights, Expires: expires}
}

// IsName reports whether host, with or without a port, is a name of the hub.
func (s *Server) IsName(host string) bool { return s.names.contains(host) }
