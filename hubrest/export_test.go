package hubrest

import (
	"context"
	"net"
	"net/http"
	"time"
)

var RetryAfter = retryAfter

// SetWait replaces the pauses between attempts.
func (c *requester) SetWait(f func(context.Context, time.Duration) error) { c.wait = f }

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
