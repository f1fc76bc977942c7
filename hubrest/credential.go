package hubrest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/internal/bearer"
	"github.com/iotdm/iotdm/sas"
)

// sasCredential signs tokens with the key of a shared access policy, each used until it is time to renew it.
type sasCredential struct {
	audience, policy string
	key              sas.Key
	life             time.Duration
	now              func() time.Time

	mu      sync.Mutex // guards what follows
	token   string
	renewAt time.Time
}

// fixedCredential is a token that somebody else signed.
type fixedCredential string

// bearerCredential is a principal of Microsoft Entra ID.
type bearerCredential struct{ *bearer.Source }

func newAuthorizer(o Options, scope string) (authorizer, error) {
	if o.Credential != nil {
		return bearerCredential{bearer.New(o.Credential, scope, o.Now)}, nil
	}
	cs := o.ConnectionString
	switch {
	case cs.DeviceID != "":
		return nil, fmt.Errorf("connection string: it is that of device %q; a service needs one with SharedAccessKeyName", cs.DeviceID)
	case cs.SharedAccessSignature != "":
		return fixedCredential(cs.SharedAccessSignature), nil
	case cs.SharedAccessKeyName == "":
		return nil, errors.New("connection string: SharedAccessKeyName is missing")
	}
	if err := cs.SharedAccessKey.Validate(); err != nil {
		return nil, fmt.Errorf("connection string: SharedAccessKey: %w", err)
	}
	return &sasCredential{
		// The service compares the resource in lower case, and so do the SDKs sign it.
		audience: strings.ToLower(cs.Audience()),
		policy:   cs.SharedAccessKeyName,
		key:      cs.SharedAccessKey,
		life:     o.TokenLife,
		now:      o.Now,
	}, nil
}

func (c *sasCredential) authorization(context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.token != "" && now.Before(c.renewAt) {
		return c.token, nil
	}
	expiry := now.Add(c.life)
	token, err := sas.Sign(c.audience, c.policy, c.key, expiry)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	c.token, c.renewAt = token, sas.RenewAt(now, expiry)
	return token, nil
}

func (c bearerCredential) authorization(ctx context.Context) (string, error) {
	token, err := c.Token(ctx)
	if err != nil {
		return "", fmt.Errorf("get token of Entra ID: %w", err)
	}
	return "Bearer " + token, nil
}

func (c fixedCredential) authorization(context.Context) (string, error) { return string(c), nil }
