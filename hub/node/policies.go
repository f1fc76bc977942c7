package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/sas"
)

// defaultPolicies are those of a new hub, with new keys.
func defaultPolicies() []hub.Policy {
	list := []hub.Policy{
		{Name: "iothubowner", Rights: []hub.Right{hub.RegistryRead, hub.RegistryWrite, hub.ServiceConnect, hub.DeviceConnect}},
		{Name: "service", Rights: []hub.Right{hub.ServiceConnect}},
		{Name: "device", Rights: []hub.Right{hub.DeviceConnect}},
		{Name: "registryRead", Rights: []hub.Right{hub.RegistryRead}},
		{Name: "registryReadWrite", Rights: []hub.Right{hub.RegistryRead, hub.RegistryWrite}},
		provisioningPolicy(),
	}
	for i := range list {
		list[i].PrimaryKey, list[i].SecondaryKey = sas.NewKey(), sas.NewKey()
	}
	return list
}

// ProvisioningPolicy is the policy of the provisioning service that every hub has.
const ProvisioningPolicy = "provisioningserviceowner"

// provisioningPolicy has the rights of Azure's but DeviceConnect, which that has for
// the devices of its own service: here it would let its keys act as any device of the
// hub.
func provisioningPolicy() hub.Policy {
	return hub.Policy{
		Name: ProvisioningPolicy,
		Rights: []hub.Right{
			hub.ServiceConfig, hub.EnrollmentRead, hub.EnrollmentWrite, hub.RegistrationStatusRead, hub.RegistrationStatusWrite,
		},
		PrimaryKey: sas.NewKey(), SecondaryKey: sas.NewKey(),
	}
}

// withProvisioning returns the policies of a data folder with that of the
// provisioning service, which one of an older hub lacks.
func withProvisioning(list []hub.Policy) []hub.Policy {
	if slices.ContainsFunc(list, func(p hub.Policy) bool { return strings.EqualFold(p.Name, ProvisioningPolicy) }) {
		return list
	}
	return append(slices.Clone(list), provisioningPolicy())
}

// mergePolicies returns list with those of more in place of the ones with the
// same name, or added. What a new one leaves empty, rights or a key, it takes
// from the old; a key that neither has is made.
func mergePolicies(list, more []hub.Policy) ([]hub.Policy, error) {
	list = slices.Clone(list)
	for _, p := range more {
		i := slices.IndexFunc(list, func(old hub.Policy) bool { return strings.EqualFold(old.Name, p.Name) })
		if i < 0 {
			i = len(list)
			list = append(list, hub.Policy{Name: p.Name, PrimaryKey: sas.NewKey(), SecondaryKey: sas.NewKey()})
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
		if err := list[i].Validate(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// readPolicies returns nil if there is no file.
func readPolicies(file string) ([]hub.Policy, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := decodePolicies(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; restore it, or remove it to have the hub make new keys", file, err)
	}
	return list, nil
}

func decodePolicies(text []byte) (list []hub.Policy, err error) {
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	for _, p := range list {
		if err := p.Validate(); err != nil {
			return nil, err
		}
	}
	return list, nil
}
