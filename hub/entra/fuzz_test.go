package entra

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const issuer = "https://sts.windows.net/contoso/"

// A token is taken only if it is signed with RS256 by a key of the set, of an
// accepted issuer, for this hub, and not over; and then for the principal that
// it names.
func FuzzTokens(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	known, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	file := filepath.Join(f.TempDir(), "keys.json")
	set := fmt.Sprintf(`{"keys":[{"kty":"RSA","kid":"k","n":%q,"e":"AQAB"}]}`, base64.RawURLEncoding.EncodeToString(known.N.Bytes()))
	if err := os.WriteFile(file, []byte(set), 0o600); err != nil {
		f.Fatal(err)
	}
	v, err := New(Options{Issuers: []string{issuer}, Keys: file, Roles: map[string][]string{"oid-1": {"IoT Hub Data Reader"}}}, func() time.Time { return now })
	if err != nil {
		f.Fatal(err)
	}
	const header = `{"alg":"RS256","kid":"k","typ":"JWT"}`
	good := `{"iss":"` + issuer + `","aud":"https://iothubs.azure.net","exp":1800000060,"oid":"oid-1","appid":"app"}`
	f.Add(header, good, true, "")
	for _, claims := range []string{
		`{}`, `null`, `[]`, strings.Replace(good, "contoso", "other", 1), strings.Replace(good, `"exp":1800000060,`, "", 1), strings.Replace(good, "1800000060", "1e400", 1),
		strings.Replace(good, `"oid":"oid-1"`, `"oid":""`, 1), strings.Replace(good, `"https://iothubs.azure.net"`, `["a","https://iothubs.azure.net/"]`, 1),
		strings.Replace(good, "1800000060", "1", 1), strings.Replace(good, `"appid"`, `"upn":"a@b","unique_name":"`+strings.Repeat("é", 200)+`","azp"`, 1),
		strings.Replace(good, `{`, `{"nbf":1900000000,"iat":"x",`, 1),
	} {
		f.Add(header, claims, true, "")
	}
	for _, h := range []string{`{"alg":"none"}`, `{"alg":"HS256","kid":"k"}`, `{"alg":"RS512","kid":"k"}`, `{"alg":"RS256","kid":"other"}`, `{"alg":"RS256","kid":1}`, `{"alg":"RS256","kid":"k","crit":["x"]}`} {
		f.Add(h, good, true, "")
	}
	f.Add(header, good, false, "AAAA")
	f.Fuzz(func(t *testing.T, header, claims string, sign bool, signature string) {
		text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
		if sign {
			sum := sha256.Sum256([]byte(text))
			b, err := rsa.SignPKCS1v15(nil, known, crypto.SHA256, sum[:])
			if err != nil {
				t.Fatal(err)
			}
			signature = base64.RawURLEncoding.EncodeToString(b)
		}
		caller, err := v.Authenticate(t.Context(), text+"."+signature)
		if err != nil {
			return
		}
		var h struct{ Alg, Kid string }
		var c struct {
			Iss, Oid, Azp, Appid, Unique_name, UPN string
			Aud                                    any
			Exp                                    json.Number
		}
		if err := json.Unmarshal([]byte(header), &h); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(claims), &c); err != nil {
			t.Fatal(err)
		}
		if exp, err := c.Exp.Float64(); err != nil || exp < float64(now.Unix())-600 {
			t.Errorf("%s is taken, and is over", claims)
		}
		if !sign || h.Alg != "RS256" || h.Kid != "k" || c.Iss != issuer || c.Oid == "" || !strings.Contains(fmt.Sprint(c.Aud), "iothubs.azure.net") && !strings.Contains(fmt.Sprint(c.Aud), iotHubAudiences[2]) {
			t.Errorf("%s %s is taken for %+v", header, claims, caller)
		}
		if (len(caller.Actions) > 0) != strings.EqualFold(c.Oid, "oid-1") || caller.Actions == nil || caller.Name == "" || len(caller.Name) > 200 {
			t.Errorf("%s is taken for %+v", claims, caller)
		}
	})
}

// The keys of a set are read as they were written, and none that is too weak to
// prove anything.
func FuzzKeySet(f *testing.F) {
	n := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xc3}, minRSABits/8))
	for _, set := range []string{
		`{"keys":[{"kty":"RSA","kid":"k","use":"sig","n":"` + n + `","e":"AQAB"},{"kty":"EC","kid":"e"}]}`,
		`{"keys":[{"kty":"RSA","kid":"k","n":"` + n + `","e":"AA"}]}`,
		`{"keys":[{"kty":"RSA","kid":"k","n":"` + n + `","e":"AQ"}]}`,
		`{"keys":[{"kty":"RSA","kid":"k","n":"` + n + `","e":"AAAC"}]}`,
		`{"keys":null}`, `[]`, `{"keys":[{"kty":"RSA","kid":"\ud800","n":"` + n + `","e":"AQAB"},null]}`,
	} {
		f.Add([]byte(set))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeySet(data)
		if err != nil {
			return
		}
		type jwk struct{ Kty, Kid, N, E string }
		var set struct {
			Keys []jwk `json:"keys"`
		}
		for id, k := range keys {
			if k.N.BitLen() < minRSABits || k.E < 3 || k.E%2 == 0 || id == "" {
				t.Errorf("%s: key %q has %d bits and the exponent %d", data, id, k.N.BitLen(), k.E)
			}
			set.Keys = append(set.Keys, jwk{"RSA", id, base64.RawURLEncoding.EncodeToString(k.N.Bytes()), base64.RawURLEncoding.EncodeToString([]byte{byte(k.E >> 16), byte(k.E >> 8), byte(k.E)})})
		}
		text, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseKeySet(text)
		if err != nil {
			t.Fatalf("%s is read again as %s: %v", data, text, err)
		}
		if diff := cmp.Diff(keys, again); diff != "" {
			t.Errorf("%s (-read +again):\n%s", data, diff)
		}
	})
}

// Options that are read are taken as they stand, or refused in one line; JSON
// means the same as YAML.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"issuers: [https://sts.windows.net/TENANT/]\nkeys: https://login.microsoftonline.com/TENANT/discovery/v2.0/keys\nroles:\n  OBJECT-ID: [IoT Hub Data Contributor]\n",
		`{"issuers":["a"],"keys":"k","audiences":["b"],"roles":{"o":["Microsoft.Devices/IotHubs/twins/read"]}}`,
		"", "issuers: a", "unknown: 1", "roles: {a: [b], A: [c]}", "keys: &a k\nissuers: [*a]", "\xff", "---\n---\n", "roles:\n  1: [2]\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		opt, err := Parse(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(map[string]any{"issuers": opt.Issuers, "audiences": opt.Audiences, "keys": opt.Keys, "roles": opt.Roles})
		if err != nil {
			t.Fatal(err)
		}
		read, err := Parse(again)
		if diff := cmp.Diff(opt, read, cmp.Transformer("sorted", func(m map[string][]string) []string {
			var list []string
			for name, roles := range m {
				list = append(list, fmt.Sprintf("%q %q", name, roles))
			}
			slices.Sort(list)
			return list
		})); diff != "" || err != nil {
			t.Errorf("%s as JSON: %v (-read +again):\n%s", text, err, diff)
		}
		if v, err := New(opt, time.Now); err == nil && (len(v.issuers) == 0 || v.keys.place == "") {
			t.Errorf("%s is a verifier without issuers or keys", text)
		} else if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", text, err)
		}
	})
}
