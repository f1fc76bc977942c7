package target

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// newServer starts a server, with TLS if that is wanted.
func newServer(t *testing.T, secure bool, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// newAuthority starts Entra ID. It gives a token to whoever has a secret or an
// assertion that is right.
func newAuthority(t *testing.T) *httptest.Server {
	return newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
			self := "https://" + r.Host + "/tenant-1/"
			json.NewEncoder(w).Encode(map[string]string{"issuer": self + "v2.0", "authorization_endpoint": self + "authorize", "token_endpoint": self + "oauth2/v2.0/token"})
			return
		}
		assertion := r.FormValue("client_assertion")
		switch {
		case r.URL.Path != "/tenant-1/oauth2/v2.0/token" || r.FormValue("client_id") != "client-1":
			w.WriteHeader(http.StatusNotFound)
		case r.FormValue("client_secret") == "busy-secret":
			w.WriteHeader(http.StatusNotImplemented)
		case r.FormValue("client_secret") == "elsewhere-secret":
			http.Redirect(w, r, "https://login.example.com/", http.StatusTemporaryRedirect)
		case r.FormValue("client_secret") == "the-secret":
			io.WriteString(w, `{"token_type":"Bearer","expires_in":3599,"access_token":"secret"}`)
		case assertion == "federated":
			io.WriteString(w, `{"token_type":"Bearer","expires_in":3599,"access_token":"workload"}`)
		case strings.Count(assertion, ".") == 2:
			io.WriteString(w, `{"token_type":"Bearer","expires_in":3599,"access_token":"certificate"}`)
		default:
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1"}`)
		}
	})
}

// getToken asks as a command would, on a machine whose metadata service is
// metadata; nil: nobody answers.
func getToken(t *testing.T, authority *httptest.Server, metadata http.HandlerFunc) (string, error) {
	t.Helper()
	client := newTokenClient()
	transport := client.Transport.(tokenTransport).RoundTripper.(*http.Transport)
	transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
	if authority != nil {
		transport.TLSClientConfig.RootCAs.AddCert(authority.Certificate())
	}
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr != metadataHost+":80" {
			return dial(ctx, network, addr)
		}
		if metadata == nil {
			return nil, errors.New("no route to host")
		}
		return new(net.Dialer).DialContext(ctx, network, newServer(t, false, metadata).Listener.Addr().String())
	}
	credential, err := newCredential(client)
	if err != nil {
		return "", err
	}
	token, err := credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://iothubs.azure.net/.default"}})
	return token.Token, err
}

// setEnv sets these variables of Azure's tools, and none of the others. There is
// no program but those in bin.
func setEnv(t *testing.T, env map[string]string, bin string) {
	for _, setting := range os.Environ() {
		name, _, _ := strings.Cut(setting, "=")
		if regexp.MustCompile(`(?i)^(AZURE_|IDENTITY_|IMDS_|MSI_|https?_proxy|all_proxy|no_proxy)`).MatchString(name) {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	t.Setenv("PATH", bin)
}

// writeCertificate writes a certificate and its key into one file.
func writeCertificate(t *testing.T, dir string) (file string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client-1"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))+string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}

func write(t *testing.T, dir, name, content string) (file string) {
	file = filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

// giveManaged gives out a token that azidentity, which keeps those of managed
// identities for the whole process, does not use a second time.
func giveManaged(w http.ResponseWriter, token string) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":%q,"expires_in":"60","expires_on":"%d","resource":"https://iothubs.azure.net","token_type":"Bearer"}`, token, time.Now().Add(time.Minute).Unix())
}

// azure is the metadata service of a virtual machine with a managed identity.
func azure(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata") != "true" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	giveManaged(w, "managed")
}

// bare is one that knows of no identity.
func bare(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusBadRequest)
	io.WriteString(w, `{"error":"invalid_request","error_description":"Identity not found"}`)
}

// TestWhoseTokenItIs: the credentials in the order of Azure's tools, what chooses
// among them, and what is said where there is none.
func TestWhoseTokenItIs(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	authority := newAuthority(t)
	app := newServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-IDENTITY-HEADER") != "secret-header" || r.FormValue("resource") != "https://iothubs.azure.net" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		giveManaged(w, "app")
	})
	dir := t.TempDir()
	cert, federated := writeCertificate(t, dir), write(t, dir, "federated", "federated")
	az := fmt.Sprintf(`case "$*" in *--tenant*) t=cli-of-tenant;; *) t=cli;; esac; echo '{"accessToken":"'$t'","expires_on":%d}'`, time.Now().Add(time.Hour).Unix())
	aws := func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusUnauthorized) }
	type set = map[string]string
	asApp := func(more set) set {
		env := set{"AZURE_TENANT_ID": "tenant-1", "AZURE_CLIENT_ID": "client-1", "AZURE_AUTHORITY_HOST": authority.URL}
		for name, value := range more {
			env[name] = value
		}
		return env
	}
	for _, tt := range []struct {
		name     string
		env      set
		az       string // a shell script; "": it is not installed
		metadata http.HandlerFunc
		want     string // the token, or the error and what to do
	}{
		{"a secret", asApp(set{"AZURE_CLIENT_SECRET": "the-secret"}), az, azure, "secret"},
		{"a certificate", asApp(set{"AZURE_CLIENT_CERTIFICATE_PATH": cert}), az, azure, "certificate"},
		{"a workload identity", asApp(set{"AZURE_FEDERATED_TOKEN_FILE": federated}), az, azure, "workload"},
		{"an app of App Service", set{"IDENTITY_ENDPOINT": app.URL, "IDENTITY_HEADER": "secret-header"}, az, azure, "app"},
		{"a virtual machine", nil, az, azure, "managed"},
		{"empty variables", set{"AZURE_CLIENT_ID": "", "AZURE_TOKEN_CREDENTIALS": "", "AZURE_FEDERATED_TOKEN_FILE": ""}, "", azure, "managed"},
		{"one without an identity", nil, az, bare, "cli"},
		{"who has signed in", nil, az, nil, "cli"},
		{"who has signed in, on a machine of another cloud", nil, az, aws, "cli"},
		{"who has signed in, chosen", asApp(set{"AZURE_TOKEN_CREDENTIALS": "AzureCLICredential"}), az, azure, "cli-of-tenant"},
		{"the machine, chosen", set{"AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential"}, az, azure, "managed"},

		{"nobody", nil, "", nil, `^ManagedIdentity: no route to host; sign in with "az login", or set AZURE_TENANT_ID`},
		{"nobody, chosen", set{"AZURE_TOKEN_CREDENTIALS": "dev"}, "", azure, `^nobody has signed in on this machine; sign in with "az login"`},
		{"nobody has signed in", set{"AZURE_TOKEN_CREDENTIALS": "dev"}, `printf "ERROR: Please run 'az login' to setup account.\n" >&2; exit 1`, nil,
			`^AzureCLI: Please run 'az login' to setup account; sign in`},
		{"control characters", set{"AZURE_TOKEN_CREDENTIALS": "dev"}, `printf "ERROR: \033[2Joops\n" >&2; exit 1`, nil, `\[2Joops; sign in`},
		{"too much", set{"AZURE_TOKEN_CREDENTIALS": "dev"}, `head -c 9000000 /dev/zero | tr '\0' x >&2; exit 1`, nil, `xxx\.\.\.; sign in`},
		{"no JSON", set{"AZURE_TOKEN_CREDENTIALS": "dev"}, `echo secret-token`, nil, `^invalid character .*; sign in`},
		{"no such credential", set{"AZURE_TOKEN_CREDENTIALS": "me"}, az, nil, `^invalid AZURE_TOKEN_CREDENTIALS value "me"\. Valid values are "dev", "prod"`},
		{"a tenant that is a command", set{"AZURE_TOKEN_CREDENTIALS": "dev", "AZURE_TENANT_ID": "t & calc"}, az, nil, `^AzureCLI: invalid tenantID`},
		{"a wrong secret", asApp(set{"AZURE_CLIENT_SECRET": "wrong-secret"}), az, azure,
			`^127\.0\.0\.1:\d+ answers 401 invalid_client AADSTS7000215: Invalid client secret provided\. Trace ID: 1; check AZURE_TENANT_ID`},
		{"an authority in trouble", asApp(set{"AZURE_CLIENT_SECRET": "busy-secret"}), az, azure, `answers 501; try again later$`},
		{"an authority that sends elsewhere", asApp(set{"AZURE_CLIENT_SECRET": "elsewhere-secret"}), az, azure, `answers 307`},
		{"an authority that is not there", asApp(set{"AZURE_CLIENT_SECRET": "the-secret", "AZURE_AUTHORITY_HOST": "https://127.0.0.1:1"}), az, azure,
			`^ClientSecret: .*connection refused; check the variables AZURE_\.\.\., and the way to 127\.0\.0\.1:1$`},
		{"an authority that is not secure", asApp(set{"AZURE_CLIENT_SECRET": "the-secret", "AZURE_AUTHORITY_HOST": "http://h"}), "", nil, `^Environment: cannot use an authority host without https; `},
		{"no certificate there", asApp(set{"AZURE_CLIENT_CERTIFICATE_PATH": filepath.Join(dir, "none")}), "", nil, `^Environment: failed to read certificate file ".*": open .*: no such file`},
		{"no federated token there", asApp(set{"AZURE_FEDERATED_TOKEN_FILE": filepath.Join(dir, "none")}), "", nil, `WorkloadIdentity: .*no such file.*; check the variables AZURE_`},
		{"a header that App Service does not know", set{"IDENTITY_ENDPOINT": app.URL, "IDENTITY_HEADER": "wrong-secret"}, az, nil, `answers 401; check the managed identity of this machine`},
		{"an identity that the machine does not have", set{"AZURE_CLIENT_ID": "id-1"}, az, bare,
			`169\.254\.169\.254 answers 400 invalid_request Identity not found; check the managed identity of this machine, or sign in`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bin := t.TempDir()
			if tt.az != "" {
				write(t, bin, "az", "#!/bin/sh\nPATH=/bin:/usr/bin\n"+tt.az)
			}
			setEnv(t, tt.env, bin)
			began := time.Now()
			got, err := getToken(t, authority, tt.metadata)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if err != nil {
				got = err.Error()
				if none, ok := errors.AsType[*NoTokenError](err); ok {
					got += "; " + none.Remedy
				}
				if strings.ContainsAny(got, "\n\r\t\x1b") || len(got) > 800 || strings.Contains(got, "-secret") || strings.Contains(got, "secret-token") {
					t.Errorf("error %.900q", got)
				}
			}
			if !regexp.MustCompile(tt.want).MatchString(got) || (err == nil) != (got == tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestManagedIdentitiesAreAskedWithoutAProxy(t *testing.T) {
	setEnv(t, map[string]string{"HTTP_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1"}, t.TempDir())
	if got, err := getToken(t, nil, azure); got != "managed" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWaitingForAProgramEndsWithTheContext(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	bin := t.TempDir()
	write(t, bin, "az", "#!/bin/sh\nexec /bin/sleep 60")
	setEnv(t, map[string]string{"AZURE_TOKEN_CREDENTIALS": "dev"}, bin)
	credential, err := newCredential(newTokenClient())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("changed my mind"))
	defer cancel()
	if _, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://iothubs.azure.net/.default"}}); err == nil || err.Error() != "changed my mind" {
		t.Error(err)
	}
}
