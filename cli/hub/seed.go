package hub

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/sas"
)

// A seed is the file of "hub run --seed": what a hub should have before it
// begins. What the hub has already stays as it is, so that a seeded hub can
// stop and start.
type seed struct {
	Policies []seedPolicy `yaml:"policies"`
	Devices  []seedDevice `yaml:"devices"`
}

type seedPolicy struct {
	Name         string      `yaml:"name"`
	Rights       []hub.Right `yaml:"rights"`
	PrimaryKey   sas.Key     `yaml:"primaryKey"`   // empty: what it is, or a new one
	SecondaryKey sas.Key     `yaml:"secondaryKey"` // empty: what it is, or a new one
}

// A seedIdentity is what devices and modules have in common.
type seedIdentity struct {
	PrimaryKey          sas.Key        `yaml:"primaryKey"`   // empty: a new one
	SecondaryKey        sas.Key        `yaml:"secondaryKey"` // empty: a new one
	PrimaryThumbprint   string         `yaml:"primaryThumbprint"`
	SecondaryThumbprint string         `yaml:"secondaryThumbprint"`
	Tags                map[string]any `yaml:"tags"`
	Desired             map[string]any `yaml:"desired"`
}

type seedDevice struct {
	DeviceID     string       `yaml:"deviceId"`
	Status       hub.Status   `yaml:"status"` // empty: enabled
	StatusReason string       `yaml:"statusReason"`
	IoTEdge      bool         `yaml:"iotEdge"`
	Identity     seedIdentity `yaml:",inline"`
	Modules      []seedModule `yaml:"modules"`
}

type seedModule struct {
	ModuleID string       `yaml:"moduleId"`
	Identity seedIdentity `yaml:",inline"`
}

// readSeed reads and checks the whole file. Without a file the seed is empty.
func readSeed(file string) (seed, error) {
	var s seed
	if file == "" {
		return s, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return s, fail.Usagef("--seed: %v", fail.PlainPathError(err))
	}
	d := yaml.NewDecoder(bytes.NewReader(content)) // JSON is YAML too
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return s, fail.Usagef("--seed %s: %s", file, fail.PlainYAMLError(err))
	}
	if err := s.rehearse(); err != nil {
		return s, fail.Usagef("--seed %s: %v", file, err)
	}
	return s, nil
}

// rehearse applies the seed to a hub in memory, so that one with a mistake in
// it leaves the real hub as it is.
func (s seed) rehearse() error {
	server, err := hub.New(hub.Options{Policies: s.policies()})
	if err != nil {
		return err
	}
	return errors.Join(s.apply(server), server.Close())
}

// policies are the seed's policies as the hub takes them.
func (s seed) policies() []hub.Policy {
	var policies []hub.Policy
	for _, p := range s.Policies {
		policies = append(policies, hub.Policy(p))
	}
	return policies
}

// apply creates the devices and modules that server does not have.
func (s seed) apply(server *hub.Server) error {
	for _, d := range s.Devices {
		spec := d.Identity.spec()
		spec.Status, spec.IoTEdge = d.Status, d.IoTEdge
		if d.StatusReason != "" {
			spec.StatusReason = &d.StatusReason
		}
		if err := d.Identity.create(server, hub.ID{Device: d.DeviceID}, spec); err != nil {
			return fmt.Errorf("device %q: %w", d.DeviceID, err)
		}
		for _, m := range d.Modules {
			if err := m.Identity.create(server, hub.ID{Device: d.DeviceID, Module: m.ModuleID}, m.Identity.spec()); err != nil {
				return fmt.Errorf("module %q of device %q: %w", m.ModuleID, d.DeviceID, err)
			}
		}
	}
	return nil
}

func (i seedIdentity) spec() hub.IdentitySpec {
	var spec hub.IdentitySpec
	if i.PrimaryKey != "" || i.SecondaryKey != "" { // the registry wants both or none
		spec.Auth.SymmetricKey = hub.SymmetricKey{
			Primary:   cmp.Or(i.PrimaryKey, sas.NewKey()),
			Secondary: cmp.Or(i.SecondaryKey, sas.NewKey()),
		}
	}
	if i.PrimaryThumbprint != "" || i.SecondaryThumbprint != "" {
		spec.Auth.Type = hub.AuthSelfSigned
		spec.Auth.X509 = hub.X509Thumbprint{Primary: orNil(i.PrimaryThumbprint), Secondary: orNil(i.SecondaryThumbprint)}
	}
	return spec
}

func orNil(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// create registers the identity and fills its twin, unless it is there already.
func (i seedIdentity) create(server *hub.Server, id hub.ID, spec hub.IdentitySpec) error {
	_, err := server.PutIdentity(id, spec, hub.Match{})
	if errors.Is(err, hub.ErrDeviceAlreadyExists) || errors.Is(err, hub.ErrModuleAlreadyExists) {
		return nil
	}
	if err != nil || i.Tags == nil && i.Desired == nil {
		return err
	}
	var change hub.TwinChange
	if i.Tags != nil {
		if change.Tags, err = json.Marshal(i.Tags); err != nil {
			return err
		}
	}
	if i.Desired != nil {
		if change.Desired, err = json.Marshal(i.Desired); err != nil {
			return err
		}
	}
	_, err = server.PatchTwin(id, change, hub.Match{})
	return err
}
