package hubrest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
)

// AzureCLIOptions say whose token the Azure CLI is asked for. The zero value means the account that "az account show"
// names.
type AzureCLIOptions struct {
	TenantID string // empty: that of the account
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// cliTimeout bounds one run of az, which is a Python program that may have to ask Entra ID.
const cliTimeout = 30 * time.Second

// An AzureCLIError is what az says when it gives out no token, such as that nobody has signed in. It matches
// ErrUnauthorized.
type AzureCLIError struct{ Message string }

// Error returns what az said, on one line.
func (e *AzureCLIError) Error() string { return "az account get-access-token: " + e.Message }

// Is matches ErrUnauthorized.
func (e *AzureCLIError) Is(target error) bool { return target == ErrUnauthorized }

var tenantPattern = regexp.MustCompile(`^[0-9A-Za-z.-]+$`)

// NewAzureCLI returns the credential of the person who has signed in with "az login". It runs the program az from the
// PATH, which has to be there.
func NewAzureCLI(o AzureCLIOptions) (Credential, error) {
	az, err := exec.LookPath("az")
	if err != nil {
		return nil, fmt.Errorf("az: %w", err)
	}
	args := []string{"account", "get-access-token", "--resource", entraResource, "--output", "json"}
	if o.TenantID != "" {
		if !tenantPattern.MatchString(o.TenantID) { // on Windows az is a batch file, whose arguments a shell reads
			return nil, fmt.Errorf("az: the tenant id %q isn't one", o.TenantID)
		}
		args = append(args, "--tenant", o.TenantID)
	}
	now := EntraOptions{Now: o.Now}.now()
	s := newTokenSource("the Azure CLI", nil, now)
	s.get = func(ctx context.Context) (accessToken, error) {
		out, err := runCLI(ctx, az, args)
		if err != nil {
			return accessToken{}, err
		}
		return parseCLIToken(out, now())
	}
	return s, nil
}

// runCLI returns what az prints, which holds a token, and an error with the last of what it complains of.
func runCLI(ctx context.Context, az string, args []string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cliTimeout, &AzureCLIError{fmt.Sprintf("it did not end within %v", cliTimeout)})
	defer cancel()
	var out, complaint limitedBuffer
	cmd := exec.CommandContext(ctx, az, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.WaitDelay = time.Second // for a child of it that keeps the pipes
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err == nil:
		return out.Bytes(), nil
	}
	message := strings.TrimSuffix(strings.TrimPrefix(oneLine(complaint.String()), "ERROR: "), ".")
	if message == "" {
		message = err.Error()
	}
	return nil, &AzureCLIError{message}
}

// A limitedBuffer keeps the beginning of what is written.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), maxTokenBody-b.Len())])
	return len(p), nil
}

// parseCLIToken reads what az prints. Before 2.54 it had the end of the token in local time only.
func parseCLIToken(out []byte, now time.Time) (accessToken, error) {
	var wire struct {
		Token     string       `json:"accessToken"`
		ExpiresOn *wireSeconds `json:"expires_on"`
		Local     string       `json:"expiresOn"`
	}
	if json.Unmarshal(out, &wire) != nil {
		return accessToken{}, &AzureCLIError{"it printed what is not documented"} // it may hold the token
	}
	expiry := time.Time{}
	if wire.ExpiresOn != nil {
		expiry = time.Unix(int64(*wire.ExpiresOn), 0)
	} else if local, err := time.ParseInLocation("2006-01-02 15:04:05.999999", wire.Local, time.Local); err == nil {
		expiry = local
	}
	return newAccessToken(wire.Token, expiry, now)
}

// firstOf is the first of some credentials that gives out tokens; from then on it is that one.
type firstOf struct {
	list  []Credential
	found atomic.Pointer[Credential]
}

func (f *firstOf) Authorization(ctx context.Context) (string, error) {
	if c := f.found.Load(); c != nil {
		return (*c).Authorization(ctx)
	}
	var failures []error
	for _, c := range f.list {
		header, err := c.Authorization(ctx)
		if err == nil {
			f.found.Store(&c)
			return header, nil
		}
		if ctx.Err() != nil {
			return "", err
		}
		failures = append(failures, err)
	}
	return "", errors.Join(failures...)
}
