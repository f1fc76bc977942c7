// Package linked is what the provisioning service asks of others over HTTPS: a hub
// that it is linked with, and a webhook that chooses one.
package linked

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/sas"
)

// A Hub is another IoT hub, of Azure or of iotdm, that devices may be assigned to.
// Its methods may be called concurrently. Their errors are one line that names the
// hub and holds no secret: a device is told of them.
type Hub struct {
	name   string // without a port
	host   string // with the port, if there is one
	policy string
	key    sas.Key
	http   *http.Client
	pause  func(context.Context, time.Duration) error
}

// How long a hub may take: a device waits for it, and its client gives up after
// half a minute.
const (
	attemptTime = 8 * time.Second
	callTime    = 20 * time.Second
	attempts    = 3
)

// New returns the hub of a connection string of a policy that may read and change
// the registry and twins, such as iothubowner. HostName may carry a port; without
// one it is 443. The roots are the system's, which SSL_CERT_FILE may replace, and a
// proxy is taken from the environment. It makes no connection.
func New(c sas.ConnectionString) (*Hub, error) {
	switch {
	case c.HostName == "":
		return nil, errors.New("connection string of a linked hub: HostName is missing")
	case c.DeviceID != "" || c.SharedAccessKeyName == "":
		return nil, errors.New("connection string of a linked hub: it must be one of a shared access policy, with SharedAccessKeyName")
	}
	if err := c.SharedAccessKey.Validate(); err != nil {
		return nil, errors.New("connection string of a linked hub: SharedAccessKey: " + err.Error())
	}
	host := strings.ToLower(c.HostName)
	h := &Hub{name: host, host: host, policy: c.SharedAccessKeyName, key: c.SharedAccessKey, pause: wait.For}
	if name, _, err := net.SplitHostPort(host); err == nil {
		h.name = name
	}
	h.http = &http.Client{
		Transport: newTransport(http.ProxyFromEnvironment, &net.Dialer{Timeout: attemptTime}),
		// A hub never redirects, and the credential must not follow to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return h, nil
}

// Trust has the hub's certificate checked against these roots instead of the
// system's. It is called before anything is asked of the hub.
func (h *Hub) Trust(roots *x509.CertPool) {
	h.http.Transport.(*http.Transport).TLSClientConfig.RootCAs = roots
}

// Name returns the hub's host name, in lower case and without a port.
func (h *Hub) Name() string { return h.name }

// Close closes the connections that are idle.
func (h *Hub) Close() { h.http.CloseIdleConnections() }

func newTransport(proxy func(*http.Request) (*url.URL, error), d *net.Dialer) *http.Transport {
	t := &http.Transport{
		Proxy:                  proxy,
		DialContext:            d.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    attemptTime,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true) // IoT Hub speaks nothing else
	return t
}
