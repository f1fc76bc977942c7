package node

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/sas"
)

// A seedIdentity is what devices and modules have in common.
type seedIdentity struct {
	PrimaryKey          sas.Key        `yaml:"primaryKey"`   // empty: a new one
	SecondaryKey        sas.Key        `yaml:"secondaryKey"` // empty: a new one
	PrimaryThumbprint   string         `yaml:"primaryThumbprint"`
	SecondaryThumbprint string         `yaml:"secondaryThumbprint"`
	Tags                seedProperties `yaml:"tags"`
	Desired             seedProperties `yaml:"desired"`
	Reported            seedProperties `yaml:"reported"`

	// Authentication is empty for that of the keys or thumbprints.
	Authentication hub.AuthType `yaml:"authentication"`
}

// seedProperties are an object, such as tags, as JSON has it.
type seedProperties map[string]any

// UnmarshalYAML refuses what JSON lacks: names that are no text, and numbers
// that are none. A date is the text that it was written as.
func (p *seedProperties) UnmarshalYAML(node *yaml.Node) error {
	datesAreTexts(node)
	if err := node.Decode((*map[string]any)(p)); err != nil {
		return err
	}
	if _, err := json.Marshal(*p); err != nil {
		return fmt.Errorf("line %d: a value must be what JSON can hold: names that are texts, and finite numbers", node.Line)
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
	Parent       string       `yaml:"parent"` // the IoT Edge device that it is a child of
	Identity     seedIdentity `yaml:",inline"`
	Modules      []seedModule `yaml:"modules"`
}

type seedModule struct {
	ModuleID string       `yaml:"moduleId"`
	Identity seedIdentity `yaml:",inline"`
}

// applyDevice creates a device and its modules, unless they are there. path is
// where the device is in the text.
func (s Seed) applyDevice(server *hub.Server, d seedDevice, path ...any) error {
	spec := d.Identity.spec()
	spec.Status, spec.IoTEdge = d.Status, d.IoTEdge
	if d.StatusReason != "" {
		spec.StatusReason = &d.StatusReason
	}
	if d.Parent != "" {
		parent, err := server.Identity(hub.ID{Device: d.Parent})
		switch {
		case err != nil:
			err = fmt.Errorf("there is no device %q; list it before this one", d.Parent)
		case !parent.IoTEdge:
			err = fmt.Errorf("device %q is no IoT Edge device", d.Parent)
		}
		if err != nil {
			return s.wrong(fmt.Errorf("device %q: parent: %w", d.DeviceID, err), append(path, "parent")...)
		}
		spec.ParentScopes = []string{parent.DeviceScope}
	}
	if err := s.applyIdentity(server, hub.ID{Device: d.DeviceID}, d.Identity, spec, path...); err != nil {
		return err
	}
	for i, m := range d.Modules {
		id := hub.ID{Device: d.DeviceID, Module: m.ModuleID}
		if err := s.applyIdentity(server, id, m.Identity, m.Identity.spec(), append(path[:len(path):len(path)], "modules", i)...); err != nil {
			return err
		}
	}
	return nil
}

// applyIdentity registers the identity and fills its twin, unless it is there already.
func (s Seed) applyIdentity(server *hub.Server, id hub.ID, i seedIdentity, spec hub.IdentitySpec, path ...any) error {
	wrong := func(field string, err error) error {
		what := fmt.Sprintf("device %q", id.Device)
		if id.Module != "" {
			what = fmt.Sprintf("module %q of %s", id.Module, what)
		}
		if path = path[:len(path):len(path)]; field != "" {
			what, path = what+": "+field, append(path, field)
		}
		return s.wrong(fmt.Errorf("%s: %w", what, err), path...)
	}
	if field, err := badKey(i.PrimaryKey, i.SecondaryKey); err != nil {
		return wrong(field, err)
	}
	_, err := server.PutIdentity(id, spec, hub.Match{})
	if errors.Is(err, hub.ErrDeviceAlreadyExists) || errors.Is(err, hub.ErrModuleAlreadyExists) {
		return nil
	}
	if err != nil {
		return wrong("", err)
	}
	for _, section := range []struct {
		field string
		value seedProperties
		write func([]byte) error
	}{
		{"tags", i.Tags, func(doc []byte) error {
			_, err := server.PatchTwin(id, hub.TwinChange{Tags: doc}, hub.Match{})
			return err
		}},
		{"desired", i.Desired, func(doc []byte) error {
			_, err := server.PatchTwin(id, hub.TwinChange{Desired: doc}, hub.Match{})
			return err
		}},
		{"reported", i.Reported, func(doc []byte) error {
			return server.Update(id.Device, func(tx *hub.Tx) error {
				_, err := tx.PatchReported(id, doc, hub.AnyVersion)
				return err
			})
		}},
	} {
		if section.value == nil {
			continue
		}
		doc, err := json.Marshal(section.value)
		if err == nil {
			err = section.write(doc)
		}
		if err != nil {
			return wrong(section.field, err)
		}
	}
	return nil
}

func (i seedIdentity) spec() hub.IdentitySpec {
	spec := hub.IdentitySpec{Auth: hub.Authentication{Type: i.Authentication}}
	if i.PrimaryKey != "" || i.SecondaryKey != "" { // the registry wants both or none
		spec.Auth.SymmetricKey = hub.SymmetricKey{
			Primary:   cmp.Or(i.PrimaryKey, sas.NewKey()),
			Secondary: cmp.Or(i.SecondaryKey, sas.NewKey()),
		}
	}
	if i.PrimaryThumbprint != "" || i.SecondaryThumbprint != "" {
		spec.Auth.Type = cmp.Or(i.Authentication, hub.AuthSelfSigned)
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
