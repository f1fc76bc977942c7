package rest_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/entra"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

const (
	issuer      = "https://sts.windows.net/11111111-2222-3333-4444-555555555555/"
	contributor = "00000000-0000-0000-0000-00000000000a"
	reader      = "00000000-0000-0000-0000-00000000000b"
	registrar   = "00000000-0000-0000-0000-00000000000c"
	twinEditor  = "00000000-0000-0000-0000-00000000000d"
	purger      = "00000000-0000-0000-0000-00000000000e"
	nobody      = "00000000-0000-0000-0000-00000000000f"
)

// An authority issues tokens of Microsoft Entra ID. Its key set is a file.
type authority struct {
	t    testing.TB
	file string
	keys map[string]*rsa.PrivateKey
}

// firstKey is shared by the tests, since making it takes a while.
var firstKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, file: filepath.Join(t.TempDir(), "keys.json"), keys: make(map[string]*rsa.PrivateKey)}
	key, err := firstKey()
	if err != nil {
		t.Fatal(err)
	}
	a.publish("key-1", key)
	return a
}

// addKey adds a key to the published set.
func (a *authority) addKey(id string) {
	a.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		a.t.Fatal(err)
	}
	a.publish(id, key)
}

func (a *authority) publish(id string, key *rsa.PrivateKey) {
	a.t.Helper()
	a.keys[id] = key
	type jwk struct {
		Type string `json:"kty"`
		ID   string `json:"kid"`
		Use  string `json:"use"`
		N    string `json:"n"`
		E    string `json:"e"`
	}
	set := []jwk{{Type: "EC", ID: "not-rsa"}}
	for id, key := range a.keys {
		e := big.NewInt(int64(key.E)).Bytes()
		set = append(set, jwk{"RSA", id, "sig", base64.RawURLEncoding.EncodeToString(key.N.Bytes()), base64.RawURLEncoding.EncodeToString(e)})
	}
	data, err := json.Marshal(map[string]any{"keys": set})
	if err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(a.file, data, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func claims(principal string) jwt.MapClaims {
	return jwt.MapClaims{
		"aud": "https://iothubs.azure.net", "iss": issuer, "oid": principal, "appid": "the-application",
		"nbf": wiretest.Now.Add(-time.Minute).Unix(), "exp": wiretest.Now.Add(time.Hour).Unix(),
	}
}

// bearer returns an Authorization header with a token of these claims.
func (a *authority) bearer(c jwt.MapClaims) string {
	return a.signed(jwt.SigningMethodRS256, "key-1", a.keys["key-1"], c)
}

func (a *authority) signed(method jwt.SigningMethod, kid string, key any, c jwt.MapClaims) string {
	a.t.Helper()
	token := jwt.NewWithClaims(method, c)
	token.Header["kid"] = kid
	text, err := token.SignedString(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return "Bearer " + text
}

func (a *authority) options() *entra.Options {
	return &entra.Options{Issuers: []string{issuer}, Keys: a.file, Roles: map[string][]string{
		contributor: {"IoT Hub Data Contributor"},
		reader:      {"iot hub data reader"},
		registrar:   {"4ea46cd5-c1b2-4a8e-910b-273211f9ce47"},
		twinEditor:  {"IoT Hub Twin Contributor"},
		purger:      {"Microsoft.Devices/IotHubs/cloudToDeviceMessages/queue/purge/action", "Microsoft.Devices/IotHubs/statistics/*"},
	}}
}

func TestBearerTokens(t *testing.T) {
	a := newAuthority(t)
	h := wiretest.StartREST(t, node.Options{Entra: a.options()})
	with := func(change jwt.MapClaims) jwt.MapClaims {
		c := claims(contributor)
		maps.Copy(c, change)
		return c
	}
	good := a.bearer(claims(contributor))
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		token string
		want  int
	}{
		"good":                          {good, 200},
		"scheme in another case":        {"bearer" + strings.TrimPrefix(good, "Bearer"), 200},
		"the application id":            {a.bearer(with(jwt.MapClaims{"aud": "89d10474-74af-4874-99a7-c23c2f643083"})), 200},
		"expired within the skew":       {a.bearer(with(jwt.MapClaims{"exp": wiretest.Now.Add(-4 * time.Minute).Unix()})), 200},
		"object id in another case":     {a.bearer(with(jwt.MapClaims{"oid": strings.ToUpper(contributor)})), 200},
		"expired":                       {a.bearer(with(jwt.MapClaims{"exp": wiretest.Now.Add(-6 * time.Minute).Unix()})), 401},
		"not yet valid":                 {a.bearer(with(jwt.MapClaims{"nbf": wiretest.Now.Add(6 * time.Minute).Unix()})), 401},
		"no expiry":                     {a.bearer(with(jwt.MapClaims{"exp": nil})), 401},
		"another audience":              {a.bearer(with(jwt.MapClaims{"aud": "https://management.azure.com"})), 401},
		"another issuer":                {a.bearer(with(jwt.MapClaims{"iss": "https://sts.windows.net/x/"})), 401},
		"no object id":                  {a.bearer(with(jwt.MapClaims{"oid": nil})), 401},
		"a foreign key":                 {a.signed(jwt.SigningMethodRS256, "key-1", stranger, claims(contributor)), 401},
		"an unknown key id":             {a.signed(jwt.SigningMethodRS256, "key-2", stranger, claims(contributor)), 401},
		"no key id":                     {a.signed(jwt.SigningMethodRS256, "", a.keys["key-1"], claims(contributor)), 401},
		"another algorithm":             {a.signed(jwt.SigningMethodPS256, "key-1", a.keys["key-1"], claims(contributor)), 401},
		"the public key as a secret":    {a.signed(jwt.SigningMethodHS256, "key-1", a.keys["key-1"].N.Bytes(), claims(contributor)), 401},
		"no signature":                  {a.signed(jwt.SigningMethodNone, "key-1", jwt.UnsafeAllowNoneSignatureType, claims(contributor)), 401},
		"cut":                           {good[:len(good)-8], 401},
		"nothing":                       {"Bearer ", 401},
		"a shared access signature too": {"Bearer " + h.Token("iothubowner"), 401},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.Do(wiretest.Call{Method: "GET", Path: "/devices", Token: tt.token})
			if got.Status != tt.want {
				t.Errorf("%d %s, want %d", got.Status, got.Body, tt.want)
			}
			if tt.want == 401 {
				got.WantError(t, 401, "IotHubUnauthorizedAccess", "Unauthorized")
			}
		})
	}
	if log := h.Log.String(); strings.Contains(log, good[len("Bearer "):]) {
		t.Error("the log has a token")
	}
}

func TestAPrincipalWithoutThePermissionIsTold(t *testing.T) {
	a := newAuthority(t)
	h := wiretest.StartREST(t, node.Options{Entra: a.options()})
	for _, path := range []string{"/devices/dev1", "/nowhere"} {
		h.Do(wiretest.Call{Method: "GET", Path: path, Token: a.bearer(claims(nobody))}).
			WantError(t, 401, "IotHubUnauthorized", "Principal the-application is not authorized for GET on "+path+" due to no assigned permissions")
	}
	h.Do(wiretest.Call{Method: "POST", Path: "/twins/dev1/methods", Body: `{"methodName":"m"}`, Token: a.bearer(claims(reader))}).
		WantNested(t, 401, "IotHubUnauthorized", "401003", "Principal the-application is not authorized for POST on /twins/dev1/methods due to no assigned permissions", "null")
}

func TestANewKeyOfTheIssuerIsFound(t *testing.T) {
	a := newAuthority(t)
	now := clock.Stopped(wiretest.Now)
	h := wiretest.StartREST(t, node.Options{Entra: a.options(), Clock: now})
	get := func(kid string) int {
		return h.Do(wiretest.Call{Method: "GET", Path: "/devices", Token: a.signed(jwt.SigningMethodRS256, kid, a.keys[kid], claims(contributor))}).Status
	}
	if got := get("key-1"); got != 200 {
		t.Fatalf("the first key: %d", got)
	}
	a.addKey("key-2")
	if got := get("key-2"); got != 401 {
		t.Errorf("the second key, at once: %d; the set is read too often", got)
	}
	now.Advance(time.Minute)
	if got := get("key-2"); got != 200 {
		t.Errorf("the second key, a minute later: %d", got)
	}
	if err := os.Remove(a.file); err != nil {
		t.Fatal(err)
	}
	delete(a.keys, "key-1")
	now.Advance(10 * time.Minute)
	if got := get("key-2"); got != 200 {
		t.Errorf("a known key whose set is gone: %d", got)
	}
}

func TestEntraOptions(t *testing.T) {
	for name, tt := range map[string]struct {
		opt  entra.Options
		want string
	}{
		"no issuer":       {entra.Options{Keys: "keys.json"}, "issuer"},
		"no keys":         {entra.Options{Issuers: []string{issuer}}, "keys"},
		"an unknown role": {entra.Options{Issuers: []string{issuer}, Keys: "keys.json", Roles: map[string][]string{nobody: {"Owner"}}}, `"Owner" is neither`},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := node.New(node.Options{Entra: &tt.opt})
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New: %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestWithoutEntraNoBearerTokenIsAccepted(t *testing.T) {
	a := newAuthority(t)
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "GET", Path: "/devices", Token: a.bearer(claims(contributor))}).
		WantError(t, 401, "IotHubUnauthorizedAccess", "Unauthorized")
}
