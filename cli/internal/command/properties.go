package command

import (
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
)

// PropertyFlag adds an application property of a message; see ParseProperties.
func PropertyFlag(properties *Texts) urfave.Flag {
	return &urfave.GenericFlag{Name: "property", Value: properties, Usage: "an application property `NAME=VALUE`, repeatable"}
}

// ParseProperties reads the values of --property, and that of --props.
func ParseProperties(pairs []string, props string) (map[string]string, error) {
	if props != "" {
		pairs = append(pairs, strings.Split(strings.TrimSuffix(props, ";"), ";")...)
	}
	var properties map[string]string
	for _, p := range pairs {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, fail.Usagef("--property %q is not NAME=VALUE", p)
		}
		if properties == nil {
			properties = make(map[string]string)
		}
		properties[name] = value
	}
	return properties, nil
}
