package provisioning

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/iotdm/iotdm/hub"
)

// parse reads a certificate as clients give it: PEM, its base64 form as the e2e
// suite of the Node SDK writes, or the base64 form of DER.
//
// Errors: ErrBadRequest.
func (c *Certificate) parse() (*x509.Certificate, error) {
	data := []byte(c.Text)
	if !strings.Contains(c.Text, "-----BEGIN") {
		var err error
		if data, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(c.Text), "")); err != nil {
			return nil, ErrBadRequest.With("a certificate is neither PEM nor base64")
		}
	}
	cert, err := hub.ParseCertificate(data)
	if err != nil {
		return nil, ErrBadRequest.With("%s", hub.RefusalOf(err).Text)
	}
	return cert, nil
}

// newInfo returns what a certificate says.
func newInfo(c *x509.Certificate) *CertificateInfo {
	sum1 := sha1.Sum(c.Raw)
	return &CertificateInfo{
		Subject: c.Subject.String(), Issuer: c.Issuer.String(),
		SHA1: strings.ToUpper(hex.EncodeToString(sum1[:])), SHA256: thumbprint(c),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		Serial: strings.ToUpper(hex.EncodeToString(c.SerialNumber.Bytes())), Version: c.Version,
	}
}

func thumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// each returns those that there are, none if c is nil.
func (c *Certificates) each() (list []*Certificate) {
	if c == nil {
		return nil
	}
	for _, one := range []*Certificate{c.Primary, c.Secondary} {
		if one != nil {
			list = append(list, one)
		}
	}
	return list
}

// without returns c as it is read: what the certificates say, not themselves.
func (c *Certificates) without() *Certificates {
	if c == nil {
		return nil
	}
	shown := func(c *Certificate) *Certificate {
		if c == nil {
			return nil
		}
		return &Certificate{Info: c.Info}
	}
	return &Certificates{shown(c.Primary), shown(c.Secondary)}
}

func (c *Certificates) clone() *Certificates {
	if c == nil {
		return nil
	}
	other := *c
	for _, one := range []**Certificate{&other.Primary, &other.Secondary} {
		if *one != nil {
			certificate := **one
			*one = &certificate
		}
	}
	return &other
}

// names returns the names of the CAs.
func (r *CAReferences) names() (list []string) {
	if r == nil {
		return nil
	}
	for _, name := range []string{r.Primary, r.Secondary} {
		if name != "" {
			list = append(list, name)
		}
	}
	return list
}

// settle reads the certificates of c. Those that are given only by what they say,
// as they are read, are kept from before.
//
// Errors: ErrBadRequest.
func (c *Certificates) settle(before *Certificates, ca bool) error {
	if c == nil {
		return nil
	}
	if c.Primary == nil {
		return ErrBadRequest.With("a primary certificate is needed")
	}
	for _, one := range c.each() {
		if one.Text == "" && one.Info != nil {
			for _, had := range before.each() {
				if strings.EqualFold(had.Info.SHA256, one.Info.SHA256) {
					*one = *had
				}
			}
		}
		cert, err := one.parse()
		if err != nil {
			return err
		}
		if ca && !cert.IsCA {
			return ErrBadRequest.With("the signing certificate of %q is not that of a certificate authority", cert.Subject.CommonName)
		}
		one.Info = newInfo(cert)
	}
	return nil
}
