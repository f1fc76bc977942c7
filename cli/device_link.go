package cli

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"os"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// linkOptions are the flags that say how a device connects.
type linkOptions struct {
	transport         string
	certFile, keyFile string
	model             string
}

func (o *linkOptions) flags() []urfave.Flag {
	const category = "How to connect"
	return []urfave.Flag{
		&urfave.StringFlag{Name: "transport", Category: category, Destination: &o.transport, Value: "auto",
			Usage: "mqtt (port 8883), ws (MQTT over WebSocket, port 443), or auto: ws where port 8883 is blocked"},
		&urfave.StringFlag{Name: "cert-file", Category: category, Destination: &o.certFile,
			Usage: "prove the identity with the certificate in `FILE` (PEM, then those that lead to its CA) instead of a key"},
		&urfave.StringFlag{Name: "key-file", Category: category, Destination: &o.keyFile,
			Usage: "the private key of the certificate, in `FILE` (PEM; default: that of --cert-file)"},
		&urfave.StringFlag{Name: "model-id", Category: category, Destination: &o.model,
			Usage: "announce the Plug and Play model `DTMI`, such as dtmi:com:example:Pump;1"},
	}
}

// A deviceLink is how a device connects, and what it has instead of a key.
type deviceLink struct {
	transport   mqttdevice.Transport
	certificate *tls.Certificate // nil: a key
	model       string           // of Plug and Play; empty: none
}

var transports = map[string]mqttdevice.Transport{"auto": mqttdevice.Auto, "mqtt": mqttdevice.TCP, "ws": mqttdevice.WebSocket}

func (o *linkOptions) link() (deviceLink, error) {
	transport, known := transports[o.transport]
	switch {
	case !known:
		return deviceLink{}, usagef("--transport %q is not auto, mqtt or ws", o.transport)
	case o.certFile == "" && o.keyFile != "":
		return deviceLink{}, usagef("--key-file goes with --cert-file; name the certificate too")
	case o.certFile == "":
		return deviceLink{transport: transport, model: o.model}, nil
	}
	cert, err := os.ReadFile(o.certFile)
	if err != nil {
		return deviceLink{}, usagef("--cert-file: %v", plainPathError(err))
	}
	key, err := os.ReadFile(cmp.Or(o.keyFile, o.certFile))
	if err != nil {
		return deviceLink{}, usagef("--key-file: %v", plainPathError(err))
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return deviceLink{}, usagef("--cert-file %s, --key-file %s: %v", o.certFile, cmp.Or(o.keyFile, o.certFile), err)
	}
	return deviceLink{transport, &pair, o.model}, nil
}

// checkConnection checks that the connection string of a device wants the
// certificate that is given, or none.
func (l deviceLink) checkConnection(c sas.ConnectionString) error {
	switch {
	case c.X509 && l.certificate == nil:
		return usagef("the connection string says x509=true; name the certificate of device %q with --cert-file and --key-file", c.DeviceID)
	case !c.X509 && l.certificate != nil:
		return usagef("the connection string has a key; leave out --cert-file, or give a connection string that ends with x509=true")
	}
	return nil
}

// authentication is that of a device to be registered.
func (l deviceLink) authentication() hubrest.Authentication {
	if l.certificate == nil {
		return hubrest.Authentication{}
	}
	sum := sha256.Sum256(l.certificate.Certificate[0])
	return hubrest.Authentication{
		Type:           hubrest.AuthSelfSigned,
		X509Thumbprint: hubrest.X509Thumbprint{PrimaryThumbprint: hex.EncodeToString(sum[:])},
	}
}

// config adds the certificate to the configuration that says whom to trust.
func (l deviceLink) config(trusted *tls.Config) *tls.Config {
	if l.certificate == nil {
		return trusted
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if trusted != nil {
		config = trusted.Clone()
	}
	config.Certificates = []tls.Certificate{*l.certificate}
	return config
}

// certificateName is the common name of the certificate.
func (l deviceLink) certificateName() string {
	if leaf, err := x509.ParseCertificate(l.certificate.Certificate[0]); err == nil {
		return leaf.Subject.CommonName
	}
	return ""
}
