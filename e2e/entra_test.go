package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestEntraID gives a service command the client secret of an application
// instead of a key, and the hub the public keys and the roles.
func TestEntraID(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	tokenOf := func(principal string) string {
		token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
			"aud": "https://iothubs.azure.net", "iss": "https://sts.windows.net/the-tenant/", "oid": principal,
			"nbf": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		})
		token.Header["kid"] = "key-1"
		signed, err := token.SignedString(key)
		if err != nil {
			t.Error(err)
		}
		return signed
	}
	// One authority, as Microsoft's: it gives a token to who knows the secret.
	authority := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
			self := "https://" + r.Host + "/the-tenant/"
			json.NewEncoder(w).Encode(map[string]string{"issuer": self + "v2.0", "authorization_endpoint": self + "authorize", "token_endpoint": self + "oauth2/v2.0/token"})
			return
		}
		if r.FormValue("client_secret") != "the secret" || !slices.Contains(strings.Fields(r.FormValue("scope")), "https://iothubs.azure.net/.default") {
			http.Error(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`, http.StatusUnauthorized)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"token_type": "Bearer", "expires_in": 3599, "access_token": tokenOf(r.FormValue("client_id"))})
	}))
	t.Cleanup(authority.Close)
	roots := write("authority.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate().Raw}))
	keys := write("keys.json", fmt.Appendf(nil, `{"keys":[{"kty":"RSA","use":"sig","kid":"key-1","n":%q,"e":%q}]}`,
		base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())))
	entra := write("entra.yaml", []byte("issuers: [https://sts.windows.net/the-tenant/]\nkeys: "+keys+"\nroles:\n  reader: [IoT Hub Data Reader]\n  writer: [IoT Hub Data Contributor]\n"))

	h := startHub(t, "127.0.0.8", "--entra", entra)
	h.iotdm(t, "service", "device", "create", "--device", "d1")
	h.iotdm(t, "device", "send", "--device", "d1", "hello")
	as := func(principal, secret string, args ...string) (string, int) {
		cmd := exec.Command("iotdm", append(args, "--hub-name", h.address)...)
		cmd.Env = append(os.Environ(), "IOTDM_DATA="+h.data, "SSL_CERT_FILE="+roots, "AZURE_AUTHORITY_HOST="+authority.URL,
			"AZURE_TENANT_ID=the-tenant", "AZURE_CLIENT_ID="+principal, "AZURE_CLIENT_SECRET="+secret)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	for name, tt := range map[string]struct {
		principal, secret string
		args              []string
		status            int
		want              string
	}{
		"a reader reads a twin":                {"reader", "the secret", []string{"service", "twin", "get", "--device", "d1"}, 0, `"deviceId": "d1"`},
		"a writer changes a twin":              {"writer", "the secret", []string{"service", "twin", "patch", "--device", "d1", "--tags", `{"a":1}`}, 0, `"a": 1`},
		"a writer sends a message":             {"writer", "the secret", []string{"service", "c2d", "send", "--device", "d1", "--data", "hello"}, 0, "Sent 5 bytes to device d1"},
		"a writer reads events":                {"writer", "the secret", []string{"service", "events", "--from", "earliest", "--follow=false"}, 0, "Telemetry  hello"},
		"a reader may not send a message":      {"reader", "the secret", []string{"service", "c2d", "send", "--device", "d1", "--data", "hello"}, 4, "give it a role"},
		"a reader may not change a twin":       {"reader", "the secret", []string{"service", "twin", "patch", "--device", "d1", "--tags", `{"a":1}`}, 4, "give it a role"},
		"a principal without a role":           {"nobody", "the secret", []string{"service", "twin", "get", "--device", "d1"}, 4, "give it a role"},
		"a wrong secret is the authority's no": {"reader", "wrong", []string{"service", "twin", "get", "--device", "d1"}, 4, "AADSTS7000215"},
	} {
		t.Run(name, func(t *testing.T) {
			out, status := as(tt.principal, tt.secret, tt.args...)
			if status != tt.status || !strings.Contains(out, tt.want) {
				t.Errorf("iotdm %s as %s: exit status %d, want %d, with %q in\n%s", strings.Join(tt.args, " "), tt.principal, status, tt.status, tt.want, out)
			}
			if strings.Contains(out, tt.secret) {
				t.Errorf("the secret was printed:\n%s", out)
			}
		})
	}

	// A person has signed in with "az login", which is a program that prints a token.
	signIn := func(script string) (out string, status int) {
		bin := t.TempDir()
		if err := os.WriteFile(filepath.Join(bin, "az"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("iotdm", "service", "twin", "get", "--device", "d1", "--hub-name", h.address)
		cmd.Env = append(os.Environ(), "IOTDM_DATA="+h.data, "AZURE_TOKEN_CREDENTIALS=AzureCLICredential", "PATH="+bin+":"+os.Getenv("PATH"))
		b, _ := cmd.CombinedOutput()
		return string(b), cmd.ProcessState.ExitCode()
	}
	token := tokenOf("reader")
	out, status := signIn(fmt.Sprintf(`[ "$*" = "account get-access-token -o json --resource https://iothubs.azure.net" ] && echo '{"accessToken":"%s","expires_on":%d}'`, token, time.Now().Add(time.Hour).Unix()))
	if status != 0 || !strings.Contains(out, `"deviceId": "d1"`) {
		t.Errorf("with az login: exit status %d and\n%s", status, out)
	}
	out, status = signIn(`echo "ERROR: Please run 'az login' to setup account." >&2; exit 1`)
	if want := "iotdm: Entra ID gives no token: AzureCLI: Please run 'az login' to setup account; sign in with \"az login\", or set"; status != 4 || !strings.Contains(out, want) {
		t.Errorf("without az login: exit status %d and\n%s\nwant 4 and %s", status, out, want)
	}
}
