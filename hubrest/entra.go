package hubrest

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/iotdm/iotdm/sas"
)

const (
	// IoT Hub as Microsoft Entra ID knows it, for every hub of the public cloud.
	entraResource = "https://iothubs.azure.net"
	entraScope    = entraResource + "/.default"

	defaultAuthority = "https://login.microsoftonline.com"

	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	assertionLife = 10 * time.Minute
)

// EntraOptions say which application of Microsoft Entra ID asks for tokens. TenantID and ClientID are needed.
type EntraOptions struct {
	TenantID string
	ClientID string // the application's id
	// Authority is where tokens come from, an https URL. Empty: https://login.microsoftonline.com.
	Authority string
	// HTTPClient makes the requests for tokens. Nil: one with the system's roots and proxies. Redirects are not
	// followed.
	HTTPClient *http.Client
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// NewClientSecret returns the credential of an application that has a secret.
func NewClientSecret(o EntraOptions, secret sas.Secret) (Credential, error) {
	if secret == "" {
		return nil, errors.New("client secret: it is empty")
	}
	return newEntra(o, func(string) (url.Values, error) {
		return url.Values{"client_secret": {string(secret)}}, nil
	})
}

// NewClientCertificate returns the credential of an application that proves itself with a certificate and its RSA key:
// it signs an assertion for every token. sendChain adds the certificates to it, which trust by subject name and issuer
// needs. See the article "Microsoft identity platform application authentication certificate credentials".
func NewClientCertificate(o EntraOptions, cert tls.Certificate, sendChain bool) (Credential, error) {
	key, ok := cert.PrivateKey.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("client certificate: it needs an RSA key, not %T", cert.PrivateKey)
	}
	if len(cert.Certificate) == 0 {
		return nil, errors.New("client certificate: there is none")
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("client certificate: the key isn't that of the first certificate")
	}
	now := o.now()
	return newEntra(o, func(endpoint string) (url.Values, error) {
		assertion, err := signAssertion(endpoint, o.ClientID, cert.Certificate, key, sendChain, now())
		return assertionForm(assertion), err
	})
}

// NewWorkloadIdentity returns the credential of an application that trusts tokens of somebody else, such as those that
// Kubernetes puts into tokenFile. The file is read again for every token.
func NewWorkloadIdentity(o EntraOptions, tokenFile string) (Credential, error) {
	if tokenFile == "" {
		return nil, errors.New("workload identity: the token's file is missing")
	}
	return newEntra(o, func(string) (url.Values, error) {
		b, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, err // names the file
		}
		return assertionForm(strings.TrimSpace(string(b))), nil
	})
}

// newEntra returns a credential that posts a form to the token endpoint. proof adds to it what shows who asks.
func newEntra(o EntraOptions, proof func(endpoint string) (url.Values, error)) (Credential, error) {
	if o.TenantID == "" || o.ClientID == "" {
		return nil, errors.New("credential: tenant id and client id are needed")
	}
	if o.Authority == "" {
		o.Authority = defaultAuthority
	}
	authority, err := url.Parse(o.Authority)
	if err != nil || authority.Scheme != "https" || authority.Host == "" {
		return nil, fmt.Errorf("credential: the authority %q is not an https URL", o.Authority)
	}
	endpoint := strings.TrimRight(o.Authority, "/") + "/" + escape(o.TenantID) + "/oauth2/v2.0/token"
	source := newTokenSource(authority.Host, o.HTTPClient, o.now())
	source.request = func(ctx context.Context) (*http.Request, error) {
		form, err := proof(endpoint)
		if err != nil {
			return nil, err
		}
		form.Set("grant_type", "client_credentials")
		form.Set("client_id", o.ClientID)
		form.Set("scope", entraScope)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return req, nil
	}
	return source, nil
}

func (o EntraOptions) now() func() time.Time {
	if o.Now == nil {
		return time.Now
	}
	return o.Now
}

func assertionForm(assertion string) url.Values {
	return url.Values{"client_assertion_type": {assertionType}, "client_assertion": {assertion}}
}

// signAssertion makes the JWT by which the holder of a certificate's key shows to endpoint that it is the client.
func signAssertion(endpoint, clientID string, chain [][]byte, key *rsa.PrivateKey, sendChain bool, now time.Time) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodPS256, jwt.RegisteredClaims{
		Issuer:    clientID,
		Subject:   clientID,
		Audience:  jwt.ClaimStrings{endpoint},
		ID:        newUUID(),
		IssuedAt:  jwt.NewNumericDate(now),
		NotBefore: jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(assertionLife)),
	})
	thumbprint := sha256.Sum256(chain[0])
	t.Header["x5t#S256"] = base64.RawURLEncoding.EncodeToString(thumbprint[:])
	if sendChain {
		x5c := make([]string, len(chain))
		for i, der := range chain {
			x5c[i] = base64.StdEncoding.EncodeToString(der)
		}
		t.Header["x5c"] = x5c
	}
	s, err := t.SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign client assertion: %w", err)
	}
	return s, nil
}
