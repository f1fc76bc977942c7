package bulk

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/sas"
	"github.com/iotdm/iotdm/twin"
)

// An enrollmentEntry is an enrollment with what is to be done with it.
type enrollmentEntry struct {
	hubrest.Enrollment
	ImportMode hubrest.ImportMode `json:"importMode,omitempty"`
}

// An EnrollmentReader reads a file of enrollments of a kind.
type EnrollmentReader = readerOf[enrollmentEntry]

// NewEnrollmentReader is NewReader for enrollments of a kind: each line is one as the
// API of the provisioning service has it.
func NewEnrollmentReader(r io.Reader, format string, kind hubrest.EnrollmentKind) (EnrollmentReader, error) {
	form := fileForm[enrollmentEntry]{csv: enrollmentTable(kind)}
	form.settle = func(e *enrollmentEntry) error { return settleEnrollment(e, kind) }
	form.parse = func(text []byte) (e enrollmentEntry, err error) {
		if !utf8.Valid(text) {
			return e, errNotUTF8
		}
		if err := json.Unmarshal(text, &e); err != nil {
			return enrollmentEntry{}, plainEntryError(err)
		}
		return e, settleEnrollment(&e, kind)
	}
	return form.newReader(r, format)
}

// enrollmentModes are the modes that there are for enrollments, by their names in
// lower case.
var enrollmentModes = map[string]hubrest.ImportMode{
	"create": hubrest.ImportCreate, "update": hubrest.ImportUpdate, "createorupdate": hubrest.ImportCreateOrUpdate,
	"updateifmatchetag": hubrest.ImportUpdateIfMatchETag, "delete": hubrest.ImportDelete,
}

// EnrollmentModeNamed finds a mode for enrollments by its name in any case.
func EnrollmentModeNamed(name string) (hubrest.ImportMode, bool) {
	m, known := enrollmentModes[strings.ToLower(name)]
	return m, known
}

// registrationPattern is what the service takes for an id.
var registrationPattern = regexp.MustCompile(`^[A-Za-z0-9\-._:]{0,127}[A-Za-z0-9\-]$`)

// settleEnrollment checks what can be checked without the service, and puts names
// into the spelling that the service has.
func settleEnrollment(e *enrollmentEntry, kind hubrest.EnrollmentKind) error {
	member := phrase.Choose(kind == hubrest.Group, "enrollmentGroupId", "registrationId")
	switch {
	case e.RegistrationID != "" && e.GroupID != "", e.ID() != "" && e.Kind() != kind:
		return fmt.Errorf("is of the other kind: here each line has %s and no other id", phrase.Choose(kind == hubrest.Group, "enrollmentGroupId", "registrationId"))
	case e.ID() == "":
		return fmt.Errorf("has no %s", member)
	case !registrationPattern.MatchString(e.ID()):
		return fmt.Errorf("%s %q is not 1 to 128 of the letters, digits and - . _ : with a letter, digit or - at its end", member, phrase.Clip(e.ID()))
	}
	if e.ImportMode != "" {
		mode, known := EnrollmentModeNamed(string(e.ImportMode))
		if !known {
			return fmt.Errorf("importMode %q is none of create, update, createOrUpdate, updateIfMatchETag, delete", phrase.Clip(string(e.ImportMode)))
		}
		e.ImportMode = mode
	}
	switch e.ProvisioningStatus = hubrest.Status(strings.ToLower(string(e.ProvisioningStatus))); e.ProvisioningStatus {
	case "", hubrest.Enabled, hubrest.Disabled:
	default:
		return fmt.Errorf("provisioningStatus %q is neither enabled nor disabled", phrase.Clip(string(e.ProvisioningStatus)))
	}
	e.RegistrationState, e.Created, e.LastUpdated = nil, hubrest.Time{}, hubrest.Time{}
	if string(e.Information) == "null" {
		e.Information = nil
	}
	if e.InitialTwin != nil {
		if err := settleInitialTwin(e.InitialTwin); err != nil {
			return err
		}
		if e.InitialTwin.Tags == nil && e.InitialTwin.Properties.Desired == nil {
			e.InitialTwin = nil
		}
	}
	return settleAttestation(&e.Attestation)
}

func settleInitialTwin(t *hubrest.InitialTwin) error {
	for _, section := range []struct {
		name string
		doc  *json.RawMessage
	}{{"tags", &t.Tags}, {"properties.desired", &t.Properties.Desired}} {
		if len(*section.doc) == 0 || string(*section.doc) == "null" {
			*section.doc = nil
			continue
		}
		doc, err := twin.StripReadOnly(*section.doc)
		if err != nil {
			return fmt.Errorf("initialTwin.%s is not a JSON object", section.name)
		}
		if *section.doc = doc; string(doc) == "{}" {
			*section.doc = nil
		}
	}
	return nil
}

func settleAttestation(a *hubrest.Attestation) error {
	if a.Type == "" {
		a.Type = hubrest.BySymmetricKey
		if a.X509 != nil {
			a.Type = hubrest.ByX509
		}
	}
	for _, t := range []hubrest.AttestationType{hubrest.BySymmetricKey, hubrest.ByX509, hubrest.ByTPM} {
		if strings.EqualFold(string(a.Type), string(t)) {
			a.Type = t
		}
	}
	switch a.Type {
	case hubrest.BySymmetricKey:
		a.X509 = nil
		if a.SymmetricKey == nil {
			a.SymmetricKey = &hubrest.SymmetricKey{}
		}
		return settleKeys(*a.SymmetricKey)
	case hubrest.ByX509:
		a.SymmetricKey = nil
		if a.X509 == nil {
			return errors.New("has the attestation x509, but no certificate")
		}
		return eachCertificate(a.X509, func(c *hubrest.X509Certificate) error {
			if c.Certificate == "" {
				return nil
			}
			_, err := thumbprintOf(c.Certificate)
			return err
		})
	case hubrest.ByTPM:
		return errors.New("has the attestation tpm, which is not supported")
	}
	return fmt.Errorf("attestation %q is neither symmetricKey nor x509", phrase.Clip(string(a.Type)))
}

func settleKeys(keys hubrest.SymmetricKey) error {
	for _, k := range []struct {
		name string
		key  sas.Key
	}{{"primaryKey", keys.PrimaryKey}, {"secondaryKey", keys.SecondaryKey}} {
		if k.key == "" {
			continue
		}
		if err := k.key.Validate(); err != nil {
			return fmt.Errorf("%s is %v", k.name, err)
		}
	}
	if (keys.PrimaryKey == "") != (keys.SecondaryKey == "") {
		return errors.New("primaryKey and secondaryKey go together")
	}
	return nil
}

// eachCertificate calls fn for the certificates of an attestation.
func eachCertificate(a *hubrest.X509Attestation, fn func(*hubrest.X509Certificate) error) error {
	for _, certificates := range []*hubrest.X509Certificates{a.ClientCertificates, a.SigningCertificates} {
		if certificates == nil {
			continue
		}
		for _, c := range []*hubrest.X509Certificate{certificates.Primary, certificates.Secondary} {
			if c == nil {
				continue
			}
			if err := fn(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// thumbprintOf returns the SHA-256 of a certificate in PEM, or in the base64 of DER
// or PEM.
func thumbprintOf(text string) (string, error) {
	der := []byte(text)
	if !bytes.Contains(der, []byte("-----BEGIN")) {
		decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			return "", errors.New("a certificate is neither PEM nor base64")
		}
		der = decoded
	}
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	}
	if _, err := x509.ParseCertificate(der); err != nil {
		return "", errors.New("a certificate is none")
	}
	sum := sha256.Sum256(der)
	return strings.ToUpper(hex.EncodeToString(sum[:])), nil
}

// withoutCertificate reports whether a certificate of e is not in the file, but only
// what it says: services do not give certificates out.
func (e *enrollmentEntry) withoutCertificate() bool {
	missing := false
	if a := e.Attestation.X509; a != nil {
		eachCertificate(a, func(c *hubrest.X509Certificate) error { // never fails
			missing = missing || c.Certificate == ""
			return nil
		})
	}
	return missing
}

// wireEnrollment is what a request says of an entry.
func wireEnrollment(e enrollmentEntry, mode hubrest.EnrollmentMode) hubrest.Enrollment {
	if mode == hubrest.BulkDelete {
		return hubrest.Enrollment{RegistrationID: e.RegistrationID, GroupID: e.GroupID, Attestation: hubrest.Attestation{Type: cmp.Or(e.Attestation.Type, hubrest.BySymmetricKey)}}
	}
	if mode != hubrest.BulkUpdateIfMatchETag {
		e.ETag = ""
	}
	return e.Enrollment
}
