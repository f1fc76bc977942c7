package hub

import (
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/sas"
)

// A caller is who the credential of a request proved to be: a shared access
// policy, or a principal of Microsoft Entra ID.
type caller struct {
	name    string   // for the hub's log
	rights  []Right  // of a policy
	actions []string // of a principal; nil for a policy
	grant   grant    // of a device or module
}

// title names the caller with what it is.
func (c caller) title() string {
	if c.actions != nil {
		return "principal " + c.name
	}
	return "policy " + c.name
}

// authenticateCaller checks the credential of a request for the decoded path.
func (s *Server) authenticateCaller(r *http.Request, path string) (caller, error) {
	credential, err := credentialOf(r)
	if err != nil {
		return caller{}, err
	}
	if token, ok := bearerToken(credential); ok {
		return s.entra.authenticate(r.Context(), token)
	}
	p, err := s.authorize(credential, r.Host, path, RegistryRead, RegistryWrite, ServiceConnect)
	if err != nil {
		return caller{}, err
	}
	return caller{name: p.Name, rights: p.Rights}, nil
}

// authenticateDevice checks that the caller is the device or module id: by a
// token, or by its certificate.
func (s *Server) authenticateDevice(r *http.Request, id ID) (caller, error) {
	token := ""
	if len(r.Header["Authorization"]) > 0 {
		var err error
		if token, err = credentialOf(r); err != nil {
			return caller{}, err
		}
	}
	var chain []*x509.Certificate
	if r.TLS != nil {
		chain = r.TLS.PeerCertificates
	}
	g, err := s.authenticate(hostOf(token, r.Host), id, token, chain)
	if err != nil && !errors.Is(err, ErrUnauthorizedAccess) {
		// Nobody learns this way whether a device exists.
		err = ErrUnauthorizedAccess.with("%v", err)
	}
	if err != nil {
		return caller{}, err
	}
	return caller{name: id.String(), grant: g}, nil
}

// hostOf returns the host that a token is for. It need not be the one that
// was dialled: a device behind a gateway dials the gateway.
func hostOf(token, dialled string) string {
	t, err := sas.ParseToken(token)
	if err != nil {
		return dialled
	}
	host, _, _ := strings.Cut(unescapePath(t.Resource), "/")
	return host
}

func credentialOf(r *http.Request) (string, error) {
	header := r.Header["Authorization"]
	if len(header) != 1 {
		return "", ErrUnauthorizedAccess.with("there is no Authorization header, or more than one")
	}
	return header[0], nil
}

// bearerToken returns the token of an Authorization header for Entra ID.
func bearerToken(credential string) (string, bool) {
	scheme, token, ok := strings.Cut(credential, " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

// may returns why the caller must not use all of the routes, if so.
func (c caller) may(r *http.Request, routes []*route) error {
	for _, to := range routes {
		switch {
		case c.actions != nil && !c.hasActions(to.action):
			return ErrPrincipalUnauthorized.with("Principal %s is not authorized for %s on %s due to no assigned permissions",
				c.name, clip(r.Method), clip(rawPath(r)))
		case c.actions == nil && !c.hasRights(to.rights):
			return ErrUnauthorizedAccess.with("policy %s does not allow %s /%s", c.name, to.method, to.path)
		}
	}
	return nil
}

func (c caller) hasRights(needed anyOf) bool {
	return slices.ContainsFunc(needed, func(all []Right) bool {
		return !slices.ContainsFunc(all, func(right Right) bool { return !slices.Contains(c.rights, right) })
	})
}

func (c caller) hasActions(needed string) bool {
	for action := range strings.FieldsSeq(needed) {
		if !slices.ContainsFunc(c.actions, func(pattern string) bool { return matchAction(pattern, action) }) {
			return false
		}
	}
	return true
}
