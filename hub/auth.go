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

	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/sas"
)

// hostNames are the names under which clients may know the hub.
type hostNames map[string]struct{}

func newHostNames(more []string) hostNames {
	h := hostNames{"localhost": {}, "127.0.0.1": {}, "::1": {}}
	for _, name := range more {
		// As the certificate has them.
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if a, err := netip.ParseAddr(name); err == nil {
			name = a.Unmap().String()
		}
		h[name] = struct{}{}
	}
	return h
}

// contains reports whether host, with or without a port, is a name of the hub.
func (h hostNames) contains(host string) bool {
	host = strings.ToLower(host)
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), ".")
	if _, ok := h[host]; ok {
		return true
	}
	if a, err := netip.ParseAddr(host); err == nil {
		_, ok := h[a.Unmap().String()]
		return ok
	}
	label, rest, found := strings.Cut(host, ".")
	if !found || label == "" {
		return false
	}
	_, ok := h["*."+rest]
	return ok || rest == "localhost"
}

// SetPolicies replaces the shared access policies, and ends the links of devices and
// modules that have come with a key that is none any more. What services have opened
// over AMQP lasts as long as its token.
func (s *Server) SetPolicies(list []Policy) {
	s.policies.Store(policiesByName(list))
	s.running.Go(func() {
		s.endInvalid(s.links.all(func(p Peer) bool { return p.Grant.scope == "hub" }))
	})
}

func policiesByName(list []Policy) *map[string]Policy {
	m := make(map[string]Policy, len(list))
	for _, p := range list {
		m[strings.ToLower(p.Name)] = p
	}
	return &m
}

func (s *Server) policyNamed(name string) (Policy, bool) {
	p, ok := (*s.policies.Load())[strings.ToLower(name)]
	return p, ok
}

// A Grant is what a device's or module's credential has proved.
type Grant struct {
	Expires time.Time // when the connection must end; zero never

	scope      string // "device", "module" or "hub": whose key it was
	kind       string // "sas" or "x509"
	generation string // of the identity

	password string // the shared access signature, to check again when the identity changes
	chain    []*x509.Certificate
}

// method describes the grant as events do.
func (g Grant) method() string {
	return `{"scope":"` + g.scope + `","type":"` + g.kind + `","issuer":"iothub"}`
}

// Authenticate checks the credential with which identity id connects to the
// hub that it calls host: a shared access signature of the identity's key, of a
// policy with DeviceConnect or, for a module, of its device's key, or the client
// certificate. A refused credential is ErrUnauthorizedAccess whatever the cause,
// and the text is for the hub's log alone.
//
// See "Control access to IoT Hub with shared access signatures" and
// "Authenticate identities with X.509 certificates".
func (s *Server) Authenticate(host string, id ID, password string, chain []*x509.Certificate) (Grant, error) {
	if !s.names.contains(host) {
		return Grant{}, ErrUnauthorizedAccess.With("%q is not a name of this hub", words.Clip(host))
	}
	device, rec, err := s.enabledIdentity(id)
	if err != nil {
		return Grant{}, err
	}
	if password == "" {
		return s.checkCertificate(rec, chain)
	}
	return s.checkToken(host, device, rec, password)
}

// AuthenticateOwner checks the credential with which a device manages its
// module id, which need not exist, or lists its modules if id has none: a shared
// access signature of the device's own key, for the device or the module, or the
// device's client certificate. A policy's is none, and neither is a module's. A
// refused credential is ErrUnauthorizedAccess.
//
// The end-to-end suite of amenzhinsky/iothub does so with a key, the IoT Edge
// daemon with either (Azure/iot-identity-service:
// identity/aziot-cloud-client-async/src/hub/mod.rs, connector.rs).
func (s *Server) AuthenticateOwner(host string, id ID, password string, chain []*x509.Certificate) (Grant, error) {
	if !s.names.contains(host) {
		return Grant{}, ErrUnauthorizedAccess.With("%q is not a name of this hub", words.Clip(host))
	}
	device, _, err := s.enabledIdentity(ID{Device: id.Device})
	if err != nil {
		return Grant{}, err
	}
	if password == "" {
		return s.checkCertificate(device, chain)
	}
	t, err := s.parseToken(password)
	if err != nil {
		return Grant{}, err
	}
	if t.Policy != "" || !device.signed(t) {
		return Grant{}, ErrUnauthorizedAccess.With("the signature is not from a key of %s", device.ID)
	}
	return device.grant(t, host, id)
}

// enabledIdentity returns the identity, and its device, if they may connect.
func (s *Server) enabledIdentity(id ID) (device, rec Identity, err error) {
	device, err = s.readIdentity(ID{Device: id.Device})
	if err == nil && device.Status == StatusDisabled {
		err = ErrUnauthorizedAccess.With("device %s is disabled", id.Device)
	}
	if err != nil || id.Module == "" {
		return device, device, err
	}
	rec, err = s.readIdentity(id)
	return device, rec, err
}

// checkToken checks the token of rec, of which device is itself or the device of
// the module.
func (s *Server) checkToken(host string, device, rec Identity, password string) (Grant, error) {
	t, err := s.parseToken(password)
	if err != nil {
		return Grant{}, err
	}
	var g Grant
	switch {
	case rec.signed(t):
		g, err = rec.grant(t, host, rec.ID)
	case device.signed(t) && !rec.Auth.isX509():
		// The suites of the Java and C SDKs build the connection string of every
		// module so. That a module with certificates of its own is not to be had
		// this way is assumed.
		g, err = device.grant(t, host, rec.ID)
	case t.Policy != "":
		if _, err = s.policyOf(t, sas.Token.SignedBy, DeviceConnect); err == nil && !t.Covers(host+rec.ID.path()) {
			err = ErrUnauthorizedAccess.With("the token is for another resource")
		}
		g = Grant{Expires: t.Expiry.Add(sas.Skew), scope: "hub", kind: "sas"}
	case rec.Auth.Type != AuthSAS:
		err = ErrUnauthorizedAccess.With("the identity's authentication type is %s, not sas", rec.Auth.Type)
	case rec.Module != "":
		err = ErrUnauthorizedAccess.With("the signature is not from a key of %s, nor of its device", rec.ID)
	default:
		err = ErrUnauthorizedAccess.With("the signature is not from a key of %s", rec.ID)
	}
	if err != nil {
		return Grant{}, err
	}
	g.generation, g.password = rec.GenerationID, password
	return g, nil
}

// signed reports whether a key of the identity's own signed the token.
func (i Identity) signed(t sas.Token) bool {
	keys := i.Auth.SymmetricKey
	return i.Auth.Type == AuthSAS && (t.SignedBy(keys.Primary) || t.SignedBy(keys.Secondary))
}

// grant is what a token that i has signed proves, if it is for id: i itself, or
// a module of it.
func (i Identity) grant(t sas.Token, host string, id ID) (Grant, error) {
	if !t.CoversIdentity(host + id.path()) {
		return Grant{}, ErrUnauthorizedAccess.With("the token is for another resource")
	}
	g := Grant{Expires: t.Expiry.Add(sas.Skew), scope: "device", kind: "sas"}
	if i.Module != "" {
		g.scope = "module"
	}
	return g, nil
}

// parseToken reads a shared access signature that has not expired.
func (s *Server) parseToken(text string) (sas.Token, error) { return parseTokenAt(s.Now(), text) }

func parseTokenAt(at time.Time, text string) (sas.Token, error) {
	t, err := sas.ParseToken(text)
	switch {
	case err != nil:
		return t, ErrUnauthorizedAccess.With("%v", err)
	case t.Expired(at):
		return t, ErrUnauthorizedAccess.With("the token expired at %s", t.Expiry.UTC().Format(time.RFC3339))
	}
	return t, nil
}

// policyOf returns the policy that signed a token, as signed tells, which must
// have one of the rights.
func (s *Server) policyOf(t sas.Token, signed func(sas.Token, sas.Key) bool, rights ...Right) (Policy, error) {
	p, ok := s.policyNamed(t.Policy)
	switch {
	case !ok:
		return Policy{}, ErrUnauthorizedAccess.With("there is no policy %q", words.Clip(t.Policy))
	case !signed(t, p.PrimaryKey) && !signed(t, p.SecondaryKey):
		return Policy{}, ErrUnauthorizedAccess.With("the signature is not from a key of policy %s", p.Name)
	case !slices.ContainsFunc(rights, func(r Right) bool { return slices.Contains(p.Rights, r) }):
		return Policy{}, ErrUnauthorizedAccess.With("policy %s lacks %s", p.Name, rights)
	}
	return p, nil
}

func (s *Server) checkCertificate(rec Identity, chain []*x509.Certificate) (Grant, error) {
	if len(chain) == 0 {
		return Grant{}, ErrUnauthorizedAccess.With("neither a token nor a client certificate")
	}
	leaf := chain[0]
	if now := s.Now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return Grant{}, ErrUnauthorizedAccess.With("the client certificate is not valid now")
	}
	g := Grant{Expires: leaf.NotAfter, scope: "device", kind: "x509", generation: rec.GenerationID, chain: chain}
	if rec.Module != "" {
		g.scope = "module"
	}
	var err error
	switch rec.Auth.Type {
	case AuthSelfSigned:
		if !rec.Auth.X509.matches(leaf) {
			err = ErrUnauthorizedAccess.With("the client certificate has another thumbprint")
		}
	case AuthCertificateAuthority:
		g.Expires, err = s.checkCAChain(rec.ID, chain)
	default:
		err = ErrUnauthorizedAccess.With("the identity's authentication type is %s", rec.Auth.Type)
	}
	if err != nil {
		return Grant{}, err
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
