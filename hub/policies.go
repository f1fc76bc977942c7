package hub

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/sas"
)

// A Right is what a shared access policy permits, in IoT Hub's words (article
// "Control access to IoT Hub by using shared access signatures").
type Right string

// The rights of shared access policies.
const (
	RegistryRead   Right = "RegistryRead"   // read the identity registry
	RegistryWrite  Right = "RegistryWrite"  // change the identity registry
	ServiceConnect Right = "ServiceConnect" // twins, direct methods, jobs and messages
	DeviceConnect  Right = "DeviceConnect"  // act as any device
)

// The rights of the provisioning service, which its policies have in Azure and the
// hub's have here (article "How to control access to the provisioning service").
// DeviceConnect registers devices, too.
const (
	ServiceConfig           Right = "ServiceConfig"           // change the service itself: nothing here needs it
	EnrollmentRead          Right = "EnrollmentRead"          // read enrollments
	EnrollmentWrite         Right = "EnrollmentWrite"         // change enrollments
	RegistrationStatusRead  Right = "RegistrationStatusRead"  // read registrations
	RegistrationStatusWrite Right = "RegistrationStatusWrite" // delete registrations
)

// serviceRights are those with which a policy is a service, of the hub or of the
// provisioning service. What it may do there is asked for each operation.
var serviceRights = []Right{
	RegistryRead, RegistryWrite, ServiceConnect,
	ServiceConfig, EnrollmentRead, EnrollmentWrite, RegistrationStatusRead, RegistrationStatusWrite,
}

// A Policy is a shared access policy: whoever has one of its keys has its
// rights.
type Policy struct {
	Name         string  `json:"name"`
	Rights       []Right `json:"rights"`
	PrimaryKey   sas.Key `json:"primaryKey"`
	SecondaryKey sas.Key `json:"secondaryKey"`
}

// policyName is what the service's SDKs allow.
var policyName = regexp.MustCompile(`^[a-zA-Z0-9_\-@.]{1,64}$`)

// Validate says what is wrong with the policy, if anything.
func (p Policy) Validate() error {
	if !policyName.MatchString(p.Name) {
		return fmt.Errorf("policy %q: the name must be 1 to 64 letters, digits, dots or any of _ - @", words.Clip(p.Name))
	}
	for _, r := range p.Rights {
		if r != DeviceConnect && !slices.Contains(serviceRights, r) {
			return fmt.Errorf("policy %s: unknown right %q", p.Name, words.Clip(string(r)))
		}
	}
	for _, k := range []sas.Key{p.PrimaryKey, p.SecondaryKey} {
		if err := k.Validate(); err != nil {
			return fmt.Errorf("policy %s: %w", p.Name, err)
		}
	}
	return nil
}
