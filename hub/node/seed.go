package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/internal/yamltext"
	"github.com/iotdm/iotdm/sas"
)

// A Seed is what a hub should have before it begins, in YAML or JSON: shared access
// policies, devices and modules with what is in their twins, configurations, consumer
// groups, and enrollments of the provisioning service. "iotdm help seed" explains each field. What the hub has
// already stays as it is, so that a seeded hub can stop and start. The zero Seed
// is nothing; ParseSeed makes others.
type Seed struct {
	content seedContent
	root    *yaml.Node // of the text, for the lines of errors
}

type seedContent struct {
	Policies       []seedPolicy        `yaml:"policies"`
	Devices        []seedDevice        `yaml:"devices"`
	Configurations []seedConfiguration `yaml:"configurations"`
	ConsumerGroups []string            `yaml:"consumerGroups"`

	Enrollments      []seedEnrollment `yaml:"enrollments"`
	EnrollmentGroups []seedEnrollment `yaml:"enrollmentGroups"`
}

type seedPolicy struct {
	Name         string      `yaml:"name"`
	Rights       []hub.Right `yaml:"rights"`
	PrimaryKey   sas.Key     `yaml:"primaryKey"`   // empty: what it is, or a new one
	SecondaryKey sas.Key     `yaml:"secondaryKey"` // empty: what it is, or a new one
}

// ParseSeed reads and checks a seed, all of it: one with a mistake in it is
// refused before any hub is changed. The error is one line with the line and the
// name of what is wrong.
func ParseSeed(text []byte) (Seed, error) {
	var s Seed
	if json.Valid(text) {
		text = jsontext.ForYAML(text) // the rest of JSON is YAML
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&s.content); err != nil && !errors.Is(err, io.EOF) {
		return Seed{}, errors.New(yamltext.Complaint(err))
	}
	s.root = new(yaml.Node)
	if err := yaml.Unmarshal(text, s.root); err != nil {
		return Seed{}, errors.New(yamltext.Complaint(err))
	}
	if err := s.check(); err != nil {
		return Seed{}, err
	}
	n, err := New(Options{Policies: s.policies(), ConsumerGroups: s.consumerGroups(), WebhookHosts: s.webhookHosts()}) // in memory
	if err != nil {
		return Seed{}, err
	}
	return s, errors.Join(s.apply(n), n.Close())
}

// check finds what is wrong whatever a hub has.
func (s Seed) check() error {
	listed := make(map[string]bool)
	for i, d := range s.content.Devices {
		if listed[d.DeviceID] {
			return s.wrong(fmt.Errorf("device %q is listed twice", d.DeviceID), "devices", i)
		}
		listed[d.DeviceID] = true
	}
	for i, p := range s.content.Policies {
		if field, err := badKey(p.PrimaryKey, p.SecondaryKey); err != nil {
			return s.wrong(fmt.Errorf("policy %q: %s: %w", p.Name, field, err), "policies", i, field)
		}
		if _, err := mergePolicies(defaultPolicies(), []hub.Policy{hub.Policy(p)}); err != nil {
			return s.wrong(err, "policies", i)
		}
	}
	for i, name := range s.content.ConsumerGroups {
		if err := hub.ValidateConsumerGroup(name); err != nil && !strings.EqualFold(name, hub.DefaultConsumerGroup) {
			return s.wrong(err, "consumerGroups", i)
		}
	}
	return s.checkEnrollments()
}

// badKey finds the key that is none, and its name.
func badKey(primary, secondary sas.Key) (field string, err error) {
	if err = primary.Validate(); primary != "" && err != nil {
		return "primaryKey", err
	}
	if err = secondary.Validate(); secondary != "" && err != nil {
		return "secondaryKey", err
	}
	return "", nil
}

// wrong says on which line of the text the seed is wrong: that of the last of the
// members and items of path that is there.
func (s Seed) wrong(err error, path ...any) error {
	node := s.root
	if node == nil {
		return err
	}
	if node.Kind == yaml.DocumentNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	line := node.Line
	for _, step := range path {
		var next *yaml.Node
		switch step := step.(type) {
		case string:
			for i := 0; i+1 < len(node.Content); i += 2 {
				if node.Content[i].Value == step {
					line, next = node.Content[i].Line, node.Content[i+1]
				}
			}
		case int:
			if step < len(node.Content) {
				next = node.Content[step]
				line = next.Line
			}
		}
		if next == nil {
			break
		}
		node = next
	}
	return fmt.Errorf("line %d: %w", line, err)
}

// settled finds what the seed has and a running hub with these policies and
// consumer groups, which stay as they are, has not.
func (s Seed) settled(policies []hub.Policy, groups []string) error {
	for i, p := range s.content.Policies {
		at := slices.IndexFunc(policies, func(there hub.Policy) bool { return strings.EqualFold(there.Name, p.Name) })
		if at < 0 {
			return s.wrong(fmt.Errorf("policy %q: the hub has none of this name, and gets none while it runs; start it with this seed", p.Name), "policies", i)
		}
		var field string
		switch there := policies[at]; {
		case p.Rights != nil && !sameRights(p.Rights, there.Rights):
			field = "rights"
		case p.PrimaryKey != "" && p.PrimaryKey != there.PrimaryKey:
			field = "primaryKey"
		case p.SecondaryKey != "" && p.SecondaryKey != there.SecondaryKey:
			field = "secondaryKey"
		default:
			continue
		}
		return s.wrong(fmt.Errorf("policy %q: %s: it is another than the hub's, which stays as it is while the hub runs; start it with this seed", p.Name, field), "policies", i, field)
	}
	for i, name := range s.content.ConsumerGroups {
		same := func(there string) bool { return strings.EqualFold(there, name) }
		if !same(hub.DefaultConsumerGroup) && !slices.ContainsFunc(groups, same) {
			return s.wrong(fmt.Errorf("consumer group %q: the hub has none of this name, and gets none while it runs; start it with this seed", name), "consumerGroups", i)
		}
	}
	return nil
}

func sameRights(a, b []hub.Right) bool {
	within := func(a, b []hub.Right) bool {
		return !slices.ContainsFunc(a, func(r hub.Right) bool { return !slices.Contains(b, r) })
	}
	return within(a, b) && within(b, a)
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

// apply creates what the hub does not have of devices, modules, configurations and
// enrollments.
func (s Seed) apply(n *Node) error {
	for i, d := range s.content.Devices {
		if err := s.applyDevice(n.Server, d, "devices", i); err != nil {
			return err
		}
	}
	for i, c := range s.content.Configurations {
		spec, err := c.spec()
		if err == nil {
			if _, err = n.Configurations.Put(spec, hub.Match{}); errors.Is(err, hub.ErrConfigurationAlreadyExists) {
				err = nil
			}
		}
		if err != nil {
			return s.wrong(fmt.Errorf("configuration %q: %w", c.ID, err), "configurations", i)
		}
	}
	return s.applyEnrollments(n.Provisioning)
}
