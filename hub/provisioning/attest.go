package provisioning

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/sas"
)

// An attested peer is one that has proved to be who it is.
type attested struct {
	Enrollment                    // that it fits
	auth       hub.Authentication // of its identity
	expires    time.Time          // when its credential does; zero never
}

// Authenticate checks who the peer is, and returns when its credential ends; zero
// is never. Whether it may register shows when it does.
//
// Errors: ErrUnauthorized, ErrRegistrationNotFound (no enrollment, or the id scope
// is another).
func (s *Service) Authenticate(p Peer) (expires time.Time, err error) {
	a, err := s.attest(p)
	return a.expires, err
}

// attest finds the enrollment of the peer: its own, or that of a group which it
// proves to belong to. The enrollment may be disabled.
func (s *Service) attest(p Peer) (attested, error) {
	a, err := known(s, func() (attested, error) { return s.attestNow(p) })
	s.metrics.refused(err)
	return a, err
}

func (s *Service) attestNow(p Peer) (a attested, err error) {
	switch {
	case p.Scope != s.opt.IDScope:
		return a, ErrRegistrationNotFound.Because("the id scope is %q, and this service's %s", words.Clip(p.Scope), s.opt.IDScope).counted("id_scope")
	case !idPattern.MatchString(p.ID):
		return a, ErrRegistrationNotFound.Because("%q is no registration id", words.Clip(p.ID)).counted("not_enrolled")
	case p.Password == "" && len(p.Chain) == 0:
		return a, ErrUnauthorized.Because("neither a token nor a client certificate").counted("unauthorized")
	}
	var t sas.Token
	if p.Password != "" {
		if t, err = s.parseToken(p); err != nil {
			return a, err
		}
	} else if err := s.checkLeaf(p); err != nil {
		return a, err
	}
	a.Enrollment, err = readEnrollment(Individual, p.ID, s.store.Get)
	switch {
	case err == nil && p.Password != "":
		err = a.byKey(t)
	case err == nil:
		err = s.byCertificate(&a, p)
	case !errors.Is(err, ErrNotFound):
	case p.Password != "":
		err = s.byGroupKey(&a, p, t)
	default:
		err = s.byGroupCertificate(&a, p)
	}
	return a, err
}

// refuse is what a credential is refused with that does not fit an enrollment.
func (e *Enrollment) refuse(format string, args ...any) error {
	return ErrUnauthorized.Because("%s %s: "+format, append([]any{e.Kind(), e.ID()}, args...)...).counted("unauthorized")
}

// parseToken reads a shared access signature for the registration of p that has not
// expired. Its name, "registration" in SDKs, proves nothing.
func (s *Service) parseToken(p Peer) (sas.Token, error) {
	t, err := sas.ParseToken(p.Password)
	audience := p.Scope + "/registrations/" + p.ID
	switch {
	case err != nil:
		return t, ErrUnauthorized.Because("%v", err).counted("unauthorized")
	case t.Expired(s.hub.Now()):
		return t, ErrUnauthorized.Because("the token expired at %s", t.Expiry.UTC().Format(time.RFC3339)).counted("unauthorized")
	case !t.Covers(audience) && !t.Covers(strings.ToLower(audience)):
		return t, ErrUnauthorized.Because("the token is for another resource").counted("unauthorized")
	}
	return t, nil
}

// byKey checks a token of an individual enrollment.
func (a *attested) byKey(t sas.Token) error {
	keys := a.Attestation.SymmetricKey
	switch {
	case keys == nil:
		return a.refuse("it is attested by %s, not by a key", a.Attestation.Type)
	case !t.SignedBy(keys.Primary) && !t.SignedBy(keys.Secondary):
		return a.refuse("the signature is not from one of its keys")
	}
	a.prove(*keys, t)
	return nil
}

func (a *attested) prove(keys SymmetricKey, t sas.Token) {
	a.auth = hub.Authentication{Type: hub.AuthSAS, SymmetricKey: hub.SymmetricKey(keys)}
	a.expires = t.Expiry.Add(sas.Skew)
}

// byGroupKey looks for the group from one of whose keys the peer's is derived: from
// the registration id as the peer writes it, or in lower case, which Azure's
// documents advise. Of groups that share a key it is the one by which the device has
// registered, else the first.
func (s *Service) byGroupKey(a *attested, p Peer, t sas.Token) error {
	list := slices.DeleteFunc(slices.Clone(s.groups.all()), func(g *group) bool { return g.Attestation.SymmetricKey == nil })
	if len(list) == 0 {
		return notEnrolled(p)
	}
	if r, err := readRecord(p.ID, s.store.Get); err == nil {
		slices.SortStableFunc(list, func(x, y *group) int {
			return rank(x.source() == r.Source) - rank(y.source() == r.Source)
		})
	}
	ids := []string{p.ID}
	if lower := strings.ToLower(p.ID); lower != p.ID {
		ids = append(ids, lower)
	}
	for _, g := range list {
		for _, id := range ids {
			keys := SymmetricKey{derive(g.Attestation.SymmetricKey.Primary, id), derive(g.Attestation.SymmetricKey.Secondary, id)}
			if t.SignedBy(keys.Primary) || t.SignedBy(keys.Secondary) {
				a.Enrollment = g.Enrollment
				a.prove(keys, t)
				return nil
			}
		}
	}
	return ErrUnauthorized.Because("there is no enrollment %s, and the key is derived from none of %d enrollment groups", p.ID, len(list)).counted("unauthorized")
}

func rank(first bool) int {
	if first {
		return 0
	}
	return 1
}

func notEnrolled(p Peer) error {
	return ErrRegistrationNotFound.Because("there is no enrollment %s, nor a group with such attestation", p.ID).counted("not_enrolled")
}

// derive returns the key that a device has in a group; "" if the group's is no key,
// which has signed nothing.
func derive(group sas.Key, id string) sas.Key {
	key, _ := sas.DeriveKey(group, id)
	return key
}

// checkLeaf checks what all enrollments ask of a client certificate.
func (s *Service) checkLeaf(p Peer) error {
	leaf := p.Chain[0]
	switch now := s.hub.Now(); {
	case now.Before(leaf.NotBefore) || now.After(leaf.NotAfter):
		return ErrUnauthorized.Because("the client certificate is valid from %s to %s only",
			leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339)).counted("unauthorized")
	case !strings.EqualFold(leaf.Subject.CommonName, p.ID):
		return ErrUnauthorized.Because("the common name of the client certificate is %q", words.Clip(leaf.Subject.CommonName)).counted("unauthorized")
	}
	return nil
}

// byCertificate checks the certificate of a device that has an enrollment of its own.
func (s *Service) byCertificate(a *attested, p Peer) error {
	leaf, x := p.Chain[0], a.Attestation.X509
	switch {
	case x == nil:
		return a.refuse("it is attested by %s, not by a certificate", a.Attestation.Type)
	case x.CAs != nil:
		authorities, err := s.authorities(x.CAs)
		if err != nil {
			return err
		}
		_, expires, err := s.nearest(p, authorities)
		if err != nil {
			return a.refuse("%s", words.Clip(err.Error()))
		}
		a.auth, a.expires = certified(leaf, nil), expires
		return nil
	}
	var thumbprints []string
	for _, c := range x.Client.each() {
		thumbprints = append(thumbprints, c.Info.SHA256)
	}
	if !slices.Contains(thumbprints, thumbprint(leaf)) {
		return a.refuse("the client certificate has another thumbprint")
	}
	a.auth, a.expires = certified(leaf, thumbprints), leaf.NotAfter
	return nil
}

// certified returns the authentication of a device with certificates: the enrollment's
// own, or the one that it has shown. See "How to roll X.509 device certificates".
func certified(leaf *x509.Certificate, thumbprints []string) hub.Authentication {
	if len(thumbprints) == 0 {
		thumbprints = []string{thumbprint(leaf)}
	}
	auth := hub.Authentication{Type: hub.AuthSelfSigned}
	auth.X509.Primary = &thumbprints[0]
	if len(thumbprints) > 1 {
		auth.X509.Secondary = &thumbprints[1]
	}
	return auth
}

// byGroupCertificate looks for the group with the certificate that is nearest to the
// peer's in its chain. Of groups with the same one it is the first.
func (s *Service) byGroupCertificate(a *attested, p Peer) error {
	var candidates []authority
	groups := 0
	for _, g := range s.groups.all() {
		if g.Attestation.X509 == nil {
			continue
		}
		groups++
		for _, c := range g.signing {
			candidates = append(candidates, authority{g, c})
		}
		if g.Attestation.X509.CAs == nil {
			continue
		}
		more, err := s.authorities(g.Attestation.X509.CAs)
		if err != nil {
			return err
		}
		for _, one := range more {
			candidates = append(candidates, authority{g, one.cert})
		}
	}
	if groups == 0 {
		return notEnrolled(p)
	}
	found, expires, err := s.nearest(p, candidates)
	if err != nil {
		return ErrUnauthorized.With("CA certificate not found").Because("there is no enrollment %s, and none of %d enrollment groups: %s", p.ID, groups, words.Clip(err.Error())).counted("unauthorized")
	}
	a.Enrollment, a.auth, a.expires = found.group.Enrollment, certified(p.Chain[0], nil), expires
	return nil
}

// An authority is a certificate that vouches for devices, of a group or none.
type authority struct {
	group *group
	cert  *x509.Certificate
}

// authorities returns the certificates of those named CAs whose owner has proved it.
func (s *Service) authorities(r *CAReferences) (list []authority, err error) {
	verified, err := s.hub.VerifiedCAs()
	for _, name := range r.names() {
		if c := verified[name]; c != nil {
			list = append(list, authority{cert: c})
		}
	}
	return list, err
}

// nearest returns which of the candidates is the nearest to the peer's certificate
// among those to which there is a chain, and when the first certificate of that
// expires. Certificates in between come from the peer.
func (s *Service) nearest(p Peer, candidates []authority) (best authority, expires time.Time, err error) {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range candidates {
		roots.AddCert(c.cert)
	}
	for _, c := range p.Chain[1:] {
		between.AddCert(c)
	}
	chains, err := p.Chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: s.hub.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return authority{}, time.Time{}, err
	}
	chain := slices.MinFunc(chains, func(a, b []*x509.Certificate) int { return len(a) - len(b) })
	last := chain[len(chain)-1]
	best = candidates[slices.IndexFunc(candidates, func(c authority) bool { return c.cert.Equal(last) })]
	expires = chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotAfter.Before(expires) {
			expires = c.NotAfter
		}
	}
	return best, expires, nil
}
