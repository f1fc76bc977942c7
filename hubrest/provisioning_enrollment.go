package hubrest

import "encoding/json"

// An Enrollment says which devices may register with the provisioning service, and what they get: that of one device if
// RegistrationID is set, and an enrollment group if GroupID is. It may hold keys: don't log it whole.
//
// The service keeps RegistrationState, ETag and the times; it ignores them in what it is sent. See the article "Terms
// used with Azure IoT Hub Device Provisioning Service".
type Enrollment struct {
	RegistrationID string `json:"registrationId,omitempty"`
	GroupID        string `json:"enrollmentGroupId,omitempty"`

	DeviceID           string             `json:"deviceId,omitempty"` // of an individual one; empty: the registration id
	Attestation        Attestation        `json:"attestation,omitzero"`
	Capabilities       Capabilities       `json:"capabilities"`
	IoTHubHostName     string             `json:"iotHubHostName,omitempty"` // the hub of static allocation
	InitialTwin        *InitialTwin       `json:"initialTwin,omitempty"`
	Information        json.RawMessage    `json:"optionalDeviceInformation,omitempty"`
	ProvisioningStatus Status             `json:"provisioningStatus,omitempty"` // empty when sent: Enabled
	ReprovisionPolicy  *ReprovisionPolicy `json:"reprovisionPolicy,omitempty"`
	AllocationPolicy   AllocationPolicy   `json:"allocationPolicy,omitempty"`
	IoTHubs            []string           `json:"iotHubs,omitempty"` // that may be chosen; none: all that are linked
	CustomAllocation   *CustomAllocation  `json:"customAllocationDefinition,omitempty"`

	ETag              string        `json:"etag,omitempty"` // with the quotes that the service has in it
	Created           Time          `json:"createdDateTimeUtc,omitzero"`
	LastUpdated       Time          `json:"lastUpdatedDateTimeUtc,omitzero"`
	RegistrationState *Registration `json:"registrationState,omitempty"` // of an individual one that has registered
}

// ID returns the registration id, or the id of a group.
func (e Enrollment) ID() string { return e.RegistrationID + e.GroupID }

// Kind tells whether e is a group.
func (e Enrollment) Kind() EnrollmentKind {
	if e.GroupID != "" {
		return Group
	}
	return Individual
}

// An AttestationType says how a device proves to the provisioning service what it is.
type AttestationType string

// The ways to attest.
const (
	BySymmetricKey AttestationType = "symmetricKey"
	ByX509         AttestationType = "x509"
	ByTPM          AttestationType = "tpm"
)

// Attestation is how devices prove what they are: the member of its type is set.
type Attestation struct {
	Type         AttestationType  `json:"type"`
	SymmetricKey *SymmetricKey    `json:"symmetricKey,omitempty"` // empty when sent with a new enrollment: keys made by the service
	X509         *X509Attestation `json:"x509,omitempty"`
	TPM          json.RawMessage  `json:"tpm,omitempty"`
}

// X509Attestation is one of three: the certificates of one device, those that sign the certificates of a group's, or
// the names of CA certificates that the service has verified.
type X509Attestation struct {
	ClientCertificates  *X509Certificates `json:"clientCertificates,omitempty"`
	SigningCertificates *X509Certificates `json:"signingCertificates,omitempty"`
	CAReferences        *CAReferences     `json:"caReferences,omitempty"`
}

// X509Certificates are one or two certificates, so that they can be replaced; either is valid.
type X509Certificates struct {
	Primary   *X509Certificate `json:"primary,omitempty"`
	Secondary *X509Certificate `json:"secondary,omitempty"`
}

// An X509Certificate is sent as its text, PEM or the base64 of DER, and read as what it says.
type X509Certificate struct {
	Certificate string               `json:"certificate,omitempty"`
	Info        *X509CertificateInfo `json:"info,omitempty"`
}

// X509CertificateInfo is what a certificate says.
type X509CertificateInfo struct {
	SubjectName      string `json:"subjectName"`
	SHA1Thumbprint   string `json:"sha1Thumbprint"` // in hexadecimal
	SHA256Thumbprint string `json:"sha256Thumbprint"`
	IssuerName       string `json:"issuerName"`
	NotBefore        Time   `json:"notBeforeUtc"`
	NotAfter         Time   `json:"notAfterUtc"`
	SerialNumber     string `json:"serialNumber"`
	Version          int    `json:"version"`
}

// CAReferences name CA certificates of the service.
type CAReferences struct {
	Primary   string `json:"primary,omitempty"`
	Secondary string `json:"secondary,omitempty"`
}

// InitialTwin is what the twin of a device has when its identity is created.
type InitialTwin struct {
	Tags       json.RawMessage       `json:"tags,omitempty"`
	Properties InitialTwinProperties `json:"properties,omitzero"`
}

// InitialTwinProperties are the properties of an InitialTwin.
type InitialTwinProperties struct {
	Desired json.RawMessage `json:"desired,omitempty"`
}

// A ReprovisionPolicy says what a device gets that registers once more. See the article "IoT Hub Device reprovisioning
// concepts".
type ReprovisionPolicy struct {
	UpdateHubAssignment bool `json:"updateHubAssignment"` // a hub as it is chosen now; else the one it has
	MigrateDeviceData   bool `json:"migrateDeviceData"`   // its twin as it is; else the initial one
}

// An AllocationPolicy says how a hub is chosen.
type AllocationPolicy string

// The allocation policies.
const (
	Hashed           AllocationPolicy = "hashed" // evenly; also what an empty policy means
	GeoLatency       AllocationPolicy = "geoLatency"
	Static           AllocationPolicy = "static"
	CustomAllocating AllocationPolicy = "custom" // by CustomAllocation
)

// CustomAllocation is the webhook that chooses a hub.
type CustomAllocation struct {
	WebhookURL string `json:"webhookUrl"`
	APIVersion string `json:"apiVersion"`
}
