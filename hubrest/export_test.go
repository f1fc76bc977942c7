package hubrest

import (
	"context"
	"net/http"
	"time"
)

// SetWait replaces the pauses between attempts.
func (c *Client) SetWait(f func(context.Context, time.Duration) error) { c.wait = f }

// SetMaxBody replaces the limit of an answer's size.
func (c *Client) SetMaxBody(n int64) { c.maxBody = n }

// ParseError is what reads the answers that are no success.
func ParseError(status int, h http.Header, body []byte) *Error {
	return parseError(answer{status, h, body})
}
