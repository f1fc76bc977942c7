package hub

import (
	"bytes"
	"os"

	"go.yaml.in/yaml/v3"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/hub/entra"
)

// readEntra reads the file of "hub run --entra": which tokens of Microsoft
// Entra ID the hub accepts, and what their principals may do. Without a file it
// accepts none.
//
//	issuers: [https://sts.windows.net/TENANT/]
//	keys: https://login.microsoftonline.com/TENANT/discovery/v2.0/keys
//	roles:
//	  OBJECT-ID: [IoT Hub Data Contributor]
func readEntra(file string) (*entra.Options, error) {
	if file == "" {
		return nil, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fail.Usagef("--entra: %v", fail.PlainPathError(err))
	}
	var e struct {
		Issuers   []string            `yaml:"issuers"`
		Audiences []string            `yaml:"audiences"`
		Keys      string              `yaml:"keys"`
		Roles     map[string][]string `yaml:"roles"`
	}
	d := yaml.NewDecoder(bytes.NewReader(content)) // JSON is YAML too
	d.KnownFields(true)
	if err := d.Decode(&e); err != nil {
		return nil, fail.Usagef("--entra %s: %s", file, fail.PlainYAMLError(err))
	}
	return &entra.Options{Issuers: e.Issuers, Audiences: e.Audiences, Keys: e.Keys, Roles: e.Roles}, nil
}
