package hub

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// A CACertificate is a certificate authority whose certificates prove the
// identities of devices: those whose authentication type is
// certificateAuthority and whose id is the common name of the certificate that
// they present. It counts only once its owner has shown to hold its key; see
// "Authenticate identities with X.509 certificates".
type CACertificate struct {
	Name     string
	DER      []byte // the certificate
	Verified bool

	// VerificationCode is the common name of the certificate that
	// VerifyCACertificate wants to see. It is empty once verified.
	VerificationCode string

	Created, Updated time.Time
}

// Certificate returns the certificate parsed.
func (c CACertificate) Certificate() (*x509.Certificate, error) { return x509.ParseCertificate(c.DER) }

// maxCACertificates is the service's limit, from "IoT Hub quotas and
// throttling".
const maxCACertificates = 25

var caNamePattern = regexp.MustCompile(`^[A-Za-z0-9\-._]{1,64}$`)

// AddCACertificate registers a CA under a name, not verified yet. The
// certificate is PEM or DER.
//
// Errors: ErrArgumentInvalid, ErrCACertificateExists, ErrQuotaExceeded.
func (s *Server) AddCACertificate(name string, certificate []byte) (CACertificate, error) {
	if !caNamePattern.MatchString(name) {
		return CACertificate{}, ErrArgumentInvalid.With("the name of a CA certificate must be 1 to 64 of the letters, digits and - . _")
	}
	cert, err := ParseCertificate(certificate)
	if err != nil {
		return CACertificate{}, err
	}
	if !cert.IsCA {
		return CACertificate{}, ErrArgumentInvalid.With("the certificate is not that of a certificate authority")
	}
	now := s.Now().UTC()
	if err := validAt(cert, now); err != nil {
		return CACertificate{}, err
	}
	code := make([]byte, 24)
	rand.Read(code)
	c := CACertificate{Name: name, DER: cert.Raw, VerificationCode: strings.ToUpper(hex.EncodeToString(code)), Created: now, Updated: now}
	err = s.store.Update(disk.CA, func(tx *store.Tx) error {
		list, err := s.CACertificates()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(list, func(have CACertificate) bool { return have.Name == name }) {
			return ErrCACertificateExists.With("%s", name)
		}
		if len(list) >= maxCACertificates {
			return ErrQuotaExceeded.With("a hub may have at most 25 CA certificates")
		}
		return writeCA(tx, c)
	})
	return c, err
}

// VerifyCACertificate makes a registered CA count. The proof, PEM or DER, is a
// certificate that the CA has signed and whose common name is the verification
// code.
//
// Errors: ErrCACertificateNotFound, ErrArgumentInvalid.
func (s *Server) VerifyCACertificate(name string, proof []byte) (CACertificate, error) {
	cert, err := ParseCertificate(proof)
	if err != nil {
		return CACertificate{}, err
	}
	var c CACertificate
	err = s.store.Update(disk.CA, func(tx *store.Tx) error {
		if c, err = readCA(name, tx.Get); err != nil || c.Verified {
			return err
		}
		ca, err := c.Certificate()
		if err != nil {
			return err
		}
		now := s.Now().UTC()
		if err := cmp.Or(validAt(ca, now), validAt(cert, now)); err != nil {
			return err
		}
		if cert.Subject.CommonName != c.VerificationCode {
			return ErrArgumentInvalid.With("the common name of the proof is not the verification code %s", c.VerificationCode)
		}
		if err := cert.CheckSignatureFrom(ca); err != nil {
			return ErrArgumentInvalid.With("the proof is not signed by the CA certificate: %v", err)
		}
		c.Verified, c.VerificationCode, c.Updated = true, "", now
		return writeCA(tx, c)
	})
	return c, err
}

// CACertificates returns the registered CAs in the order of their names.
func (s *Server) CACertificates() ([]CACertificate, error) {
	list := []CACertificate{}
	err := s.store.Scan([]byte(disk.CA), store.PrefixEnd([]byte(disk.CA)), func(_, data []byte) error {
		var c CACertificate
		if err := json.Unmarshal(data, &c); err != nil {
			return fmt.Errorf("stored CA certificate: %w", err)
		}
		list = append(list, c)
		return nil
	})
	return list, err
}

// DeleteCACertificate removes a CA, and ends the connections that only it
// vouched for.
//
// Errors: ErrCACertificateNotFound.
func (s *Server) DeleteCACertificate(name string) error {
	err := s.store.Update(disk.CA, func(tx *store.Tx) error {
		if _, err := readCA(name, tx.Get); err != nil {
			return err
		}
		tx.Delete([]byte(disk.CA + name))
		return nil
	})
	if err == nil {
		s.recheckCertificates()
	}
	return err
}

func readCA(name string, get func([]byte) ([]byte, error)) (c CACertificate, err error) {
	data, err := get([]byte(disk.CA + name))
	if errors.Is(err, store.ErrNotFound) {
		return c, ErrCACertificateNotFound.With("%s", words.Clip(name))
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	return c, err
}

func writeCA(tx *store.Tx, c CACertificate) error {
	data, err := json.Marshal(c)
	if err == nil {
		tx.Set([]byte(disk.CA+c.Name), data)
	}
	return err
}

// caChanged hears of a CA that was registered, verified or deleted. What another
// node has deleted ends connections here, too.
func (s *Server) caChanged(c store.Change) {
	s.authorities.Store(new(authorities))
	if c.Value == nil && !c.Mine {
		s.running.Go(s.recheckCertificates)
	}
}

// authorities are the verified CAs. A change of the CAs puts another value in
// place of it, which reads them when it is asked: so none is missed.
type authorities struct {
	mu     sync.Mutex // held while they are read
	pool   *x509.CertPool
	byName map[string]*x509.Certificate
}

// VerifiedCAs returns the certificates of the verified CAs by their names. The map
// must not be changed.
func (s *Server) VerifiedCAs() (map[string]*x509.Certificate, error) {
	a, err := s.readAuthorities()
	if err != nil {
		return nil, err
	}
	return a.byName, nil
}

// verifiedCAs returns a pool of the verified CAs.
func (s *Server) verifiedCAs() (*x509.CertPool, error) {
	a, err := s.readAuthorities()
	if err != nil {
		return nil, err
	}
	return a.pool, nil
}

func (s *Server) readAuthorities() (*authorities, error) {
	a := s.authorities.Load()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pool != nil {
		return a, nil
	}
	list, err := s.CACertificates()
	if err != nil {
		return nil, err
	}
	pool, byName := x509.NewCertPool(), make(map[string]*x509.Certificate, len(list))
	for _, c := range list {
		cert, err := c.Certificate()
		if err != nil {
			return nil, err
		}
		if c.Verified {
			pool.AddCert(cert)
			byName[c.Name] = cert
		}
	}
	a.pool, a.byName = pool, byName
	return a, nil
}

// checkCAChain checks the certificate of an identity that a CA vouches for,
// and returns when the first certificate of its chain expires.
func (s *Server) checkCAChain(id ID, chain []*x509.Certificate) (expires time.Time, err error) {
	if name := chain[0].Subject.CommonName; name != id.String() {
		return time.Time{}, ErrUnauthorizedAccess.With("the common name of the client certificate is %q", words.Clip(name))
	}
	roots, err := s.verifiedCAs()
	if err != nil {
		return time.Time{}, err
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: between,
		CurrentTime:   s.Now(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return time.Time{}, ErrUnauthorizedAccess.With("the client certificate: %v", err)
	}
	expires = chains[0][0].NotAfter
	for _, c := range chains[0][1:] {
		if c.NotAfter.Before(expires) {
			expires = c.NotAfter
		}
	}
	return expires, nil
}

// ParseCertificate reads one certificate, PEM or DER, whose key is one that TLS takes.
//
// Errors: ErrArgumentInvalid.
func ParseCertificate(data []byte) (*x509.Certificate, error) {
	if block, _ := pem.Decode(data); block != nil {
		if block.Type != "CERTIFICATE" {
			return nil, ErrArgumentInvalid.With("a PEM block of type CERTIFICATE is wanted, not %s", words.Clip(block.Type))
		}
		data = block.Bytes
	} else if bytes.Contains(data, []byte("-----BEGIN")) {
		return nil, ErrArgumentInvalid.With("the PEM text is damaged")
	}
	cert, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, ErrArgumentInvalid.With("the certificate cannot be read: %v", err)
	}
	if !usableKey(cert.PublicKey) {
		return nil, ErrArgumentInvalid.With("the key of the certificate must be RSA with up to %d bits, ECDSA or Ed25519", maxRSABits)
	}
	return cert, nil
}

// maxRSABits is what TLS takes. To check a signature of a key as large as fits
// into a certificate takes seconds.
const maxRSABits = 8192

// usableKey reports whether signatures of the key can be checked, in no time. A
// curve that is not known is no key at all.
func usableKey(key any) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() <= maxRSABits
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

func validAt(cert *x509.Certificate, now time.Time) error {
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return ErrArgumentInvalid.With("the certificate of %s is valid from %s to %s only", words.Clip(cert.Subject.String()),
			cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339))
	}
	return nil
}
