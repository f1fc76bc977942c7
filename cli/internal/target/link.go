package target

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"os"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// LinkOptions are the flags that say how a device connects.
type LinkOptions struct {
	transport         string
	certFile, keyFile string
	model             string
}

const linkCategory = "How to connect"

// Flags returns the flags that fill o.
func (o *LinkOptions) Flags() []urfave.Flag {
	return append([]urfave.Flag{
		&urfave.StringFlag{Name: "transport", Category: linkCategory, Destination: &o.transport, Value: "auto",
			Usage: "mqtt (port 8883), ws (MQTT over WebSocket, port 443), or auto: ws where port 8883 is blocked"},
	}, o.CredentialFlags()...)
}

// CredentialFlags are Flags for a command that does not connect.
func (o *LinkOptions) CredentialFlags() []urfave.Flag {
	const category = linkCategory
	return []urfave.Flag{
		&urfave.StringFlag{Name: "cert-file", Category: category, Destination: &o.certFile,
			Usage: "prove the identity with the certificate in `FILE` (PEM, then those that lead to its CA) instead of a key"},
		&urfave.StringFlag{Name: "key-file", Category: category, Destination: &o.keyFile,
			Usage: "the private key of the certificate, in `FILE` (PEM; default: that of --cert-file)"},
		&urfave.StringFlag{Name: "model-id", Category: category, Destination: &o.model,
			Usage: "announce the Plug and Play model `DTMI`, such as dtmi:com:example:Pump;1"},
	}
}

// A Link is how a device connects, and what it has instead of a key.
type Link struct {
	Transport   mqttdevice.Transport
	Certificate *tls.Certificate // nil: a key
	Model       string           // of Plug and Play; empty: none

	CertFile, KeyFile string // where Certificate was read from
}

var transports = map[string]mqttdevice.Transport{"auto": mqttdevice.Auto, "mqtt": mqttdevice.TCP, "ws": mqttdevice.WebSocket}

// Link reads the certificate, if one is named.
func (o *LinkOptions) Link() (Link, error) {
	transport, known := transports[cmp.Or(o.transport, "auto")]
	switch {
	case !known:
		return Link{}, fail.Usagef("--transport %q is not auto, mqtt or ws", o.transport)
	case o.certFile == "" && o.keyFile != "":
		return Link{}, fail.Usagef("--key-file goes with --cert-file; name the certificate too")
	case o.certFile == "":
		return Link{Transport: transport, Model: o.model}, nil
	}
	cert, err := os.ReadFile(o.certFile)
	if err != nil {
		return Link{}, fail.Usagef("--cert-file: %v", fail.PlainPathError(err))
	}
	keyFile := cmp.Or(o.keyFile, o.certFile)
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return Link{}, fail.Usagef("--key-file: %v", fail.PlainPathError(err))
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return Link{}, fail.Usagef("--cert-file %s, --key-file %s: %v", o.certFile, keyFile, err)
	}
	return Link{transport, &pair, o.model, o.certFile, keyFile}, nil
}

// checkConnection checks that the connection string of a device wants the
// certificate that is given, or none.
func (l Link) checkConnection(c sas.ConnectionString) error {
	switch {
	case c.X509 && l.Certificate == nil:
		return fail.Usagef("the connection string says x509=true; name the certificate of device %q with --cert-file and --key-file", c.DeviceID)
	case !c.X509 && l.Certificate != nil:
		return fail.Usagef("the connection string has a key; leave out --cert-file, or give a connection string that ends with x509=true")
	}
	return nil
}

// authentication is that of a device to be registered.
func (l Link) authentication() hubrest.Authentication {
	if l.Certificate == nil {
		return hubrest.Authentication{}
	}
	sum := sha256.Sum256(l.Certificate.Certificate[0])
	return hubrest.Authentication{
		Type:           hubrest.AuthSelfSigned,
		X509Thumbprint: hubrest.X509Thumbprint{PrimaryThumbprint: hex.EncodeToString(sum[:])},
	}
}

// config adds the certificate to the configuration that says whom to trust.
func (l Link) config(trusted *tls.Config) *tls.Config {
	if l.Certificate == nil {
		return trusted
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if trusted != nil {
		config = trusted.Clone()
	}
	config.Certificates = []tls.Certificate{*l.Certificate}
	return config
}

// CertificateName is the common name of the certificate.
func (l Link) CertificateName() string {
	if leaf, err := x509.ParseCertificate(l.Certificate.Certificate[0]); err == nil {
		return leaf.Subject.CommonName
	}
	return ""
}
