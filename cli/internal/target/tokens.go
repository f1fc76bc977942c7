package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// metadataHost is the metadata service of every Azure virtual machine. Elsewhere
// nobody is there, mostly without saying so, or that of another cloud.
const (
	metadataHost = "169.254.169.254"
	metadataWait = 2 * time.Second
)

// newTokenClient makes the requests for tokens. It follows no redirect, which
// would take a secret to somebody else. The endpoints of managed identities,
// which are part of the machine, it asks without a proxy.
func newTokenClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = func(r *http.Request) (*url.URL, error) {
		if ofThisMachine(r) {
			return nil, nil
		}
		return http.ProxyFromEnvironment(r)
	}
	transport.ResponseHeaderTimeout = 30 * time.Second
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialer := net.Dialer{Timeout: 15 * time.Second}
		if host, _, _ := net.SplitHostPort(addr); host == metadataHost {
			dialer.Timeout = metadataWait
		}
		return dialer.DialContext(ctx, network, addr)
	}
	return &http.Client{
		Transport:     tokenTransport{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ofThisMachine tells whether a request for a token goes to the endpoint of a
// managed identity: those, and only those, have no TLS.
func ofThisMachine(r *http.Request) bool { return r != nil && r.URL.Scheme == "http" }

// A tokenTransport says which failures are for good.
type tokenTransport struct{ http.RoundTripper }

// RoundTrip has azidentity try again only what was cut off: it would do so for
// minutes, and who waits for a command learns more from the error.
func (t tokenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil, err
		}
		return nil, &finalError{err}
	}
	// azidentity first looks whether a metadata service is there, by a request that
	// Azure's refuses, and takes any answer for one. Others than Azure's must not
	// keep it from asking who has signed in.
	if r.URL.Host == metadataHost && r.Header.Get("Metadata") == "" {
		switch status := response.StatusCode; {
		case status == http.StatusBadRequest, status == http.StatusGone, status == http.StatusTooManyRequests, status >= 500:
		default:
			response.Body.Close()
			return nil, &finalError{fmt.Errorf("what answers at %s is not Azure's (%d)", metadataHost, status)}
		}
	}
	return response, nil
}

// A finalError is not tried again.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// NonRetriable is how azcore is told.
func (*finalError) NonRetriable() {}
