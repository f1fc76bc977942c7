package hubrest

import (
	"context"
	"net"
	"net/http"
	"time"
)

var RetryAfter = retryAfter

// SetWait replaces the pauses between attempts.
func (c *Client) SetWait(f func(context.Context, time.Duration) error) { c.wait = f }

// SetMaxBody replaces the limit of an answer's size.
func (c *Client) SetMaxBody(n int64) { c.maxBody = n }

// SetAddr replaces the address that is dialled.
func (c *Client) SetAddr(addr string) {
	c.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

// Do makes a request whose attempts may take this long.
func (c *Client) Do(ctx context.Context, method string, timeout time.Duration) error {
	_, err := c.do(ctx, request{what: "test", method: method, path: []string{"test"}, repeat: repeatAlways, timeout: timeout}, nil)
	return err
}

// ParseError is what reads the answers that are no success.
func ParseError(status int, h http.Header, body []byte) *Error {
	return parseError(answer{status, h, body})
}

// ForTest makes a credential that gets tokens over HTTP not pause between attempts, and returns the pauses it would
// have made.
func ForTest(c Credential) *[]time.Duration {
	var pauses []time.Duration
	c.(*tokenSource).wait = func(ctx context.Context, d time.Duration) error {
		pauses = append(pauses, d)
		return ctx.Err()
	}
	return &pauses
}

// NewIMDS returns the credential of a virtual machine whose metadata service is at endpoint.
func NewIMDS(o ManagedIdentityOptions, endpoint string) (Credential, error) {
	return o.imdsSource(endpoint)
}

// NewArc returns the credential of a machine whose Azure Arc agent is at endpoint and keeps its keys in dir.
func NewArc(o ManagedIdentityOptions, endpoint, dir string) (Credential, error) {
	return o.arcSource(endpoint, dir)
}

// SetHTTPClient replaces what a credential makes its requests with.
func SetHTTPClient(cred Credential, c *http.Client) { cred.(*tokenSource).client = c }

// ParseAccessToken returns when the token of an answer is to be renewed.
func ParseAccessToken(body []byte, now time.Time) (time.Time, error) {
	t, err := parseAccessToken(body, now)
	return t.renewAt, err
}
