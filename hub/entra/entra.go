// Package entra checks the tokens of Microsoft Entra ID with which service
// clients of a hub may authenticate.
package entra

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.yaml.in/yaml/v3"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/sas"
)

// Options say which Microsoft Entra ID tokens the hub accepts from service
// clients, and what their principals may do. Devices cannot use Entra ID. See
// "Control access to IoT Hub by using Microsoft Entra ID".
type Options struct {
	// Issuers are the accepted issuers, such as
	// "https://sts.windows.net/{tenant}/" and
	// "https://login.microsoftonline.com/{tenant}/v2.0". At least one is needed.
	Issuers []string

	// Audiences are the accepted audiences. None means those of IoT Hub, which
	// its SDKs ask for: "https://iothubs.azure.net" and its application id.
	Audiences []string

	// Keys is where the issuers' public keys are, as a JSON Web Key Set: an
	// https URL such as
	// "https://login.microsoftonline.com/{tenant}/discovery/v2.0/keys", or the
	// path of a file. It is read again when a token names a key that is not in
	// it.
	Keys string

	// Roles assigns to each principal, by its object id, what it may do: roles
	// by name or id, such as "IoT Hub Data Reader", or actions such as
	// "Microsoft.Devices/IotHubs/twins/read", with "*" for any text. Those of the
	// provisioning service begin with "Microsoft.Devices/provisioningServices/". A
	// token does not carry them.
	Roles map[string][]string
}

// Parse reads options in YAML or JSON, with the names of the fields in lower
// case: issuers, audiences, keys, roles. Names that it does not know are refused.
func Parse(text []byte) (Options, error) {
	var o struct {
		Issuers   []string            `yaml:"issuers"`
		Audiences []string            `yaml:"audiences"`
		Keys      string              `yaml:"keys"`
		Roles     map[string][]string `yaml:"roles"`
	}
	if json.Valid(text) {
		text = jsontext.ForYAML(text) // the rest of JSON is YAML
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	err := d.Decode(&o)
	return Options(o), err
}

// iotHubAudiences are what IoT Hub's SDKs ask a token for.
var iotHubAudiences = []string{
	"https://iothubs.azure.net", "https://iothubs.azure.net/",
	"89d10474-74af-4874-99a7-c23c2f643083", // the application id of Azure IoT Hub

	// What those of the provisioning service ask for.
	"https://azure-devices-provisioning.net", "https://azure-devices-provisioning.net/",
}

// entraRoles are the built-in roles, by name and id, and the actions they allow.
var builtInRoles = []struct {
	name, id string
	actions  []string
}{
	{"IoT Hub Data Contributor", "4fc6c259-987e-4a07-842e-c321cc9d413f", []string{hub.HubActions + "*"}},
	{"IoT Hub Data Reader", "b447c946-2db7-41ec-983d-d8bf3b1c77e3", []string{hub.HubActions + "*/read", hub.HubActions + "fileUpload/notifications/action"}},
	{"IoT Hub Registry Contributor", "4ea46cd5-c1b2-4a8e-910b-273211f9ce47", []string{hub.HubActions + "devices/*"}},
	{"IoT Hub Twin Contributor", "494bdba2-168f-4f31-a0a1-191d2f7c028c", []string{hub.HubActions + "twins/*"}},
	{"Device Provisioning Service Data Contributor", "dfce44e4-17b7-4bd1-a6d1-04996ec95633", []string{hub.ProvisioningActions + "*"}},
	{"Device Provisioning Service Data Reader", "10745317-c249-44a1-a5ce-3a4353c0bbd8", []string{hub.ProvisioningActions + "*/read"}},
}

// A Verifier checks the tokens of principals. It is safe for concurrent use.
type Verifier struct {
	issuers []string
	parser  *jwt.Parser
	keys    *keySet
	actions map[string][]string // by object id
}

// New returns a verifier. now is the time by which tokens expire.
func New(opt Options, now func() time.Time) (*Verifier, error) {
	if len(opt.Issuers) == 0 || opt.Keys == "" {
		return nil, errors.New("an issuer of Entra ID is needed, and the place of its keys")
	}
	e := &Verifier{issuers: opt.Issuers, keys: newKeySet(opt.Keys, now), actions: make(map[string][]string)}
	for principal, roles := range opt.Roles {
		actions := []string{}
		for _, role := range roles {
			of, err := actionsOf(role)
			if err != nil {
				return nil, fmt.Errorf("principal %s of Entra ID: %w", principal, err)
			}
			actions = append(actions, of...)
		}
		e.actions[strings.ToLower(principal)] = actions
	}
	audiences := opt.Audiences
	if len(audiences) == 0 {
		audiences = iotHubAudiences
	}
	e.parser = jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithAudience(audiences...),
		jwt.WithExpirationRequired(), jwt.WithLeeway(sas.Skew), jwt.WithTimeFunc(now))
	return e, nil
}

func actionsOf(role string) ([]string, error) {
	if hasPrefixFold(role, hub.HubActions) || hasPrefixFold(role, hub.ProvisioningActions) {
		return []string{role}, nil
	}
	for _, known := range builtInRoles {
		if strings.EqualFold(role, known.name) || strings.EqualFold(role, known.id) {
			return known.actions, nil
		}
	}
	return nil, fmt.Errorf("%q is neither a role of IoT Hub nor an action that begins with %s or %s", role, hub.HubActions, hub.ProvisioningActions)
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// accessClaims are the claims of an access token that name the principal.
type accessClaims struct {
	jwt.RegisteredClaims
	ObjectID        string `json:"oid"`
	UPN             string `json:"upn"`
	UniqueName      string `json:"unique_name"`
	Application     string `json:"appid"` // version 1 tokens
	AuthorizedParty string `json:"azp"`   // version 2 tokens
}

// Authenticate checks a bearer token and returns its principal. What is wrong
// with a token is for the hub's log alone.
//
// Errors: hub.ErrUnauthorizedAccess.
func (e *Verifier) Authenticate(ctx context.Context, token string) (hub.Caller, error) {
	var claims accessClaims
	_, err := e.parser.ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		return e.keys.key(ctx, kid)
	})
	switch {
	case err != nil:
		return hub.Caller{}, hub.ErrUnauthorizedAccess.With("bearer token: %v", err)
	case !slices.Contains(e.issuers, claims.Issuer):
		return hub.Caller{}, hub.ErrUnauthorizedAccess.With("bearer token: issuer %q is not accepted", words.Clip(claims.Issuer))
	case claims.ObjectID == "":
		return hub.Caller{}, hub.ErrUnauthorizedAccess.With("bearer token: it has no oid claim")
	}
	c := hub.Caller{Name: claims.ObjectID, Actions: e.actions[strings.ToLower(claims.ObjectID)]}
	if c.Actions == nil {
		c.Actions = []string{} // a principal without any
	}
	c.Expires = claims.ExpiresAt.Add(sas.Skew) // the parser requires it
	for _, name := range []string{claims.AuthorizedParty, claims.Application, claims.UniqueName, claims.UPN} {
		if name != "" {
			c.Name = words.Clip(name)
		}
	}
	return c, nil
}
