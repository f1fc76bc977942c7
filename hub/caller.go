package hub

import (
	"context"
	"slices"
	"strings"
)

// A Caller is the service client that a credential has proved: a shared access
// policy, or a principal of Microsoft Entra ID.
type Caller struct {
	Name    string
	Rights  []Right  // of a policy
	Actions []string // of a principal, in which "*" is any text; nil for a policy
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
	Action string // of a principal: data actions, without "Microsoft.Devices/IotHubs/", separated by blanks
}

// AnyOf lists combinations of rights of which a policy needs one in full.
type AnyOf [][]Right

// Permissions of what can be done through more than one door. Rights are those
// of "Control access to IoT Hub with shared access signatures", actions those of
// "Control access to IoT Hub by using Microsoft Entra ID".
var (
	SendMessages    = Permission{AnyOf{{ServiceConnect}}, "cloudToDeviceMessages/send/action"}
	ReceiveFeedback = Permission{AnyOf{{ServiceConnect}}, "cloudToDeviceMessages/feedback/action"}
	ReadEvents      = Permission{AnyOf{{ServiceConnect}}, "events/read"}
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
	if scheme, token, ok := strings.Cut(credential, " "); ok && strings.EqualFold(scheme, "Bearer") {
		if s.bearer == nil {
			return Caller{}, ErrUnauthorizedAccess.With("a bearer token, but Entra ID is not configured on this hub")
		}
		return s.bearer(ctx, strings.TrimSpace(token))
	}
	p, err := s.authorize(credential, host, path)
	if err != nil {
		return Caller{}, err
	}
	return Caller{Name: p.Name, Rights: p.Rights}, nil
}

// IsName reports whether host, with or without a port, is a name of the hub.
func (s *Server) IsName(host string) bool { return s.names.contains(host) }
