package service

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/sas"
)

// attestationFields are the flags for how a device proves what it is to the
// provisioning service. A flag that is not given leaves a field as it is.
type attestationFields struct {
	method                            string
	primaryKey, secondaryKey          string
	certificate, secondaryCertificate string
	removePrimary, removeSecondary    bool
	ca, secondaryCA                   string
}

// attestationTypes are by the spellings of az and of the service, in lower case.
var attestationTypes = map[string]hubrest.AttestationType{"symmetrickey": hubrest.BySymmetricKey, "x509": hubrest.ByX509}

func (f *attestationFields) flags(k enrollmentKind, change bool) []urfave.Flag {
	key := phrase.Choose(change, "", " (default: a new one)")
	signing := phrase.Choose(k.kind == hubrest.Group, "of the CA that signs those of the devices", "of the device")
	flags := []urfave.Flag{
		&urfave.StringFlag{Name: "attestation-type", Destination: &f.method, Usage: "`HOW` devices prove what they are: symmetricKey or x509 (default: by the other flags)"},
		&urfave.StringFlag{Name: "primary-key", Destination: &f.primaryKey, Usage: "`KEY` in base64, @FILE or -" + key},
		&urfave.StringFlag{Name: "secondary-key", Destination: &f.secondaryKey, Usage: "`KEY` in base64, @FILE or -" + key},
		&urfave.StringFlag{Name: "certificate-path", Destination: &f.certificate, Usage: "the `FILE` (PEM or DER) with the certificate " + signing},
		&urfave.StringFlag{Name: "secondary-certificate-path", Destination: &f.secondaryCertificate, Usage: "the `FILE` with another certificate that is as good"},
	}
	if change {
		flags = append(flags,
			&urfave.BoolFlag{Name: "remove-certificate", Destination: &f.removePrimary, DisableDefaultText: true, Usage: "take the first certificate away"},
			&urfave.BoolFlag{Name: "remove-secondary-certificate", Destination: &f.removeSecondary, DisableDefaultText: true, Usage: "take the second certificate away"})
	}
	if k.kind == hubrest.Group {
		flags = append(flags,
			&urfave.StringFlag{Name: "root-ca-name", Destination: &f.ca, Usage: "the `NAME` of a verified CA certificate of the service, instead of a file"},
			&urfave.StringFlag{Name: "secondary-root-ca-name", Destination: &f.secondaryCA, Usage: "the `NAME` of another one"})
	}
	return flags
}

// keys reports whether a flag of keys was given, and certificates the same of those.
func (f *attestationFields) keys() bool { return f.primaryKey != "" || f.secondaryKey != "" }
func (f *attestationFields) certificates() bool {
	return f.certificate != "" || f.secondaryCertificate != "" || f.ca != "" || f.secondaryCA != "" || f.removePrimary || f.removeSecondary
}

// kind is the attestation that the flags are of; "" is none.
func (f *attestationFields) kind() hubrest.AttestationType {
	switch {
	case f.method != "":
		return attestationTypes[strings.ToLower(f.method)]
	case f.certificates():
		return hubrest.ByX509
	case f.keys():
		return hubrest.BySymmetricKey
	}
	return ""
}

func (f *attestationFields) check() error {
	files, names := f.certificate != "" || f.secondaryCertificate != "", f.ca != "" || f.secondaryCA != ""
	switch {
	case strings.EqualFold(f.method, "tpm"):
		return fail.Usagef("--attestation-type tpm: enrollments of TPMs are not supported; use symmetricKey or x509")
	case f.method != "" && f.kind() == "":
		return fail.Usagef("--attestation-type %q is neither symmetricKey nor x509", f.method)
	case f.keys() && f.kind() != hubrest.BySymmetricKey, f.certificates() && f.kind() != hubrest.ByX509:
		return fail.Usagef("keys and certificates exclude each other; give --primary-key or --certificate-path, and the --attestation-type that goes with it")
	case files && names:
		return fail.Usagef("--certificate-path and --root-ca-name exclude each other: the certificate is in a file, or with the service")
	case f.certificate != "" && f.removePrimary, f.secondaryCertificate != "" && f.removeSecondary:
		return fail.Usagef("a certificate is given or taken away, not both")
	}
	return nil
}

// checkNew is check for an enrollment that has nothing yet.
func (f *attestationFields) checkNew(k enrollmentKind) error {
	switch {
	case (f.primaryKey == "") != (f.secondaryKey == ""):
		return fail.Usagef("--primary-key and --secondary-key go together; give both or neither")
	case f.kind() == hubrest.ByX509 && f.certificate == "" && f.ca == "":
		return fail.Usagef("--attestation-type x509 needs --certificate-path%s", phrase.Choose(k.kind == hubrest.Group, " or --root-ca-name", ""))
	}
	return nil
}

// apply puts the fields that were given into a.
func (f *attestationFields) apply(s output.Streams, k enrollmentKind, a *hubrest.Attestation) error {
	switch kind := f.kind(); {
	case kind == "":
		return nil
	case kind == hubrest.BySymmetricKey:
		return f.applyKeys(s, a)
	case a.Type != kind || a.X509 == nil:
		*a = hubrest.Attestation{Type: kind, X509: &hubrest.X509Attestation{}}
	}
	if f.ca != "" || f.secondaryCA != "" {
		names := hubrest.CAReferences{}
		if a.X509.CAReferences != nil {
			names = *a.X509.CAReferences
		}
		setIf(&names.Primary, f.ca)
		setIf(&names.Secondary, f.secondaryCA)
		a.X509 = &hubrest.X509Attestation{CAReferences: &names}
		return nil
	}
	if f.certificates() {
		a.X509.CAReferences = nil
		certificates := &a.X509.ClientCertificates
		if k.kind == hubrest.Group {
			certificates = &a.X509.SigningCertificates
		}
		if *certificates == nil {
			*certificates = &hubrest.X509Certificates{}
		}
		if err := f.applyCertificates(s, *certificates); err != nil {
			return err
		}
		if **certificates == (hubrest.X509Certificates{}) {
			return fail.Usagef("no certificate would be left; give another one with --certificate-path")
		}
	}
	return nil
}

func setIf(field *string, value string) {
	if value != "" {
		*field = value
	}
}

func (f *attestationFields) applyKeys(s output.Streams, a *hubrest.Attestation) error {
	keys := hubrest.SymmetricKey{} // the service makes both
	if a.Type == hubrest.BySymmetricKey && a.SymmetricKey != nil {
		keys = *a.SymmetricKey
	}
	for _, k := range []struct {
		flag, value string
		to          *sas.Key
	}{{"--primary-key", f.primaryKey, &keys.PrimaryKey}, {"--secondary-key", f.secondaryKey, &keys.SecondaryKey}} {
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
		*k.to = sas.Key(text)
	}
	*a = hubrest.Attestation{Type: hubrest.BySymmetricKey, SymmetricKey: &keys}
	return nil
}

func (f *attestationFields) applyCertificates(s output.Streams, c *hubrest.X509Certificates) error {
	for _, file := range []struct {
		flag, name string
		remove     bool
		to         **hubrest.X509Certificate
	}{
		{"--certificate-path", f.certificate, f.removePrimary, &c.Primary},
		{"--secondary-certificate-path", f.secondaryCertificate, f.removeSecondary, &c.Secondary},
	} {
		switch {
		case file.remove:
			*file.to = nil
		case file.name != "":
			text, err := readCertificate(s, file.flag, file.name)
			if err != nil {
				return err
			}
			*file.to = &hubrest.X509Certificate{Certificate: text}
		}
	}
	if c.Primary == nil { // the service wants one
		c.Primary, c.Secondary = c.Secondary, nil
	}
	return nil
}

// readCertificate returns the first certificate of a file, which may have been
// named with an @ as other flags want it, as PEM.
func readCertificate(s output.Streams, flag, file string) (string, error) {
	if file != "-" {
		file = "@" + strings.TrimPrefix(file, "@")
	}
	text, err := command.ReadValue(s, flag, file)
	if err != nil {
		return "", err
	}
	der := []byte(text)
	if block, _ := pem.Decode(der); block != nil {
		if block.Type != "CERTIFICATE" {
			return "", fail.Usagef("%s: the file has a %s first, not a certificate", flag, strings.ToLower(block.Type))
		}
		der = block.Bytes
	}
	if _, err := x509.ParseCertificate(der); err != nil {
		return "", fail.Usagef("%s: the file holds no certificate in PEM or DER", flag)
	}
	var b bytes.Buffer
	pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a buffer takes all
	return b.String(), nil
}
