package rest

import (
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub"
)

// maxCertificate bounds a certificate that is sent to the hub.
const maxCertificate = 64 << 10

// caDocument is a CA certificate as REST shows it. The names are those of the
// service's management API, without its layers.
type caDocument struct {
	Name             string `json:"name"`
	Subject          string `json:"subject"`
	Thumbprint       string `json:"thumbprint"` // SHA-1
	Expiry           string `json:"expiry"`
	IsVerified       bool   `json:"isVerified"`
	VerificationCode string `json:"verificationCode,omitempty"`
	Created          string `json:"created"`
	Updated          string `json:"updated"`
	Certificate      []byte `json:"certificate"` // DER
}

func newCADocument(c hub.CACertificate) (caDocument, error) {
	cert, err := c.Certificate()
	if err != nil {
		return caDocument{}, err
	}
	sum := sha1.Sum(c.DER)
	return caDocument{
		Name: c.Name, Subject: cert.Subject.String(), Thumbprint: strings.ToUpper(hex.EncodeToString(sum[:])),
		Expiry: cert.NotAfter.UTC().Format(time.RFC3339), IsVerified: c.Verified, VerificationCode: c.VerificationCode,
		Created: c.Created.Format(time.RFC3339), Updated: c.Updated.Format(time.RFC3339), Certificate: c.DER,
	}, nil
}

func caReply(c hub.CACertificate, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	doc, err := newCADocument(c)
	return reply{body: doc}, err
}

func (d *Door) listCAs(*request) (reply, error) {
	list, err := d.hub.CACertificates()
	if err != nil {
		return reply{}, err
	}
	docs := make([]caDocument, len(list))
	for i, c := range list {
		if docs[i], err = newCADocument(c); err != nil {
			return reply{}, err
		}
	}
	return reply{body: docs}, nil
}

// putCA takes the certificate itself as the body, PEM or DER.
func (d *Door) putCA(r *request) (reply, error) {
	body, err := r.read(maxCertificate)
	if err != nil {
		return reply{}, err
	}
	return caReply(d.hub.AddCACertificate(r.name, body))
}

// verifyCA takes the proof of possession as the body, PEM or DER.
func (d *Door) verifyCA(r *request) (reply, error) {
	body, err := r.read(maxCertificate)
	if err != nil {
		return reply{}, err
	}
	return caReply(d.hub.VerifyCACertificate(r.name, body))
}

func (d *Door) deleteCA(r *request) (reply, error) {
	return reply{}, d.hub.DeleteCACertificate(r.name)
}
