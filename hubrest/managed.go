package hubrest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// ManagedIdentityOptions say which managed identity of an Azure resource asks for tokens. The zero value means the
// system-assigned one of this machine, app or container.
type ManagedIdentityOptions struct {
	ClientID string // of a user-assigned identity
	// HTTPClient makes the requests for tokens. Nil: one without proxies, as these endpoints are part of the machine.
	HTTPClient *http.Client
	// Getenv reads the environment, which tells where the endpoint is. Nil: os.Getenv.
	Getenv func(string) string
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

const (
	// imdsEndpoint is the same on every Azure virtual machine.
	imdsEndpoint = "http://169.254.169.254/metadata/identity/oauth2/token"

	// arcDirLinux is where the agent of Azure Arc puts the secrets it tells callers to read.
	arcDirLinux   = "/var/opt/azcmagent/tokens"
	arcDirWindows = `AzureConnectedMachineAgent\Tokens` // below %ProgramData%
	maxArcKey     = 4 << 10
)

// NewManagedIdentity returns the credential of a managed identity. It finds the endpoint as Azure's libraries do: App
// Service, Functions and Container Apps by their variables, then Azure Arc, else the metadata service of a virtual
// machine. See the article "How to use managed identities for Azure resources on an Azure VM to acquire an access token".
func NewManagedIdentity(o ManagedIdentityOptions) (Credential, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	endpoint, header := o.Getenv("IDENTITY_ENDPOINT"), o.Getenv("IDENTITY_HEADER")
	switch {
	case endpoint != "" && header != "" && o.Getenv("IDENTITY_SERVER_THUMBPRINT") != "":
		return nil, errors.New("managed identity: that of Service Fabric is not supported")
	case endpoint != "" && header != "":
		return o.source("App Service", endpoint, "2019-08-01", func(h http.Header) { h.Set("X-IDENTITY-HEADER", header) })
	case endpoint != "" && o.Getenv("IMDS_ENDPOINT") != "":
		if o.ClientID != "" {
			return nil, errors.New("managed identity: Azure Arc has no user-assigned ones")
		}
		dir := arcDirLinux
		if runtime.GOOS == "windows" {
			dir = filepath.Join(o.Getenv("ProgramData"), arcDirWindows)
		}
		return o.arcSource(endpoint, dir)
	}
	return o.imdsSource(imdsEndpoint)
}

// source returns a tokenSource that asks endpoint.
func (o ManagedIdentityOptions) source(from, endpoint, apiVersion string, authorize func(http.Header)) (*tokenSource, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("managed identity: the endpoint %q is not a URL", endpoint)
	}
	q := u.Query()
	q.Set("api-version", apiVersion)
	q.Set("resource", entraResource)
	if o.ClientID != "" {
		q.Set("client_id", o.ClientID)
	}
	u.RawQuery = q.Encode()
	client, now := o.HTTPClient, o.Now
	if client == nil {
		client = &http.Client{
			Timeout: 30 * time.Second,
			// Elsewhere than on Azure nobody answers at the metadata service's address: don't wait long for that.
			Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext},
		}
	}
	if now == nil {
		now = time.Now
	}
	s := newTokenSource(from, client, now)
	s.request = func(ctx context.Context) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		authorize(req.Header)
		return req, nil
	}
	return s, nil
}

// imdsSource is for virtual machines, whose metadata service may be updating (404, 410) for up to 70 seconds.
func (o ManagedIdentityOptions) imdsSource(endpoint string) (*tokenSource, error) {
	s, err := o.source("the metadata service of this machine", endpoint, "2018-02-01", func(h http.Header) { h.Set("Metadata", "true") })
	if err != nil {
		return nil, err
	}
	s.tries = 7
	s.backoff.InitialInterval, s.backoff.MaxInterval = 1500*time.Millisecond, time.Minute
	again := s.again
	s.again = func(status int) bool {
		return status == http.StatusNotFound || status == http.StatusGone || again(status)
	}
	return s, nil
}

// arcSource is for machines elsewhere that Azure Arc manages: the agent names a file that only those may read who may
// have tokens.
func (o ManagedIdentityOptions) arcSource(endpoint, dir string) (*tokenSource, error) {
	s, err := o.source("the agent of Azure Arc", endpoint, "2020-06-01", func(h http.Header) { h.Set("Metadata", "true") })
	if err != nil {
		return nil, err
	}
	ask := s.request
	s.request = func(ctx context.Context) (*http.Request, error) {
		challenge, err := ask(ctx)
		if err != nil {
			return nil, err
		}
		resp, err := s.client.Do(challenge)
		if err != nil {
			return nil, netError(err)
		}
		resp.Body.Close()
		key, err := readArcKey(resp.Header.Get("WWW-Authenticate"), dir)
		if err != nil {
			return nil, err
		}
		req, err := ask(ctx)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Basic "+key)
		return req, nil
	}
	return s, nil
}

// readArcKey reads the file that a challenge names, which must be a key file of the agent's and no other: else whoever
// answers at the endpoint could have any file sent.
func readArcKey(challenge, dir string) (string, error) {
	name, ok := strings.CutPrefix(challenge, "Basic realm=")
	if !ok {
		return "", errors.New("it sent no challenge")
	}
	if filepath.Dir(name) != filepath.Clean(dir) || filepath.Ext(name) != ".key" {
		return "", fmt.Errorf("it names %q, which is none of its key files", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxArcKey+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxArcKey {
		return "", fmt.Errorf("%s is larger than a key", name)
	}
	return string(b), nil
}
