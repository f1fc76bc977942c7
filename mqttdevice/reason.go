package mqttdevice

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// plainReason gives what a connection ended with one of the package's reasons.
func plainReason(err error) error {
	var op *net.OpError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe): // the write came before the read that tells
		return ErrHubClosed
	case errors.Is(err, net.ErrClosed):
		// Closed at this end. Only paho's keep-alive does so before a reason was given.
		return ErrNoPong
	case errors.As(err, &op) && refusesCertificate(op.Err):
		return fmt.Errorf("%w (%w)", ErrUnauthorized, op.Err)
	case errors.As(err, &op):
		return fmt.Errorf("%w: %w", ErrNetwork, op.Err) // without the addresses of both ends
	}
	return err
}

// refusesCertificate reports whether err is a TLS alert about the certificate of this side. With TLS
// 1.3 it comes after the handshake (RFC 8446, section 6.2).
func refusesCertificate(err error) bool {
	alert, ok := errors.AsType[tls.AlertError](err)
	const badCertificate, accessDenied, certificateRequired = 42, 49, 116
	return ok && (alert >= badCertificate && alert <= accessDenied || alert == certificateRequired)
}

// An expiredError is a failure whose cause shows at this end: the credential is over.
type expiredError struct {
	what  error // ErrTokenExpired or ErrCertificateExpired
	at    time.Time
	cause error // what the hub did about it
}

func (e *expiredError) Error() string {
	return fmt.Sprintf("%v (at %s)", e.what, e.at.UTC().Format(time.RFC3339))
}

func (e *expiredError) Unwrap() []error { return []error{e.what, e.cause} }

// explain finds the cause of a failure that the hub does not name: s was refused, or closed.
func (s *session) explain(err error) error {
	if !errors.Is(err, ErrHubClosed) && !errors.Is(err, ErrUnauthorized) {
		return err
	}
	now := s.c.opt.Now()
	if !s.expiry.IsZero() && now.After(s.expiry) {
		return &expiredError{ErrTokenExpired, s.expiry, err}
	}
	if end := s.c.certificateEnd; !end.IsZero() && now.After(end) {
		return &expiredError{ErrCertificateExpired, end, err}
	}
	return err
}

// certificateEnd is when the certificate of a device ends; zero if that is not known.
func certificateEnd(opt Options) time.Time {
	if !opt.ConnectionString.X509 || opt.TLS == nil || len(opt.TLS.Certificates) == 0 {
		return time.Time{}
	}
	pair := opt.TLS.Certificates[0]
	leaf := pair.Leaf
	if leaf == nil && len(pair.Certificate) > 0 {
		leaf, _ = x509.ParseCertificate(pair.Certificate[0]) // the handshake will tell
	}
	if leaf == nil {
		return time.Time{}
	}
	return leaf.NotAfter
}

// evicted counts, for a connection in use that the hub closed, how many lasted for less than evictedSoon. The
// second makes it probable that another program has the same id: the two throw each other out. They do so
// less often once they know, until a connection is stable.
func (c *Client) evicted(reason error, lasted time.Duration) error {
	switch {
	case reason != ErrHubClosed || lasted > stable:
		c.link.evictions = 0
	case lasted < evictedSoon:
		c.link.evictions++
	}
	if c.link.evictions < 2 {
		return reason
	}
	return ErrTakenOver
}
