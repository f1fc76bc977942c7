package configurations

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/twin"
)

// Content is what a configuration sets. The maps go from a path to a value: from
// "properties.desired.interval", where null removes what is there, or from
// "properties.desired", which takes an object. The tests of the Node SDK have
// the latter for devices and modules; that it is merged there, as the value of
// any other path is, is assumed.
type Content struct {
	Device  map[string]json.RawMessage            `json:"deviceContent,omitempty"`  // for devices
	Module  map[string]json.RawMessage            `json:"moduleContent,omitempty"`  // for modules
	Modules map[string]map[string]json.RawMessage `json:"modulesContent,omitempty"` // for the modules of an IoT Edge device
}

// desiredPath begins every path of a configuration's content.
const desiredPath = "properties.desired"

func (c *Content) validate() error {
	parts := 0
	for _, n := range []int{len(c.Device), len(c.Module), len(c.Modules)} {
		if n > 0 {
			parts++
		}
	}
	if parts != 1 {
		return hub.ErrConfigurationContent.With("content needs exactly one of deviceContent, moduleContent and modulesContent")
	}
	if c.edge() {
		return c.validateModules()
	}
	return c.validatePaths("", c.paths())
}

// validatePaths checks what is set in one twin. It is that of a module of an IoT
// Edge device unless module is empty.
func (c *Content) validatePaths(module string, paths map[string]json.RawMessage) error {
	refuse := func(format string, args ...any) error {
		text := fmt.Sprintf(format, args...)
		if module != "" {
			text = fmt.Sprintf("module '%s': %s", words.Clip(module), text)
		}
		return hub.ErrConfigurationContent.With("%s", text)
	}
	for path, value := range paths {
		rest, ok := strings.CutPrefix(path, desiredPath)
		below, dotted := strings.CutPrefix(rest, ".")
		switch {
		case !ok || dotted && slices.Contains(strings.Split(below, "."), "") || !dotted && rest != "":
			return refuse("path '%s' must be '%s' or like '%s.interval'", words.Clip(path), desiredPath, desiredPath)
		case rest == "" && !isObject(value):
			return refuse("%s must be an object", desiredPath)
		}
	}
	if err := c.fit(paths); err != nil {
		return refuse("%v", err)
	}
	return nil
}

// fit says why no twin can take what is set, if none can.
func (c *Content) fit(paths map[string]json.RawMessage) error {
	from := c.alone()
	layers := make([]layer, 0, len(paths))
	for path, value := range paths {
		layers = append(layers, layer{from: from, path: path, value: value})
	}
	patch, err := configuredPatch([]byte("{}"), nil, winningLayers(layers))
	if err == nil {
		_, err = twin.New(time.Time{}).Patch(twin.Desired, patch, time.Time{})
	}
	return err
}

// paths are the content for the one kind of twin it is for.
func (c *Content) paths() map[string]json.RawMessage {
	if len(c.Module) > 0 {
		return c.Module
	}
	return c.Device
}

func (c *Content) modules() bool { return len(c.Module) > 0 }

// alone returns a configuration that has nothing but the content.
func (c *Content) alone() *active {
	return &active{Configuration: Configuration{Spec: Spec{Content: *c}}}
}

// edge reports whether the content is an IoT Edge deployment.
func (c *Content) edge() bool { return len(c.Modules) > 0 }

// same reports whether two contents set the same, however they are written.
func (c *Content) same(other *Content) bool {
	plain := func(c *Content) (v any) {
		// It came from JSON, so it can be printed and read again.
		_ = json.Unmarshal(words.MustMarshal(c), &v)
		return v
	}
	return reflect.DeepEqual(plain(c), plain(other))
}
