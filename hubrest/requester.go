package hubrest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/internal/bearer"
	"github.com/iotdm/iotdm/internal/wait"
)

// A requester makes requests to one service: it has what a Client and a ProvisioningClient share. It is safe for
// concurrent use.
type requester struct {
	peer peer
	host string // as in URLs, with a port or without
	cred authorizer
	http *http.Client
	log  *slog.Logger
	wait func(context.Context, time.Duration) error // between two attempts

	maxBody int64 // of an answer, in bytes

	own *atomic.Bool // an answer has come from one of iotdm
}

// A peer is the kind of service that is spoken to.
type peer struct {
	name       string // as errors name it
	apiVersion string // of requests that say none
	scope      string // of tokens of Entra ID
}

var (
	hubPeer          = peer{name: "the hub", apiVersion: "2021-04-12", scope: bearer.IoTHub}
	provisioningPeer = peer{name: "the provisioning service", apiVersion: "2021-10-01", scope: bearer.Provisioning}
)

// An authorizer fills the header Authorization. It is safe for concurrent use.
type authorizer interface {
	// authorization returns the header's whole value. It is called for every attempt of every request, so it keeps
	// what it has got until it is time to renew that.
	authorization(ctx context.Context) (string, error)
}

func newRequester(o Options, p peer) (requester, error) {
	cs := o.ConnectionString
	if cs.HostName == "" {
		return requester{}, errors.New("connection string: HostName is missing")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.TokenLife == 0 {
		o.TokenLife = time.Hour
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	cred, err := newAuthorizer(o, p.scope)
	if err != nil {
		return requester{}, err
	}
	return requester{
		peer: p,
		host: strings.ToLower(cs.HostName),
		cred: cred,
		http: &http.Client{
			Transport: newTransport(o),
			// The service never redirects, and a credential must not follow one to somebody else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		log:  o.Logger,
		wait: wait.For,

		maxBody: defaultMaxBody,

		own: new(atomic.Bool),
	}, nil
}

func (c *requester) close() { c.http.CloseIdleConnections() }

func newTransport(o Options) *http.Transport {
	dialer := &net.Dialer{Timeout: 15 * time.Second}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     o.TLS.Clone(), // nil stays nil
		TLSHandshakeTimeout: 15 * time.Second,
		MaxIdleConnsPerHost: 64,
		// Shorter than the hub's own patience, so that a method rarely meets a connection that is just being closed:
		// it could not be sent again.
		IdleConnTimeout: 60 * time.Second,
		Protocols:       new(http.Protocols),

		MaxResponseHeaderBytes: 256 << 10,
	}
	// IoT Hub speaks HTTP/1.1 only, and over HTTP/2 the transport repeats requests by rules of its own.
	t.Protocols.SetHTTP1(true)
	if o.Addr != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, o.Addr)
		}
	}
	return t
}
