package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

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

func (p Policy) validate() error {
	if !policyName.MatchString(p.Name) {
		return fmt.Errorf("policy %q: the name must be 1 to 64 letters, digits, dots or any of _ - @", clip(p.Name))
	}
	for _, r := range p.Rights {
		if !slices.Contains([]Right{RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect}, r) {
			return fmt.Errorf("policy %s: unknown right %q", p.Name, clip(string(r)))
		}
	}
	for _, k := range []sas.Key{p.PrimaryKey, p.SecondaryKey} {
		if err := k.Validate(); err != nil {
			return fmt.Errorf("policy %s: %w", p.Name, err)
		}
	}
	return nil
}

// defaultPolicies are those of a new hub, with new keys.
func defaultPolicies() []Policy {
	list := []Policy{
		{Name: "iothubowner", Rights: []Right{RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect}},
		{Name: "service", Rights: []Right{ServiceConnect}},
		{Name: "device", Rights: []Right{DeviceConnect}},
		{Name: "registryRead", Rights: []Right{RegistryRead}},
		{Name: "registryReadWrite", Rights: []Right{RegistryRead, RegistryWrite}},
	}
	for i := range list {
		list[i].PrimaryKey, list[i].SecondaryKey = sas.NewKey(), sas.NewKey()
	}
	return list
}

// mergePolicies returns list with those of more in place of the ones with the
// same name, or added. What a new one leaves empty, rights or a key, it takes
// from the old; a key that neither has is made.
func mergePolicies(list, more []Policy) ([]Policy, error) {
	list = slices.Clone(list)
	for _, p := range more {
		i := slices.IndexFunc(list, func(old Policy) bool { return strings.EqualFold(old.Name, p.Name) })
		if i < 0 {
			i = len(list)
			list = append(list, Policy{Name: p.Name, PrimaryKey: sas.NewKey(), SecondaryKey: sas.NewKey()})
		}
		if p.Rights != nil {
			list[i].Rights = p.Rights
		}
		if p.PrimaryKey != "" {
			list[i].PrimaryKey = p.PrimaryKey
		}
		if p.SecondaryKey != "" {
			list[i].SecondaryKey = p.SecondaryKey
		}
		if err := list[i].validate(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// readPolicies returns nil if there is no file.
func readPolicies(file string) ([]Policy, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Policy
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, p := range list {
		if err := p.validate(); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return list, nil
}
