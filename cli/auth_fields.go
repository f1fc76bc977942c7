package cli

import (
	urfave "github.com/urfave/cli/v2"

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
		&urfave.StringFlag{Name: "primary-thumbprint", Destination: &f.primaryThumbprint, Usage: "SHA-1 or SHA-256 of a certificate, in `HEX`"},
		&urfave.StringFlag{Name: "secondary-thumbprint", Destination: &f.secondaryThumbprint, Usage: "SHA-1 or SHA-256 of a certificate, in `HEX`"},
	}
}

func (f *authFields) check() error {
	if f.method != "" && authMethods[f.method] == "" {
		return usagef("--auth-method %q is none of sas, x509_thumbprint, x509_ca", f.method)
	}
	if (f.primaryKey == "") != (f.secondaryKey == "") {
		return usagef("--primary-key and --secondary-key go together; give both or neither")
	}
	return nil
}

// apply puts the fields that were given into a.
func (f *authFields) apply(s streams, a *hubrest.Authentication) error {
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
		text, err := readValue(s, k.flag, k.value)
		if err != nil {
			return err
		}
		if err := sas.Key(text).Validate(); err != nil {
			return usagef("%s is %v", k.flag, err)
		}
		*k.to, a.Type = sas.Key(text), hubrest.AuthSAS
	}
	if f.primaryThumbprint != "" {
		a.X509Thumbprint.PrimaryThumbprint, a.Type = f.primaryThumbprint, hubrest.AuthSelfSigned
	}
	if f.secondaryThumbprint != "" {
		a.X509Thumbprint.SecondaryThumbprint, a.Type = f.secondaryThumbprint, hubrest.AuthSelfSigned
	}
	if f.method != "" {
		a.Type = authMethods[f.method]
	}
	return nil
}
