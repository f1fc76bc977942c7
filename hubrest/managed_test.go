package hubrest_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

const managedToken = `{"access_token":"managed","expires_in":"3599","expires_on":"1506484173","resource":"https://iothubs.azure.net","token_type":"Bearer"}`

// newMetadata starts a plain HTTP server, as endpoints of managed identities are.
func newMetadata(t *testing.T, h http.HandlerFunc) (endpoint string) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL + "/token"
}

func TestAppServiceIdentitiesComeFromItsEndpoint(t *testing.T) {
	var rec recorder
	endpoint := newMetadata(t, func(w http.ResponseWriter, req *http.Request) {
		rec.add(req)
		if req.Header.Get("X-IDENTITY-HEADER") != "secret-header" {
			w.WriteHeader(401)
			return
		}
		io.WriteString(w, managedToken)
	})
	env := map[string]string{"IDENTITY_ENDPOINT": endpoint, "IDENTITY_HEADER": "secret-header", "AZURE_CLIENT_ID": "id-1"}
	cred, err := hubrest.CredentialFromEnvironment(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	if got := authorization(t, newEntraClient(t, cred)); got != "Bearer managed" {
		t.Errorf("Authorization %q", got)
	}
	if got, want := rec.seen[0].RequestURI, "/token?api-version=2019-08-01&client_id=id-1&resource=https%3A%2F%2Fiothubs.azure.net"; got != want {
		t.Errorf("request %s, want %s", got, want)
	}
}

func TestVirtualMachinesAskTheirMetadataService(t *testing.T) {
	for _, tt := range []struct {
		name, steps string
		asked       int
		ok          bool
	}{
		{"it answers", "", 1, true},
		{"it is updating", "404 404 429 503", 5, true},
		{"there is no such identity", "400", 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rec recorder
			cred, err := hubrest.NewIMDS(hubrest.ManagedIdentityOptions{}, newMetadata(t, misbehave(&rec, managedToken, strings.Fields(tt.steps)...)))
			if err != nil {
				t.Fatal(err)
			}
			hubrest.ForTest(cred)
			got, err := cred.Authorization(t.Context())
			if (err == nil) != tt.ok || tt.ok != (got == "Bearer managed") || rec.count() != tt.asked {
				t.Errorf("%q, %v, asked %d times, want %d", got, err, rec.count(), tt.asked)
			}
			req := rec.seen[0]
			if got, want := req.Method+" "+req.RequestURI, "GET /token?api-version=2018-02-01&resource=https%3A%2F%2Fiothubs.azure.net"; got != want || req.Header.Get("Metadata") != "true" {
				t.Errorf("request %s, want %s; header %v", got, want, req.Header)
			}
		})
	}
}

func TestAzureArcNamesAFileWithItsKey(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	for file, content := range map[string]string{
		filepath.Join(dir, "good.key"): "the key", filepath.Join(dir, "large.key"): strings.Repeat("k", 5000),
		filepath.Join(dir, "other.txt"): "no", filepath.Join(elsewhere, "good.key"): "no",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, challenge string
		ok              bool
	}{
		{"a key file of its own", "Basic realm=" + filepath.Join(dir, "good.key"), true},
		{"another kind of file", "Basic realm=" + filepath.Join(dir, "other.txt"), false},
		{"a file elsewhere", "Basic realm=" + filepath.Join(elsewhere, "good.key"), false},
		{"a file elsewhere, by a detour", "Basic realm=" + dir + "/../" + filepath.Base(elsewhere) + "/good.key", false},
		{"a file that is too large", "Basic realm=" + filepath.Join(dir, "large.key"), false},
		{"a file that isn't there", "Basic realm=" + filepath.Join(dir, "none.key"), false},
		{"no file", "Bearer", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var sent []string
			endpoint := newMetadata(t, func(w http.ResponseWriter, req *http.Request) {
				sent = append(sent, req.RequestURI+" "+req.Header.Get("Metadata")+" "+req.Header.Get("Authorization"))
				if len(sent) == 1 {
					w.Header().Set("WWW-Authenticate", tt.challenge)
					w.WriteHeader(401)
					return
				}
				io.WriteString(w, managedToken)
			})
			cred, err := hubrest.NewArc(hubrest.ManagedIdentityOptions{}, endpoint, dir)
			if err != nil {
				t.Fatal(err)
			}
			got, err := cred.Authorization(t.Context())
			const uri = "/token?api-version=2020-06-01&resource=https%3A%2F%2Fiothubs.azure.net true "
			want := []string{uri}
			if tt.ok {
				want = append(want, uri+"Basic the key")
			}
			if (err == nil) != tt.ok || tt.ok != (got == "Bearer managed") {
				t.Errorf("%q, %v", got, err)
			}
			if diff := cmp.Diff(want, sent); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARefusalOfAManagedIdentityIsATokenError(t *testing.T) {
	endpoint := newMetadata(t, func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(400)
		io.WriteString(w, `{"error":"invalid_request","error_description":"Identity not found"}`)
	})
	cred, err := hubrest.NewIMDS(hubrest.ManagedIdentityOptions{}, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	_, err = cred.Authorization(t.Context())
	var refusal *hubrest.TokenError
	if !errors.As(err, &refusal) {
		t.Fatalf("Authorization: %v", err)
	}
	if want := "get token from the metadata service of this machine: the answer is 400 invalid_request: Identity not found"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}
