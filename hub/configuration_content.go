package hub

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/twin"
)

// ConfigurationContent is what a configuration sets. The maps go from a path,
// such as "properties.desired.interval", to a value; null removes what is there.
type ConfigurationContent struct {
	Device  map[string]json.RawMessage            `json:"deviceContent,omitempty"`  // for devices
	Module  map[string]json.RawMessage            `json:"moduleContent,omitempty"`  // for modules
	Modules map[string]map[string]json.RawMessage `json:"modulesContent,omitempty"` // for the modules of an IoT Edge device
}

// desiredPath begins every path of a configuration's content.
const desiredPath = "properties.desired"

func (c *ConfigurationContent) validate() error {
	parts := 0
	for _, n := range []int{len(c.Device), len(c.Module), len(c.Modules)} {
		if n > 0 {
			parts++
		}
	}
	if parts != 1 {
		return ErrConfigurationContent.with("content needs exactly one of deviceContent, moduleContent and modulesContent")
	}
	if c.edge() {
		return c.validateModules()
	}
	for path := range c.paths() {
		rest, ok := strings.CutPrefix(path, desiredPath+".")
		if !ok || slices.Contains(strings.Split(rest, "."), "") {
			return ErrConfigurationContent.with("path '%s' must be like '%s.interval'", clip(path), desiredPath)
		}
	}
	return c.fit("", c.paths())
}

// fit refuses what no twin can take. It is that of a module of an IoT Edge
// device unless module is empty.
func (c *ConfigurationContent) fit(module string, paths map[string]json.RawMessage) error {
	from := c.alone()
	layers := make([]layer, 0, len(paths))
	for path, value := range paths {
		layers = append(layers, layer{from: from, path: path, value: value})
	}
	patch, err := configuredPatch([]byte("{}"), nil, winningLayers(layers))
	if err == nil {
		_, err = twin.New(time.Time{}).Patch(twin.Desired, patch, time.Time{})
	}
	switch {
	case err == nil:
		return nil
	case module != "":
		return ErrConfigurationContent.with("module '%s': %v", clip(module), err)
	}
	return ErrConfigurationContent.with("%v", err)
}

// paths are the content for the one kind of twin it is for.
func (c *ConfigurationContent) paths() map[string]json.RawMessage {
	if len(c.Module) > 0 {
		return c.Module
	}
	return c.Device
}

func (c *ConfigurationContent) modules() bool { return len(c.Module) > 0 }

// alone returns a configuration that has nothing but the content.
func (c *ConfigurationContent) alone() *activeConfiguration {
	return &activeConfiguration{Configuration: Configuration{ConfigurationSpec: ConfigurationSpec{Content: *c}}}
}

// edge reports whether the content is an IoT Edge deployment.
func (c *ConfigurationContent) edge() bool { return len(c.Modules) > 0 }

// same reports whether two contents set the same, however they are written.
func (c *ConfigurationContent) same(other *ConfigurationContent) bool {
	plain := func(c *ConfigurationContent) (v any) {
		// It came from JSON, so it can be printed and read again.
		_ = json.Unmarshal(mustMarshal(c), &v)
		return v
	}
	return reflect.DeepEqual(plain(c), plain(other))
}
