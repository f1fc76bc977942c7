package hubamqp

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/iotdm/iotdm/sas"
)

// Types of tokens, as a claims-based node knows them.
const (
	sasToken    = "servicebus.windows.net:sastoken"
	bearerToken = "bearer" // of IoT Hub
	jwtToken    = "jwt"    // of Event Hubs
)

// lookAgain is after how long Options.Credential may have another token by now.
const lookAgain = time.Minute

// A token is put on a connection.
type token struct {
	kind, text string
	renewAt    time.Time // zero: it can't be renewed
}

// hubToken returns a token for the hub.
func (c *Client) hubToken(ctx context.Context) (token, error) {
	cs := c.opt.ConnectionString
	if c.opt.Credential != nil {
		return c.entraToken(ctx, bearerToken)
	}
	if cs.SharedAccessSignature != "" {
		return token{kind: sasToken, text: string(cs.SharedAccessSignature)}, nil
	}
	now := c.opt.Now()
	expiry := now.Add(c.opt.TokenLife)
	// The service compares the resource in lower case, and so do the SDKs sign it.
	text, err := sas.Sign(c.host, cs.SharedAccessKeyName, cs.SharedAccessKey, expiry)
	if err != nil {
		return token{}, fmt.Errorf("sign token: %w", err)
	}
	return token{sasToken, text, sas.RenewAt(now, expiry)}, nil
}

// entraToken returns one of Options.Credential.
func (c *Client) entraToken(ctx context.Context, kind string) (token, error) {
	text, err := c.bearer.Token(ctx)
	if err != nil {
		return token{}, &credentialError{err}
	}
	if kind == bearerToken {
		text = "Bearer " + text
	}
	return token{kind, text, c.opt.Now().Add(lookAgain)}, nil
}

// A credentialError is that of Options.Credential, which knows best what to say.
type credentialError struct{ error }

func (e *credentialError) Unwrap() error { return e.error }

// eventHubToken returns a token for the events at e.
func (c *Client) eventHubToken(ctx context.Context, e endpoint) (token, error) {
	switch {
	case e.signature != "":
		return token{kind: sasToken, text: string(e.signature)}, nil
	case e.SharedAccessKeyName == "" && c.opt.Credential != nil:
		return c.entraToken(ctx, jwtToken)
	}
	now := c.opt.Now()
	expiry := now.Add(c.opt.TokenLife)
	return token{sasToken, signText(e.audience(), e.SharedAccessKeyName, string(e.SharedAccessKey), expiry), sas.RenewAt(now, expiry)}, nil
}

// signText makes a token as Event Hubs has it: signed not with the bytes that the key stands for, as that of an IoT
// hub is, but with its text.
func signText(audience, policy, key string, expiry time.Time) string {
	sr, se := escape(audience), strconv.FormatInt(expiry.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(sr + "\n" + se))
	return "SharedAccessSignature sr=" + sr + "&sig=" + escape(base64.StdEncoding.EncodeToString(mac.Sum(nil))) + "&se=" + se + "&skn=" + escape(policy)
}
