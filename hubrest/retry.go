package hubrest

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// repeat says when a request may be made again.
type repeat int

const (
	// repeatUnsent: when the hub can't have seen it, because no connection came about.
	repeatUnsent repeat = iota
	// repeatRefused: also when the hub refused it without looking (429).
	repeatRefused
	// repeatAlways: also when nobody knows whether the hub did it, as doing it twice does no harm.
	repeatAlways
)

const (
	maxAttempts = 5
	// maxRetryAfter is the longest wait that a hub may ask for; with a longer one the refusal is returned at once.
	maxRetryAfter = 2 * time.Minute
)

// attempts sends r until it succeeds, must not be repeated, or has been sent often enough.
func (c *requester) attempts(ctx context.Context, r request, body []byte) (answer, error) {
	pause := &backoff.ExponentialBackOff{InitialInterval: 250 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 10 * time.Second}
	pause.Reset()
	for n := 1; ; n++ {
		a, sent, err := c.attempt(ctx, r, body)
		if err == nil {
			return a, nil
		}
		var refusal *Error
		if ctx.Err() != nil && !errors.As(err, &refusal) {
			return answer{}, context.Cause(ctx)
		}
		delay := pause.NextBackOff()
		if after, ok := retryAfter(a.header, time.Now()); ok {
			// Everybody was told the same time: the jitter keeps them apart.
			delay += after
		}
		deadline, hasDeadline := ctx.Deadline()
		if n == maxAttempts || !repeatable(r.repeat, sent, err) || delay > maxRetryAfter || hasDeadline && time.Until(deadline) < delay {
			return answer{}, err
		}
		c.log.Warn("repeating request", keyMethod, r.method, keyPath, "/"+strings.Join(r.path, "/"), keyAttempt, n, keyWait, delay, keyErr, err)
		if err := c.wait(ctx, delay); err != nil {
			return answer{}, err
		}
		if r.method == http.MethodDelete && sent && !refused(err) {
			// The first attempt may have done it, and then there is nothing left to find.
			r.accept = func(status int, _ http.Header) bool { return status == http.StatusNotFound }
		}
	}
}

// repeatable tells whether a request with this permission may follow a failure.
func repeatable(allowed repeat, sent bool, err error) bool {
	var refusal *Error
	if errors.As(err, &refusal) {
		switch refusal.Status {
		case http.StatusTooManyRequests:
			return allowed >= repeatRefused
		case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return allowed == repeatAlways
		}
		return false
	}
	return transient(err) && (!sent || allowed == repeatAlways)
}

func refused(err error) bool {
	var refusal *Error
	return errors.As(err, &refusal) && refusal.Status == http.StatusTooManyRequests
}

// transient tells whether a failure of the network may be gone a moment later. Time-outs have used up the patience
// there was.
func transient(err error) bool {
	var (
		cred   *credentialError
		cert   *tls.CertificateVerificationError
		alert  tls.AlertError
		record tls.RecordHeaderError
		dns    *net.DNSError
	)
	switch {
	case errors.Is(err, ErrTimedOut), errors.Is(err, errTooLarge),
		errors.As(err, &cred), errors.As(err, &cert), errors.As(err, &alert), errors.As(err, &record):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	}
	return true
}

// retryAfter reads the header Retry-After: seconds or a date.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if v == "" {
		return 0, false
	}
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return max(0, t.Sub(now)), true
}
