package hubrest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/iotdm/iotdm/hubrest"
)

// authority is a token endpoint of Microsoft Entra ID that knows one secret. It gives out tokens named by their number.
type authority struct {
	*httptest.Server
	asked int
}

func newAuthority(t *testing.T) *authority {
	a := new(authority)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /tenant-1/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{
			"issuer": a.URL + "/tenant-1/v2.0", "authorization_endpoint": a.URL + "/authorize", "token_endpoint": a.URL + "/token",
		})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		a.asked++
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		if r.FormValue("client_secret") != "s3cr+t&=" || !strings.Contains(r.FormValue("scope"), "https://iothubs.azure.net/.default") {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`)
			return
		}
		fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"token-%d"}`, a.asked)
	})
	a.Server = newServer(t, mux.ServeHTTP)
	return a
}

// newEntraClient returns a client of a hub that answers with the header Authorization it got.
func newEntraClient(t *testing.T, a *authority, secret string) *hubrest.Client {
	t.Helper()
	cred, err := azidentity.NewClientSecretCredential("tenant-1", "client-1", secret, &azidentity.ClientSecretCredentialOptions{
		ClientOptions:            azcore.ClientOptions{Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: a.URL}, Transport: a.Client()},
		DisableInstanceDiscovery: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := newServer(t, func(w http.ResponseWriter, req *http.Request) {
		fmt.Fprintf(w, `{"deviceId":%q}`, req.Header.Get("Authorization"))
	})
	o := options(srv)
	o.Credential = cred
	o.ConnectionString.SharedAccessKeyName, o.ConnectionString.SharedAccessKey = "", ""
	c, err := hubrest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestTheHubGetsATokenOfTheCredential(t *testing.T) {
	c := newEntraClient(t, newAuthority(t), "s3cr+t&=")
	for range 2 {
		d, err := c.Device(t.Context(), "dev1")
		if err != nil {
			t.Fatal(err)
		}
		if d.DeviceID != "Bearer token-1" {
			t.Errorf("Authorization %q", d.DeviceID)
		}
	}
}

func TestARefusedCredentialIsNotTriedAgain(t *testing.T) {
	a := newAuthority(t)
	_, err := newEntraClient(t, a, "wr0ng").Device(t.Context(), "dev1")
	if _, refused := errors.AsType[*azidentity.AuthenticationFailedError](err); !refused || a.asked != 1 {
		t.Errorf("Device: %v, asked %d times", err, a.asked)
	}
	if strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("the secret is in %v", err)
	}
}
