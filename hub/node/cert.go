package node

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/iotdm/iotdm/hub/internal/words"
)

const (
	caLife = 20 * 365 * 24 * time.Hour

	// leafLife is the longest that Apple's systems take.
	leafLife = 397 * 24 * time.Hour

	// A leaf is replaced when so much of its life is left. It is made to be
	// valid before now for clients whose clock is late.
	leafRenewal  = 100 * 24 * time.Hour
	leafBackdate = 24 * time.Hour
)

// certs are the private CA of a hub and the certificates that it presents, in
// files or, with dir empty, in memory.
type certs struct {
	dir    string
	names  []string // sorted
	now    func() time.Time
	ca     tls.Certificate // certificate and key; never changed
	remade string          // why there is a new CA in place of one that was good, for the log
	config *tls.Config
	ecdsa  leaf
	rsa    leaf
}

// A leaf is a certificate of the server. It is made when a client first needs
// it, and again when it has grown old.
type leaf struct {
	file   string
	newKey func() (crypto.Signer, error)
	cert   atomic.Pointer[tls.Certificate]
	making sync.Mutex // held while cert is read or made
}

// openCerts makes the CA on the first run. It makes a new one when the old one
// has too little time left for another leaf. shared is nil for a hub of one node.
func openCerts(dir string, names []string, now func() time.Time, shared *Cluster) (*certs, error) {
	c := &certs{dir: dir, now: now}
	var err error
	if c.names, err = certNames(names); err != nil {
		return nil, err
	}
	c.ecdsa = leaf{file: leafFile, newKey: newECDSAKey}
	// Making an RSA key takes a tenth of a second here and seconds on small
	// machines, which no start shall wait for: few clients need it.
	c.rsa = leaf{file: rsaLeafFile, newKey: func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }}
	if shared == nil {
		err = c.openCA()
	} else {
		err = c.shareCA(shared)
	}
	if err != nil {
		return nil, err
	}
	if _, err := c.leaf(&c.ecdsa); err != nil {
		return nil, err
	}
	c.config = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: c.choose,
		// Devices may prove themselves by a certificate. Which ones are good
		// is a matter of the identity, not of TLS.
		ClientAuth: tls.RequestClientCert,
	}
	return c, nil
}

// choose picks the certificate for a client.
func (c *certs) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := c.leaf(&c.ecdsa)
	if err != nil || hello.SupportsCertificate(cert) == nil {
		return cert, err
	}
	return c.leaf(&c.rsa)
}

func (c *certs) openCA() error {
	ca, err := c.read(caKeyFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; remove the file to have the hub make a new CA", err)
	}
	names := c.names
	if err == nil && c.lasting(ca) {
		missing := c.missing(ca)
		if missing == "" {
			c.ca = *ca
			return nil
		}
		names = c.withNamesOf(ca)
		c.remade = c.remadeFor(missing)
	}
	made, err := c.makeCA(names)
	if err != nil {
		return err
	}
	c.ca = *made
	return c.write(caKeyFile, made)
}

// lasting reports whether a CA has time left for another leaf.
func (c *certs) lasting(ca *tls.Certificate) bool {
	now := c.now()
	return !now.Before(ca.Leaf.NotBefore) && now.Add(leafLife).Before(ca.Leaf.NotAfter)
}

// missing returns a name of the hub that a CA may not vouch for, or "".
func (c *certs) missing(ca *tls.Certificate) string {
	if i := slices.IndexFunc(c.names, func(name string) bool { return !permits(ca.Leaf, name) }); i >= 0 {
		return c.names[i]
	}
	return ""
}

// withNamesOf returns the names of the hub and those of an old CA, so that names can
// come and go.
func (c *certs) withNamesOf(ca *tls.Certificate) []string {
	names := slices.Concat(c.names, ca.Leaf.PermittedDNSDomains)
	for _, r := range ca.Leaf.PermittedIPRanges {
		names = append(names, r.IP.String())
	}
	return names
}

func (c *certs) remadeFor(name string) string {
	return fmt.Sprintf("the hub's CA may not vouch for %s, so there is a new one: whoever has trusted the old one has to trust %s instead", name, filepath.Join(c.dir, caFile))
}

// makeCA makes a CA that may vouch for names.
func (c *certs) makeCA(names []string) (*tls.Certificate, error) {
	now := c.now()
	key, err := newECDSAKey()
	if err != nil {
		return nil, err
	}
	id := make([]byte, 4)
	rand.Read(id)
	template := &x509.Certificate{
		// A name of its own: programs that find two CAs under one name may try only one.
		Subject: pkix.Name{Organization: []string{"iotdm"}, CommonName: "iotdm hub CA " + hex.EncodeToString(id)},
		// Far back for a machine whose clock starts somewhere and is set later.
		NotBefore:             now.Add(-leafLife),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		MaxPathLenZero:        true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	template.PermittedDNSDomains, template.PermittedIPRanges = constraints(names)
	return c.sign(template, template, key, key)
}

// constraints are the names that a CA may vouch for: those of the hub, so that
// whoever gets hold of its key cannot be another site for who trusts it.
//
// They are not critical, although RFC 5280 wants that: OpenSSL, Go, Java, Node,
// Python and what browsers use obey them either way, and Mbed TLS, which many
// devices have, does not know them and refuses a critical one, with all of the
// bundle that it is in.
func constraints(names []string) (domains []string, ranges []*net.IPNet) {
	_, loopback, _ := net.ParseCIDR("127.0.0.0/8") // tests take addresses of their own
	ranges = append(ranges, loopback)
	for _, name := range names {
		ip, err := netip.ParseAddr(name)
		switch {
		case err != nil:
			domains = append(domains, strings.TrimPrefix(name, "*."))
		case !ip.IsLoopback() || ip.Is6():
			ranges = append(ranges, &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())})
		}
	}
	slices.Sort(domains)
	return slices.Compact(domains), ranges
}

// permits reports whether a CA may vouch for a name. One of an older hub may for
// all.
func permits(ca *x509.Certificate, name string) bool {
	if len(ca.PermittedDNSDomains) == 0 && len(ca.PermittedIPRanges) == 0 {
		return true
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		return slices.ContainsFunc(ca.PermittedIPRanges, func(r *net.IPNet) bool { return r.Contains(ip.AsSlice()) })
	}
	name = strings.TrimPrefix(name, "*.")
	return slices.ContainsFunc(ca.PermittedDNSDomains, func(domain string) bool {
		return name == domain || strings.HasSuffix(name, "."+domain)
	})
}

// leaf returns the certificate l, made or renewed if need be.
func (c *certs) leaf(l *leaf) (*tls.Certificate, error) {
	if cert := l.cert.Load(); c.fresh(cert) {
		return cert, nil
	}
	l.making.Lock()
	defer l.making.Unlock()
	cert := l.cert.Load()
	if cert == nil {
		// A file that can't be used is replaced, whatever the reason.
		if stored, err := c.read(l.file); err == nil && c.mine(stored) {
			cert = stored
		}
	}
	if !c.fresh(cert) {
		var err error
		if cert, err = c.makeLeaf(l); err != nil {
			return nil, fmt.Errorf("make a certificate: %w", err)
		}
		// If the disk is full, the next start makes another one.
		_ = c.write(l.file, cert)
	}
	l.cert.Store(cert)
	return cert, nil
}

// fresh reports whether cert is there and of an age to be presented.
func (c *certs) fresh(cert *tls.Certificate) bool {
	now := c.now()
	return cert != nil && now.After(cert.Leaf.NotBefore) && now.Add(leafRenewal).Before(cert.Leaf.NotAfter)
}

// mine reports whether cert was made by the CA for the names of the hub.
func (c *certs) mine(cert *tls.Certificate) bool {
	return slices.Equal(leafNames(cert.Leaf), c.names) && cert.Leaf.CheckSignatureFrom(c.ca.Leaf) == nil
}

func (c *certs) makeLeaf(l *leaf) (*tls.Certificate, error) { return c.makeLeafAt(l, c.now()) }

func (c *certs) makeLeafAt(l *leaf, now time.Time) (*tls.Certificate, error) {
	key, err := l.newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"iotdm"}, CommonName: "iotdm hub"},
		NotBefore:             now.Add(-leafBackdate),
		NotAfter:              now.Add(leafLife - leafBackdate),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if _, ok := key.(*rsa.PrivateKey); ok {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	for _, name := range c.names {
		if ip, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return c.sign(template, c.ca.Leaf, key, c.ca.PrivateKey)
}

func (c *certs) sign(template, parent *x509.Certificate, key crypto.Signer, parentKey crypto.PrivateKey) (*tls.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, nil
}

// read reads a certificate and its key from a file.
func (c *certs) read(file string) (*tls.Certificate, error) {
	if c.dir == "" {
		return nil, fs.ErrNotExist
	}
	return readPair(filepath.Join(c.dir, file))
}

func readPair(file string) (*tls.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &cert, nil
}

// write writes a certificate and its key to one file, so that there is never
// one without the other.
func (c *certs) write(file string, cert *tls.Certificate) error {
	if c.dir == "" {
		return nil
	}
	text, err := encodePair(cert)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(c.dir, file), text, secretMode)
}

func encodePair(cert *tls.Certificate) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	for _, b := range []*pem.Block{{Type: "PRIVATE KEY", Bytes: key}, {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}} {
		if err := pem.Encode(&text, b); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}

func (c *certs) caPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ca.Leaf.Raw})
}

func (c *certs) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.ca.Leaf)
	return p
}

func newECDSAKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// certNames returns the names for the certificate, sorted: those every hub has
// and more.
func certNames(more []string) ([]string, error) {
	// OpenSSL and Node don't let a wildcard stand before the last part of a
	// name. So the one name with a dot that the documentation speaks of is
	// there in full.
	names := []string{"localhost", "*.localhost", "iotdm.localhost", "127.0.0.1", "::1"}
	for _, name := range more {
		if ip, err := netip.ParseAddr(name); err == nil && ip.Zone() == "" {
			names = append(names, ip.Unmap().String())
			continue
		}
		if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
			// Before ToLower, which makes ASCII of some letters that are none.
			return nil, fmt.Errorf("%q is not in ASCII; give the host name in its punycode form, which begins with \"xn--\"", words.Clip(name))
		}
		host := strings.ToLower(strings.TrimSuffix(name, "."))
		if !isHostName(strings.TrimPrefix(host, "*.")) {
			return nil, fmt.Errorf("%q is neither a host name nor an IP address", words.Clip(name))
		}
		names = append(names, host)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// isHostName reports whether name, in lower case, can stand in a certificate
// (RFC 1123; an underscore is common and harmless).
func isHostName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// leafNames returns the names in a certificate, sorted.
func leafNames(cert *x509.Certificate) []string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	slices.Sort(names)
	return names
}
