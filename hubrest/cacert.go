package hubrest

import (
	"context"
	"net/http"
)

// A CACertificate is a certificate authority that vouches for devices; see "Authenticate identities with X.509
// certificates". The calls about them are those of the hub of iotdm: with Azure IoT Hub they belong to the management
// API of Azure.
type CACertificate struct {
	Name             string `json:"name"`
	Subject          string `json:"subject"`
	Thumbprint       string `json:"thumbprint"` // SHA-1, in hexadecimal
	Expiry           Time   `json:"expiry"`
	IsVerified       bool   `json:"isVerified"`
	VerificationCode string `json:"verificationCode,omitempty"` // empty once verified
	Created          Time   `json:"created"`
	Updated          Time   `json:"updated"`
	Certificate      []byte `json:"certificate"` // DER
}

// CACertificates returns the registered certificate authorities, in the order of their names.
func (c *Client) CACertificates(ctx context.Context) ([]CACertificate, error) {
	var list []CACertificate
	_, err := c.do(ctx, request{what: "list CA certificates", method: http.MethodGet, path: caPath(), repeat: repeatAlways}, &list)
	return list, err
}

// AddCACertificate registers a certificate authority, PEM or DER. It counts once VerifyCACertificate has shown that its
// key is in your hands.
func (c *Client) AddCACertificate(ctx context.Context, name string, certificate []byte) (CACertificate, error) {
	return c.sendCertificate(ctx, "add CA certificate", http.MethodPut, caPath(name), certificate)
}

// VerifyCACertificate proves possession: the proof, PEM or DER, is a certificate that the authority has signed, and
// whose common name is the verification code.
func (c *Client) VerifyCACertificate(ctx context.Context, name string, proof []byte) (CACertificate, error) {
	return c.sendCertificate(ctx, "verify CA certificate", http.MethodPost, caPath(name, "verify"), proof)
}

// DeleteCACertificate removes a certificate authority, or fails with ErrNotFound. Devices that only it vouched for are
// disconnected.
func (c *Client) DeleteCACertificate(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{what: "delete CA certificate", method: http.MethodDelete, path: caPath(name), repeat: repeatRefused}, nil)
	return err
}

func (c *Client) sendCertificate(ctx context.Context, what, method string, path []string, certificate []byte) (CACertificate, error) {
	var ca CACertificate
	_, err := c.do(ctx, request{
		what:   what,
		method: method,
		path:   path,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		body:   certificate,
		repeat: repeatRefused,
	}, &ca)
	return ca, err
}

func caPath(rest ...string) []string { return append([]string{"iotdm", "certificates"}, rest...) }
