package node

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/sas"
)

// A Seed is what a hub should have before it begins, in YAML or JSON: policies
// (name, rights, keys), devices (deviceId, status, statusReason, iotEdge, keys or
// thumbprints, tags, desired, modules) and consumerGroups (names). What the hub has already stays
// as it is, so that a seeded hub can stop and start. The zero Seed is nothing;
// ParseSeed makes others.
type Seed struct {
	content seedContent
}

type seedContent struct {
	Policies       []seedPolicy `yaml:"policies"`
	Devices        []seedDevice `yaml:"devices"`
	ConsumerGroups []string     `yaml:"consumerGroups"`
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
	Tags                seedProperties `yaml:"tags"`
	Desired             seedProperties `yaml:"desired"`
}

// seedProperties are tags or desired properties, as JSON has them.
type seedProperties map[string]any

// UnmarshalYAML refuses what JSON lacks: names that are no text, and numbers
// that are none. A date is the text that it was written as.
func (p *seedProperties) UnmarshalYAML(node *yaml.Node) error {
	datesAreTexts(node)
	if err := node.Decode((*map[string]any)(p)); err != nil {
		return err
	}
	if _, err := json.Marshal(*p); err != nil {
		return fmt.Errorf("line %d: tags and desired properties must be what JSON can hold: names that are texts, and finite numbers", node.Line)
	}
	return nil
}

func datesAreTexts(node *yaml.Node) {
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!timestamp" {
		node.Tag = "!!str"
	}
	for _, n := range node.Content {
		datesAreTexts(n)
	}
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

// ParseSeed reads and checks a seed, all of it: one with a mistake in it is
// refused before any hub is changed.
func ParseSeed(text []byte) (Seed, error) {
	var s Seed
	if json.Valid(text) {
		text = jsontext.ForYAML(text) // the rest of JSON is YAML
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&s.content); err != nil && !errors.Is(err, io.EOF) {
		return Seed{}, err
	}
	n, err := New(Options{Policies: s.policies(), ConsumerGroups: s.consumerGroups()}) // in memory
	if err != nil {
		return Seed{}, err
	}
	return s, errors.Join(s.apply(n.Server), n.Close())
}

// policies are the seed's policies as the hub takes them.
func (s Seed) policies() []hub.Policy {
	var policies []hub.Policy
	for _, p := range s.content.Policies {
		policies = append(policies, hub.Policy(p))
	}
	return policies
}

// consumerGroups are those that the hub has as long as it runs with the seed.
func (s Seed) consumerGroups() []string { return s.content.ConsumerGroups }

// apply creates the devices and modules that server does not have.
func (s Seed) apply(server *hub.Server) error {
	for _, d := range s.content.Devices {
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
