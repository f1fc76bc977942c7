package node

import (
	"encoding/json"

	"github.com/iotdm/iotdm/hub/configurations"
)

// A seedConfiguration is an automatic configuration as REST has it, with its
// metrics by name.
type seedConfiguration struct {
	ID              string            `yaml:"id"`
	TargetCondition string            `yaml:"targetCondition"`
	Priority        int               `yaml:"priority"`
	Labels          map[string]string `yaml:"labels"`
	Metrics         map[string]string `yaml:"metrics"`
	Content         seedContentOf     `yaml:"content"`
}

// A seedContentOf is the content of a configuration; see configurations.Content.
type seedContentOf struct {
	Device  seedProperties            `yaml:"deviceContent"`
	Module  seedProperties            `yaml:"moduleContent"`
	Modules map[string]seedProperties `yaml:"modulesContent"`
}

func (c seedConfiguration) spec() (configurations.Spec, error) {
	spec := configurations.Spec{ID: c.ID, TargetCondition: c.TargetCondition, Priority: c.Priority, Labels: c.Labels, Metrics: c.Metrics}
	var err error
	if spec.Content.Device, err = c.Content.Device.members(); err != nil {
		return spec, err
	}
	if spec.Content.Module, err = c.Content.Module.members(); err != nil {
		return spec, err
	}
	for module, properties := range c.Content.Modules {
		if spec.Content.Modules == nil {
			spec.Content.Modules = make(map[string]map[string]json.RawMessage)
		}
		if spec.Content.Modules[module], err = properties.members(); err != nil {
			return spec, err
		}
	}
	return spec, nil
}

// members returns what each name stands for.
func (p seedProperties) members() (map[string]json.RawMessage, error) {
	if p == nil {
		return nil, nil
	}
	members := make(map[string]json.RawMessage, len(p))
	for name, value := range p {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		members[name] = text
	}
	return members, nil
}
