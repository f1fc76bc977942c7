package provisioning

import (
	"crypto/x509"
	"slices"
	"strings"
	"sync"

	"github.com/iotdm/iotdm/hub/internal/words"
)

// maxGroups is how many enrollment groups there may be, from "Azure IoT Hub Device
// Provisioning Service limits". All of them are tried for a device that has no
// enrollment of its own.
const maxGroups = 100

// A group is an enrollment group with its certificates parsed.
type group struct {
	Enrollment
	signing []*x509.Certificate
}

// newGroup returns a group. Certificates that cannot be read, of a folder of another
// version, sign nothing.
func newGroup(e Enrollment) (*group, error) {
	g := &group{Enrollment: e}
	if e.Attestation.X509 == nil {
		return g, nil
	}
	for _, c := range e.Attestation.X509.Signing.each() {
		cert, err := c.parse()
		if err != nil {
			return g, err
		}
		g.signing = append(g.signing, cert)
	}
	return g, nil
}

// groups are the enrollment groups in memory: they change as their records do, and
// what they hold does not.
type groups struct {
	mu   sync.RWMutex // guards list, which is replaced and never changed
	list []*group     // in the order of their ids
}

func (g *groups) all() []*group {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.list
}

// put adds a group, or replaces it.
func (g *groups) put(one *group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := append(g.without(one.ID()), one)
	slices.SortFunc(list, func(a, b *group) int { return strings.Compare(strings.ToLower(a.ID()), strings.ToLower(b.ID())) })
	g.list = list
}

func (g *groups) remove(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list = g.without(id)
}

func (g *groups) without(id string) []*group {
	return slices.DeleteFunc(slices.Clone(g.list), func(one *group) bool { return strings.EqualFold(one.ID(), id) })
}

// shares reports whether a device may fit both groups equally well.
func (g *group) shares(other *group) bool {
	mine, others := g.Attestation.SymmetricKey, other.Attestation.SymmetricKey
	if mine != nil && others != nil {
		return mine.Primary == others.Primary || mine.Primary == others.Secondary ||
			mine.Secondary == others.Primary || mine.Secondary == others.Secondary
	}
	if mine != nil || others != nil {
		return false
	}
	for _, name := range g.Attestation.X509.CAs.names() {
		if slices.Contains(other.Attestation.X509.CAs.names(), name) {
			return true
		}
	}
	return slices.ContainsFunc(g.signing, func(c *x509.Certificate) bool { return slices.ContainsFunc(other.signing, c.Equal) })
}

// tellShared tells the operator of a group with a key or certificate that another
// has, too: a device registers by the first of them.
func (s *Service) tellShared(g *group) {
	for _, other := range s.groups.all() {
		if !strings.EqualFold(other.ID(), g.ID()) && g.shares(other) {
			s.log.Warn("two enrollment groups have the same key or certificate: devices register by the first of them",
				words.LogEnrollment, min(strings.ToLower(g.ID()), strings.ToLower(other.ID())), words.LogReason, "so has "+max(strings.ToLower(g.ID()), strings.ToLower(other.ID())))
		}
	}
}

func (g *groups) clear() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list = nil
}
