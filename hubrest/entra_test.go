package hubrest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

// An authority is a token endpoint of Microsoft Entra ID. It gives out tokens named by their number.
type authority struct {
	*httptest.Server
	rec recorder

	mu    sync.Mutex
	forms []url.Values
	check func(form url.Values) error // who may have a token
}

func newAuthority(t *testing.T, check func(url.Values) error) *authority {
	a := &authority{check: check}
	a.Server = newServer(t, a.serve)
	return a
}

func (a *authority) serve(w http.ResponseWriter, req *http.Request) {
	a.rec.add(req)
	a.mu.Lock()
	defer a.mu.Unlock()
	form, err := url.ParseQuery(a.rec.body[len(a.rec.body)-1])
	if err == nil {
		err = a.check(form)
	}
	a.forms = append(a.forms, form)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if req.Method != "POST" || req.URL.Path != "/tenant-1/oauth2/v2.0/token" || req.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		err = fmt.Errorf("%s %s", req.Method, req.URL)
	}
	if err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":"invalid_client","error_description":"AADSTS7000215: %v\r\nTrace ID: 1","error_codes":[7000215],"trace_id":"1"}`, err)
		return
	}
	fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"token-%d"}`, len(a.forms))
}

func (a *authority) options() hubrest.EntraOptions {
	return hubrest.EntraOptions{TenantID: "tenant-1", ClientID: "client-1", Authority: a.URL + "/", HTTPClient: a.Client()}
}

// newEntraClient returns a client of a hub that answers with the header Authorization it got.
func newEntraClient(t *testing.T, cred hubrest.Credential) *hubrest.Client {
	t.Helper()
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

// authorization is what the hub gets from c.
func authorization(t *testing.T, c *hubrest.Client) string {
	t.Helper()
	d, err := c.Device(t.Context(), "dev1")
	if err != nil {
		t.Fatal(err)
	}
	return d.DeviceID
}

func TestAClientSecretBecomesAToken(t *testing.T) {
	a := newAuthority(t, func(form url.Values) error {
		want := url.Values{
			"grant_type": {"client_credentials"}, "client_id": {"client-1"}, "client_secret": {"s3cr+t&="},
			"scope": {"https://iothubs.azure.net/.default"},
		}
		if diff := cmp.Diff(want, form); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
	cred, err := hubrest.NewClientSecret(a.options(), "s3cr+t&=")
	if err != nil {
		t.Fatal(err)
	}
	c := newEntraClient(t, cred)
	for range 2 {
		if got := authorization(t, c); got != "Bearer token-1" {
			t.Errorf("Authorization %q", got)
		}
	}
}

func TestARefusedCredentialIsUnauthorizedAndNotTriedAgain(t *testing.T) {
	a := newAuthority(t, func(url.Values) error { return errors.New("Invalid client secret provided.") })
	cred, err := hubrest.NewClientSecret(a.options(), "s3cret")
	if err != nil {
		t.Fatal(err)
	}
	_, err = newEntraClient(t, cred).Device(t.Context(), "dev1")
	var refusal *hubrest.TokenError
	if !errors.As(err, &refusal) || !errors.Is(err, hubrest.ErrUnauthorized) {
		t.Fatalf("Device: %v, want a TokenError", err)
	}
	want := &hubrest.TokenError{Status: 401, Name: "invalid_client", Message: "AADSTS7000215: Invalid client secret provided. Trace ID: 1"}
	if diff := cmp.Diff(want, refusal); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
	if strings.Contains(err.Error(), "s3cret") || a.rec.count() != 1 {
		t.Errorf("%d requests: %v", a.rec.count(), err)
	}
}

// newCert returns a self-signed certificate of key.
func newCert(t *testing.T, key crypto.Signer) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client-1"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func newRSAKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// checkAssertion verifies an assertion as Microsoft Entra ID does, which knows the certificate.
func checkAssertion(form url.Values, cert tls.Certificate, endpoint string, chain bool) error {
	if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || form.Get("client_secret") != "" {
		return fmt.Errorf("form %v", form)
	}
	thumbprint := sha256.Sum256(cert.Certificate[0])
	header := map[string]any{"alg": "PS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(thumbprint[:])}
	if chain {
		header["x5c"] = []any{base64.StdEncoding.EncodeToString(cert.Certificate[0])}
	}
	public := cert.PrivateKey.(*rsa.PrivateKey).Public().(*rsa.PublicKey)
	var claims jwt.RegisteredClaims
	token, err := jwt.ParseWithClaims(form.Get("client_assertion"), &claims, func(*jwt.Token) (any, error) { return public, nil },
		jwt.WithValidMethods([]string{"PS256"}), jwt.WithAudience(endpoint), jwt.WithIssuer("client-1"), jwt.WithSubject("client-1"),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	if err != nil {
		return err
	}
	// The library takes any length of salt; the standard (RFC 7518, section 3.5) doesn't.
	signed, _, _ := cutLast(form.Get("client_assertion"), ".")
	sum := sha256.Sum256([]byte(signed))
	if err := rsa.VerifyPSS(public, crypto.SHA256, sum[:], token.Signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}); err != nil {
		return err
	}
	if diff := cmp.Diff(header, token.Header); diff != "" {
		return errors.New(diff)
	}
	if life := claims.ExpiresAt.Sub(claims.NotBefore.Time); life != 10*time.Minute || len(claims.ID) != 36 {
		return fmt.Errorf("life %v, id %q", life, claims.ID)
	}
	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func TestAClientCertificateSignsAnAssertion(t *testing.T) {
	cert := newCert(t, newRSAKey(t))
	for _, chain := range []bool{false, true} {
		var a *authority
		a = newAuthority(t, func(form url.Values) error {
			return checkAssertion(form, cert, a.URL+"/tenant-1/oauth2/v2.0/token", chain)
		})
		cred, err := hubrest.NewClientCertificate(a.options(), cert, chain)
		if err != nil {
			t.Fatal(err)
		}
		if got := authorization(t, newEntraClient(t, cred)); got != "Bearer token-1" {
			t.Errorf("Authorization %q", got)
		}
	}
}

func TestCertificatesThatCannotSignAreRefused(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other := newCert(t, newRSAKey(t))
	other.PrivateKey = newRSAKey(t)
	o := hubrest.EntraOptions{TenantID: "t", ClientID: "c"}
	for name, cert := range map[string]tls.Certificate{"an elliptic curve": newCert(t, ec), "another key": other, "none": {PrivateKey: newRSAKey(t)}} {
		if _, err := hubrest.NewClientCertificate(o, cert, false); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestAWorkloadIdentityReadsItsFileForEveryToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	a := newAuthority(t, func(form url.Values) error {
		if form.Get("client_assertion_type") == "" {
			return errors.New("no assertion")
		}
		return nil
	})
	o := a.options()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o.Now = func() time.Time { return now }
	cred, err := hubrest.NewWorkloadIdentity(o, file)
	if err != nil {
		t.Fatal(err)
	}
	c := newEntraClient(t, cred)
	if _, err := c.Device(t.Context(), "dev1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Device without the file: %v", err)
	}
	for i, want := range []string{"first", "second"} {
		if err := os.WriteFile(file, []byte(want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		authorization(t, c)
		if got := a.forms[i].Get("client_assertion"); got != want {
			t.Errorf("client_assertion %q, want %q", got, want)
		}
		now = now.Add(time.Hour)
	}
}

func TestAuthoritiesMustBeSecure(t *testing.T) {
	for _, authority := range []string{"http://login.example.com", "login.example.com", "https://", ":"} {
		if _, err := hubrest.NewClientSecret(hubrest.EntraOptions{TenantID: "t", ClientID: "c", Authority: authority}, "s"); err == nil {
			t.Errorf("%s was accepted", authority)
		}
	}
}

func TestTheEnvironmentSaysWhichCredential(t *testing.T) {
	key := newRSAKey(t)
	cert := newCert(t, key)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), both, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("federated"), 0o600); err != nil {
		t.Fatal(err)
	}
	app := map[string]string{"AZURE_TENANT_ID": "tenant-1", "AZURE_CLIENT_ID": "client-1"}
	for _, tt := range []struct {
		name string
		env  map[string]string
		want string // a member of the form
	}{
		{"a secret", map[string]string{"AZURE_CLIENT_SECRET": "s"}, "client_secret"},
		{"a certificate", map[string]string{"AZURE_CLIENT_CERTIFICATE_PATH": filepath.Join(dir, "cert.pem")}, "client_assertion"},
		{"a workload identity", map[string]string{"AZURE_FEDERATED_TOKEN_FILE": filepath.Join(dir, "token")}, "client_assertion"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAuthority(t, func(form url.Values) error {
				if form.Get(tt.want) == "" {
					return fmt.Errorf("form %v", form)
				}
				return nil
			})
			cred, err := hubrest.CredentialFromEnvironment(func(name string) string {
				if name == "AZURE_AUTHORITY_HOST" {
					return a.URL
				}
				return app[name] + tt.env[name]
			})
			if err != nil {
				t.Fatal(err)
			}
			hubrest.SetHTTPClient(cred, a.Client())
			if got := authorization(t, newEntraClient(t, cred)); got != "Bearer token-1" {
				t.Errorf("Authorization %q", got)
			}
		})
	}
	for name, env := range map[string]map[string]string{
		"no certificate there":       {"AZURE_CLIENT_CERTIFICATE_PATH": filepath.Join(dir, "none")},
		"a certificate's password":   {"AZURE_CLIENT_CERTIFICATE_PATH": filepath.Join(dir, "cert.pem"), "AZURE_CLIENT_CERTIFICATE_PASSWORD": "p"},
		"not secure":                 {"AZURE_CLIENT_SECRET": "s", "AZURE_AUTHORITY_HOST": "http://h"},
		"an identity of SF":          {"IDENTITY_ENDPOINT": "https://h", "IDENTITY_HEADER": "h", "IDENTITY_SERVER_THUMBPRINT": "t"},
		"a user-assigned one on Arc": {"IDENTITY_ENDPOINT": "http://h", "IMDS_ENDPOINT": "http://h"},
	} {
		if _, err := hubrest.CredentialFromEnvironment(func(name string) string { return app[name] + env[name] }); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestTokenEndpointsGetNoSecondRequestByRedirect(t *testing.T) {
	other := newServer(t, func(w http.ResponseWriter, req *http.Request) { t.Error("the redirect was followed") })
	a := newServer(t, func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		http.Redirect(w, req, other.URL, http.StatusTemporaryRedirect)
	})
	cred, err := hubrest.NewClientSecret(hubrest.EntraOptions{TenantID: "t", ClientID: "c", Authority: a.URL, HTTPClient: a.Client()}, "s")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cred.Authorization(t.Context()); err == nil {
		t.Error("Authorization succeeded")
	}
}
