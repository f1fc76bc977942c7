package hubrest

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/iotdm/iotdm/sas"
)

// Options say which hub a client speaks to, and as whom. ConnectionString is all that most programs set.
type Options struct {
	// ConnectionString names the hub and a shared access policy of it, as the portal and "iotdm hub connection-string"
	// print it. HostName may carry a port; without one it is 443.
	ConnectionString sas.ConnectionString
	// Credential authorizes the requests when it isn't nil: Microsoft Entra ID in place of a policy. Only HostName of
	// ConnectionString is used then. Those of azidentity will do. The client keeps a token until it is time to renew it;
	// where there is none, errors.As finds the credential's error.
	Credential azcore.TokenCredential
	// Addr is the host:port that is dialled instead of HostName. The name that the certificate must bear stays that of
	// HostName, unless TLS says otherwise. Proxies from the environment are not used then.
	Addr string
	// TLS holds the roots to trust and what else TLS needs. Nil: the system's roots, TLS 1.2 or later.
	TLS *tls.Config
	// TokenLife is how long a token signed with the policy's key is valid; it is renewed before that. 0: one hour.
	TokenLife time.Duration
	// Logger gets a line per request and a line per answer at level debug, with bodies but without keys and tokens, and
	// one per repeated request at level warn. Nil: none.
	Logger *slog.Logger
	// Now is the clock that tokens are made with. Nil: time.Now.
	Now func() time.Time
}

// A Client makes requests to one hub. It is safe for concurrent use.
type Client struct{ requester }

// New returns a client. It makes no connection: a wrong host name or key shows with the first request.
func New(o Options) (*Client, error) {
	r, err := newRequester(o, hubPeer)
	if err != nil {
		return nil, err
	}
	return &Client{r}, nil
}

// Close closes the connections that are idle. Requests under way go on.
func (c *Client) Close() { c.close() }

// Target names a device, or a module of a device when ModuleID is set.
type Target struct {
	DeviceID string `json:"deviceId"`
	ModuleID string `json:"moduleId,omitempty"`
}

// String returns the device id, followed by a slash and the module id if there is one.
func (t Target) String() string {
	if t.ModuleID == "" {
		return t.DeviceID
	}
	return t.DeviceID + "/" + t.ModuleID
}

// path is the path of t below collection, "devices" or "twins".
func (t Target) path(collection string) []string {
	if t.ModuleID == "" {
		return []string{collection, t.DeviceID}
	}
	return []string{collection, t.DeviceID, "modules", t.ModuleID}
}

// noun is t as errors name it.
func (t Target) noun() string {
	if t.ModuleID == "" {
		return fmt.Sprintf("device %q", t.DeviceID)
	}
	return fmt.Sprintf("module %q of device %q", t.ModuleID, t.DeviceID)
}
