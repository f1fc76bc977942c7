package hub

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/sas"
)

// hostNames are the names under which clients may know the hub.
type hostNames map[string]struct{}

func newHostNames(more []string) hostNames {
	h := hostNames{"localhost": {}, "127.0.0.1": {}, "::1": {}}
	for _, name := range more {
		h[strings.ToLower(name)] = struct{}{}
	}
	return h
}

// contains reports whether host, with or without a port, is a name of the hub.
func (h hostNames) contains(host string) bool {
	host = strings.ToLower(host)
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, ok := h[host]; ok {
		return true
	}
	if a, err := netip.ParseAddr(host); err == nil {
		_, ok := h[a.String()]
		return ok
	}
	label, rest, found := strings.Cut(host, ".")
	return found && label != "" && rest == "localhost"
}

func policiesByName(list []Policy) map[string]Policy {
	m := make(map[string]Policy, len(list))
	for _, p := range list {
		m[strings.ToLower(p.Name)] = p
	}
	return m
}

// A grant is what a device's or module's credential has proved.
type grant struct {
	expires time.Time // when the connection must end; zero never
	scope   string    // "device", "module" or "hub": whose key it was
	kind    string    // "sas" or "x509", as an event's auth method names it

	generation string // of the identity

	password string // the shared access signature, to check again when the identity changes
	chain    []*x509.Certificate
}

// authenticate checks the credential with which identity id connects to the
// hub that it calls host: a shared access signature of the identity's key or of
// a policy with DeviceConnect, or the client certificate. A refused credential
// is ErrUnauthorizedAccess whatever the cause, and the text is for the hub's
// log alone.
//
// See "Control access to IoT Hub with shared access signatures" and
// "Authenticate identities with X.509 certificates".
func (s *Server) authenticate(host string, id ID, password string, chain []*x509.Certificate) (grant, error) {
	if !s.names.contains(host) {
		return grant{}, ErrUnauthorizedAccess.with("%q is not a name of this hub", clip(host))
	}
	rec, err := s.enabledIdentity(id)
	if err != nil {
		return grant{}, err
	}
	if password == "" {
		return s.checkCertificate(rec, chain)
	}
	return s.checkToken(host, rec, password)
}

// enabledIdentity returns the identity if it, and its device, may connect.
func (s *Server) enabledIdentity(id ID) (Identity, error) {
	device, err := s.readIdentity(ID{Device: id.Device})
	if err != nil {
		return Identity{}, err
	}
	if device.Status == StatusDisabled {
		return Identity{}, ErrUnauthorizedAccess.with("device %s is disabled", id.Device)
	}
	if id.Module == "" {
		return device, nil
	}
	return s.readIdentity(id)
}

func (s *Server) checkToken(host string, rec Identity, password string) (grant, error) {
	t, err := sas.ParseToken(password)
	if err != nil {
		return grant{}, ErrUnauthorizedAccess.with("%v", err)
	}
	if t.Expired(s.now()) {
		return grant{}, ErrUnauthorizedAccess.with("the token expired at %s", t.Expiry.UTC().Format(time.RFC3339))
	}
	// The device's token may cover the whole hub: the Go SDK signs the bare
	// host name with the device key.
	if !t.Covers(host + rec.ID.path()) {
		return grant{}, ErrUnauthorizedAccess.with("the token is for another resource")
	}
	g := grant{expires: t.Expiry.Add(sas.Skew), scope: "device", kind: "sas", generation: rec.GenerationID, password: password}
	if rec.Module != "" {
		g.scope = "module"
	}
	if rec.Auth.Type == AuthSAS && (t.SignedBy(rec.Auth.SymmetricKey.Primary) || t.SignedBy(rec.Auth.SymmetricKey.Secondary)) {
		return g, nil
	}
	if t.Policy == "" {
		if rec.Auth.Type != AuthSAS {
			return grant{}, ErrUnauthorizedAccess.with("the identity's authentication type is %s, not sas", rec.Auth.Type)
		}
		return grant{}, ErrUnauthorizedAccess.with("the signature is not from a key of %s", rec.ID)
	}
	p, ok := s.policies[strings.ToLower(t.Policy)]
	switch {
	case !ok:
		return grant{}, ErrUnauthorizedAccess.with("there is no policy %q", clip(t.Policy))
	case !t.SignedBy(p.PrimaryKey) && !t.SignedBy(p.SecondaryKey):
		return grant{}, ErrUnauthorizedAccess.with("the signature is not from a key of policy %s", p.Name)
	case !slices.Contains(p.Rights, DeviceConnect):
		return grant{}, ErrUnauthorizedAccess.with("policy %s lacks %s", p.Name, DeviceConnect)
	}
	g.scope = "hub"
	return g, nil
}

func (s *Server) checkCertificate(rec Identity, chain []*x509.Certificate) (grant, error) {
	if len(chain) == 0 {
		return grant{}, ErrUnauthorizedAccess.with("neither a token nor a client certificate")
	}
	leaf := chain[0]
	if now := s.now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return grant{}, ErrUnauthorizedAccess.with("the client certificate is not valid now")
	}
	g := grant{expires: leaf.NotAfter, scope: "device", kind: "x509", generation: rec.GenerationID, chain: chain}
	if rec.Module != "" {
		g.scope = "module"
	}
	var err error
	switch rec.Auth.Type {
	case AuthSelfSigned:
		if !rec.Auth.X509.matches(leaf) {
			err = ErrUnauthorizedAccess.with("the client certificate has another thumbprint")
		}
	case AuthCertificateAuthority:
		g.expires, err = s.checkCAChain(rec.ID, chain)
	default:
		err = ErrUnauthorizedAccess.with("the identity's authentication type is %s", rec.Auth.Type)
	}
	if err != nil {
		return grant{}, err
	}
	return g, nil
}

// matches reports whether cert has one of the thumbprints: SHA-1 or SHA-256 of
// the DER form, in hexadecimal of either case.
func (x X509Thumbprint) matches(cert *x509.Certificate) bool {
	sum1, sum256 := sha1.Sum(cert.Raw), sha256.Sum256(cert.Raw)
	for _, thumbprint := range []*string{x.Primary, x.Secondary} {
		if thumbprint == nil || *thumbprint == "" {
			continue
		}
		if strings.EqualFold(*thumbprint, hex.EncodeToString(sum1[:])) || strings.EqualFold(*thumbprint, hex.EncodeToString(sum256[:])) {
			return true
		}
	}
	return false
}

// authorize checks the shared access signature of a request for path (such as
// "/twins/dev1", decoded) at the hub that the client calls host, and returns
// the policy that signed it. It is ErrUnauthorizedAccess unless the policy
// holds one of the rights.
func (s *Server) authorize(token, host, path string, rights ...Right) (Policy, error) {
	t, err := sas.ParseToken(token)
	if err != nil {
		return Policy{}, ErrUnauthorizedAccess.with("%v", err)
	}
	if t.Expired(s.now()) {
		return Policy{}, ErrUnauthorizedAccess.with("the token expired at %s", t.Expiry.UTC().Format(time.RFC3339))
	}
	p, ok := s.policies[strings.ToLower(t.Policy)]
	switch {
	case !ok:
		return Policy{}, ErrUnauthorizedAccess.with("there is no policy %q", clip(t.Policy))
	case !t.SignedBy(p.PrimaryKey) && !t.SignedBy(p.SecondaryKey):
		return Policy{}, ErrUnauthorizedAccess.with("the signature is not from a key of policy %s", p.Name)
	case !s.covers(t, host, path):
		return Policy{}, ErrUnauthorizedAccess.with("the token is for another resource")
	case !slices.ContainsFunc(rights, func(r Right) bool { return slices.Contains(p.Rights, r) }):
		return Policy{}, ErrUnauthorizedAccess.with("policy %s does not allow this", p.Name)
	}
	return p, nil
}

// covers reports whether t is for path under the name the client dialled or,
// since a client may dial a gateway or an address, under any name of the hub.
func (s *Server) covers(t sas.Token, host, path string) bool {
	if s.names.contains(host) && t.Covers(host+path) {
		return true
	}
	for name := range s.names {
		if t.Covers(name + path) {
			return true
		}
	}
	return false
}
