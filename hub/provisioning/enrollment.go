package provisioning

import (
	"encoding/json"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/sas"
)

// A Kind says what an enrollment is for.
type Kind uint8

// The kinds of enrollments.
const (
	Individual Kind = iota // one device
	Group                  // all whose keys are derived from the group's, or whose certificates its certificate has signed
)

// An Enrollment says which devices may register, and what they get: an individual
// enrollment, or an enrollment group. Its JSON form is that of the service's REST
// API, and the stored one; it holds keys.
type Enrollment struct {
	RegistrationID string `json:"registrationId,omitempty"`    // of an individual enrollment
	GroupID        string `json:"enrollmentGroupId,omitempty"` // of a group

	DeviceID     string          `json:"deviceId,omitempty"` // of an individual one; empty is the registration id
	Attestation  Attestation     `json:"attestation"`
	Capabilities Capabilities    `json:"capabilities"`
	InitialTwin  *Twin           `json:"initialTwin,omitempty"`
	Information  json.RawMessage `json:"optionalDeviceInformation,omitempty"`
	Status       hub.Status      `json:"provisioningStatus,omitempty"`
	Reprovision  *Reprovision    `json:"reprovisionPolicy,omitempty"` // absent when it is put: both

	HostName   string            `json:"iotHubHostName,omitempty"` // the hub of static allocation
	Allocation Allocation        `json:"allocationPolicy,omitempty"`
	Hubs       []string          `json:"iotHubs,omitempty"` // none: all that are linked
	Custom     *CustomAllocation `json:"customAllocationDefinition,omitempty"`

	ETag    string    `json:"etag,omitempty"` // with its quotes
	Created time.Time `json:"createdDateTimeUtc,omitzero"`
	Updated time.Time `json:"lastUpdatedDateTimeUtc,omitzero"`

	// Registration is that of an individual enrollment when it is read, and not
	// stored with it.
	Registration *Registration `json:"registrationState,omitempty"`
}

// ID returns the registration id, or that of a group.
func (e Enrollment) ID() string { return e.RegistrationID + e.GroupID }

// Kind returns whether e is a group.
func (e Enrollment) Kind() Kind {
	if e.GroupID != "" {
		return Group
	}
	return Individual
}

// Capabilities of the device.
type Capabilities struct {
	IoTEdge bool `json:"iotEdge"`
}

// A Twin is what the twin of a new device has.
type Twin struct {
	Tags       json.RawMessage `json:"tags,omitempty"`
	Properties struct {
		Desired json.RawMessage `json:"desired,omitempty"`
	} `json:"properties,omitzero"`
}

// Reprovision says what a device gets that registers again.
type Reprovision struct {
	UpdateHub bool `json:"updateHubAssignment"` // another hub, if the allocation says so
	Migrate   bool `json:"migrateDeviceData"`   // its twin, as it is; false begins again with the initial one
}

// An Allocation says how a hub is chosen.
type Allocation string

// The allocation policies. "" is Hashed.
const (
	Hashed     Allocation = "hashed"
	GeoLatency Allocation = "geoLatency" // as Hashed: the hub knows no latencies
	Static     Allocation = "static"
	Custom     Allocation = "custom"
)

// A CustomAllocation is the webhook that chooses a hub.
type CustomAllocation struct {
	URL        string `json:"webhookUrl"`
	APIVersion string `json:"apiVersion"`
}

// An Attestation says how devices prove that they are what they say: exactly one
// of its members besides Type is set, that of the type.
type Attestation struct {
	Type         AttestationType `json:"type"`
	SymmetricKey *SymmetricKey   `json:"symmetricKey,omitempty"`
	X509         *X509           `json:"x509,omitempty"`
	TPM          json.RawMessage `json:"tpm,omitempty"` // refused
}

// An AttestationType is the type of an Attestation.
type AttestationType string

// The types that are taken.
const (
	BySymmetricKey AttestationType = "symmetricKey"
	ByX509         AttestationType = "x509"
)

// A SymmetricKey are the two keys of a device, or of a group.
type SymmetricKey struct {
	Primary   sas.Key `json:"primaryKey,omitempty"`
	Secondary sas.Key `json:"secondaryKey,omitempty"`
}

// X509 is one of: the certificates of a device, those that sign a group's, or the
// names of CA certificates that the hub has and whose owner has proved it.
type X509 struct {
	Client  *Certificates `json:"clientCertificates,omitempty"`
	Signing *Certificates `json:"signingCertificates,omitempty"`
	CAs     *CAReferences `json:"caReferences,omitempty"`
}

// Certificates are one or two, so that they can be replaced.
type Certificates struct {
	Primary   *Certificate `json:"primary,omitempty"`
	Secondary *Certificate `json:"secondary,omitempty"`
}

// CAReferences name one or two CA certificates of the hub.
type CAReferences struct {
	Primary   string `json:"primary,omitempty"`
	Secondary string `json:"secondary,omitempty"`
}

// A Certificate is given as PEM or base64, and read as what it says.
type Certificate struct {
	Text string           `json:"certificate,omitempty"`
	Info *CertificateInfo `json:"info,omitempty"`
}

// CertificateInfo is what a certificate says. The service's client for .NET wants
// all of it.
type CertificateInfo struct {
	Subject   string    `json:"subjectName"`
	SHA1      string    `json:"sha1Thumbprint"`
	SHA256    string    `json:"sha256Thumbprint"`
	Issuer    string    `json:"issuerName"`
	NotBefore time.Time `json:"notBeforeUtc"`
	NotAfter  time.Time `json:"notAfterUtc"`
	Serial    string    `json:"serialNumber"`
	Version   int       `json:"version"`
}
