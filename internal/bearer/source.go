// Package bearer keeps the tokens of Microsoft Entra ID that authorize a service with an IoT hub, or with its provisioning service.
package bearer

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// The services as Entra ID knows them, all of the public cloud.
const (
	IoTHub       = "https://iothubs.azure.net/.default"
	Provisioning = "https://azure-devices-provisioning.net/.default"
)

const (
	// renewBefore is how long before its end a token is replaced, which leaves time for an outage.
	renewBefore = 5 * time.Minute
	// renewAgain is how long a valid token is used on after it couldn't be replaced.
	renewAgain = 30 * time.Second
)

// A Source asks a credential for tokens, and keeps each until it is time for the next: not every credential does, and
// none goes on with what it has when there is no new one. It is safe for concurrent use.
type Source struct {
	credential azcore.TokenCredential
	scope      string
	now        func() time.Time

	fetching chan struct{} // holds one element while somebody fetches
	mu       sync.Mutex    // guards what follows
	token    azcore.AccessToken
	renewAt  time.Time
}

// New returns a source without a token yet, of those for a scope. now is the clock.
func New(credential azcore.TokenCredential, scope string, now func() time.Time) *Source {
	return &Source{credential: credential, scope: scope, now: now, fetching: make(chan struct{}, 1)}
}

// Token returns a token that is valid now. One caller fetches a new one; the others go on with the old one as long as
// that is valid, and wait when there is none. Its errors are those of the credential.
func (s *Source) Token(ctx context.Context) (string, error) {
	token, renewAt := s.current()
	now := s.now()
	switch {
	case now.Before(renewAt):
		return token.Token, nil
	case now.Before(token.ExpiresOn):
		select {
		case s.fetching <- struct{}{}:
		default:
			return token.Token, nil
		}
	default:
		select {
		case s.fetching <- struct{}{}:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	defer func() { <-s.fetching }()
	if token, renewAt = s.current(); s.now().Before(renewAt) { // somebody else has fetched it
		return token.Token, nil
	}
	fetched, err := s.credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{s.scope}})
	now = s.now()
	if err == nil && (fetched.Token == "" || !now.Before(fetched.ExpiresOn)) {
		err = errors.New("the credential gave no token that is valid now")
	}
	switch {
	case err == nil:
		s.keep(fetched, renewalOf(fetched, now))
		return fetched.Token, nil
	case now.Before(token.ExpiresOn):
		s.keep(token, now.Add(renewAgain))
		return token.Token, nil
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	}
	return "", err
}

func (s *Source) current() (token azcore.AccessToken, renewAt time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token, s.renewAt
}

func (s *Source) keep(token azcore.AccessToken, renewAt time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.renewAt = token, renewAt
}

// renewalOf is when a token is to be replaced: when whoever gave it out says so, or else shortly before its end.
func renewalOf(token azcore.AccessToken, now time.Time) time.Time {
	if now.Before(token.RefreshOn) && token.RefreshOn.Before(token.ExpiresOn) {
		return token.RefreshOn
	}
	return token.ExpiresOn.Add(-min(renewBefore, token.ExpiresOn.Sub(now)/2))
}
