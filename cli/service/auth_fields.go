package service

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// authFields are the flags for how a device or module authenticates. A flag
// that is not given leaves a field as it is.
type authFields struct {
	method                                 string
	primaryKey, secondaryKey               string
	primaryThumbprint, secondaryThumbprint string
}

// authMethods are the spellings of "az iot hub" and of the registry itself.
var authMethods = map[string]hubrest.AuthenticationType{
	"sas":                  hubrest.AuthSAS,
	"shared_private_key":   hubrest.AuthSAS,
	"selfSigned":           hubrest.AuthSelfSigned,
	"x509_thumbprint":      hubrest.AuthSelfSigned,
	"certificateAuthority": hubrest.AuthCertificateAuthority,
	"x509_ca":              hubrest.AuthCertificateAuthority,
}

func (f *authFields) flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "auth-method", Destination: &f.method, Usage: "`HOW`: sas, x509_thumbprint or x509_ca"},
		&urfave.StringFlag{Name: "primary-key", Destination: &f.primaryKey, Usage: "`KEY` in base64, @FILE or - (default: a new one)"},
		&urfave.StringFlag{Name: "secondary-key", Destination: &f.secondaryKey, Usage: "`KEY` in base64, @FILE or - (default: a new one)"},
		&urfave.StringFlag{Name: "primary-thumbprint", Destination: &f.primaryThumbprint, Usage: "SHA-1 or SHA-256 of a certificate in `HEX`, or its @FILE (PEM)"},
		&urfave.StringFlag{Name: "secondary-thumbprint", Destination: &f.secondaryThumbprint, Usage: "SHA-1 or SHA-256 of a certificate in `HEX`, or its @FILE (PEM)"},
	}
}

func (f *authFields) check() error {
	if f.method != "" && authMethods[f.method] == "" {
		return fail.Usagef("--auth-method %q is none of sas, x509_thumbprint, x509_ca", f.method)
	}
	if (f.primaryKey == "") != (f.secondaryKey == "") {
		return fail.Usagef("--primary-key and --secondary-key go together; give both or neither")
	}
	return nil
}

// checkNew is check for an identity that has nothing yet.
func (f *authFields) checkNew() error {
	if authMethods[f.method] == hubrest.AuthSelfSigned && f.primaryThumbprint == "" {
		return fail.Usagef("--auth-method %s needs --primary-thumbprint: that of the certificate, or @FILE with it", f.method)
	}
	return nil
}

// apply puts the fields that were given into a.
func (f *authFields) apply(s output.Streams, a *hubrest.Authentication) error {
	for _, k := range []struct {
		flag, value string
		to          *sas.Key
	}{
		{"--primary-key", f.primaryKey, &a.SymmetricKey.PrimaryKey},
		{"--secondary-key", f.secondaryKey, &a.SymmetricKey.SecondaryKey},
	} {
		if k.value == "" {
			continue
		}
		text, err := command.ReadValue(s, k.flag, k.value)
		if err != nil {
			return err
		}
		if err := sas.Key(text).Validate(); err != nil {
			return fail.Usagef("%s is %v", k.flag, err)
		}
		*k.to, a.Type = sas.Key(text), hubrest.AuthSAS
	}
	for _, t := range []struct {
		flag, value string
		to          *string
	}{
		{"--primary-thumbprint", f.primaryThumbprint, &a.X509Thumbprint.PrimaryThumbprint},
		{"--secondary-thumbprint", f.secondaryThumbprint, &a.X509Thumbprint.SecondaryThumbprint},
	} {
		if t.value == "" {
			continue
		}
		thumbprint, err := readThumbprint(s, t.flag, t.value)
		if err != nil {
			return err
		}
		*t.to, a.Type = thumbprint, hubrest.AuthSelfSigned
	}
	if f.method != "" {
		a.Type = authMethods[f.method]
	}
	return nil
}

// readThumbprint returns a thumbprint that is given as it is, or as the
// certificate of which it is the SHA-256.
func readThumbprint(s output.Streams, flag, value string) (string, error) {
	text, err := command.ReadValue(s, flag, value)
	if err != nil {
		return "", err
	}
	if block, _ := pem.Decode([]byte(text)); block != nil {
		if block.Type != "CERTIFICATE" {
			return "", fail.Usagef("%s: the file has a %s first, not a certificate", flag, strings.ToLower(block.Type))
		}
		sum := sha256.Sum256(block.Bytes)
		return strings.ToUpper(hex.EncodeToString(sum[:])), nil
	}
	plain := strings.NewReplacer(":", "", " ", "").Replace(text) // as openssl prints it
	if b, err := hex.DecodeString(plain); err != nil || len(b) != 20 && len(b) != 32 {
		return "", fail.Usagef("%s is neither 40 nor 64 hexadecimal digits, nor a certificate in PEM", flag)
	}
	return plain, nil
}
