package hubamqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/iotdm/iotdm/internal/bearer"
	"github.com/iotdm/iotdm/internal/dial"
	"github.com/iotdm/iotdm/sas"
)

// Options say which hub a client speaks to, and as whom. ConnectionString is all that most programs set.
type Options struct {
	// ConnectionString names the hub and a shared access policy of it, as the portal and "iotdm hub
	// connection-string" print it. A port in HostName is that of HTTPS, and so of WebSocket.
	ConnectionString sas.ConnectionString
	// EventHub is where events are read, in place of where the hub would redirect to. With it ConnectionString may
	// be empty; then events are all there is.
	EventHub sas.EventHubConnectionString
	// Credential authorizes the client when it isn't nil: Microsoft Entra ID in place of a policy. Only HostName of
	// ConnectionString is used then. Those of azidentity will do; the client keeps a token until it is time to renew it.
	// Azure's endpoint for events takes no such token.
	Credential azcore.TokenCredential

	// Transport is what AMQP runs on.
	Transport Transport
	// Addr and WebSocketAddr are the host:port that are dialled in place of the hub's name at ports 5671 and 443.
	// The name that the certificate must bear stays the hub's. No proxy is used for them.
	Addr, WebSocketAddr string
	// TLS holds the roots to trust and what else TLS needs. Nil: the system's roots, TLS 1.2 or later.
	TLS *tls.Config

	// TokenLife is how long a token signed with the policy's key is valid; it is renewed before that. 0: one hour.
	TokenLife time.Duration
	// Logger gets a line per connection and per call at level debug, without keys and tokens, and what went wrong
	// on the way at level warn. Nil: none.
	Logger *slog.Logger
	// Now is the clock that tokens are made with. Nil: time.Now.
	Now func() time.Time
}

// A Client talks to one hub. It connects when it is first used, and is safe for concurrent use.
type Client struct {
	opt  Options
	host string // the hub's name, without a port; empty if there are only events
	log  *slog.Logger
	// bearer gives out the tokens of Credential; nil: without one.
	bearer *bearer.Source

	closing context.Context // ends with Close
	close   context.CancelFunc

	opening chan struct{} // holds one element while somebody connects
	ways    *dial.Dialer  // to the hub; for whoever connects

	mu     sync.Mutex  // guards what follows
	hub    *connection // nil: none yet
	sender *sender     // of hub; nil: none yet
}

// New returns a client. It makes no connection: a wrong host name or key shows with the first call.
func New(o Options) (*Client, error) {
	cs := o.ConnectionString
	switch {
	case o.Transport < Auto || o.Transport > WebSocket:
		return nil, fmt.Errorf("there is no transport %d", o.Transport)
	case cs.HostName == "" && o.EventHub.Host == "":
		return nil, errors.New("connection string: HostName is missing")
	case cs.HostName == "" || o.Credential != nil:
	case cs.DeviceID != "":
		return nil, fmt.Errorf("connection string: it is that of device %q; a service needs one with SharedAccessKeyName", cs.DeviceID)
	case cs.SharedAccessSignature != "":
	case cs.SharedAccessKeyName == "":
		return nil, errors.New("connection string: SharedAccessKeyName is missing")
	default:
		if err := cs.SharedAccessKey.Validate(); err != nil {
			return nil, fmt.Errorf("connection string: SharedAccessKey: %w", err)
		}
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
	c := &Client{opt: o, log: o.Logger, opening: make(chan struct{}, 1)}
	if o.Credential != nil {
		c.bearer = bearer.New(o.Credential, bearer.IoTHub, o.Now)
	}
	host, _ := splitPort(cs.HostName)
	c.host = strings.ToLower(host)
	c.ways = c.dialer(hubPath)
	c.closing, c.close = context.WithCancel(context.Background())
	return c, nil
}

// Close ends the connection to the hub. Calls that are under way return ErrClosed. It may be called twice.
func (c *Client) Close() {
	c.close()
	c.mu.Lock()
	hub := c.hub
	c.hub, c.sender = nil, nil
	c.mu.Unlock()
	if hub != nil {
		hub.close()
	}
}

// while returns a context that ends with ctx, or when the client is closed.
func (c *Client) while(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.closing, func() { cancel(ErrClosed) })
	return ctx, func() { stop(); cancel(nil) }
}

// A Connection is how a client reaches its hub.
type Connection struct {
	Transport Transport // TCP or WebSocket
	Addr      string    // what was dialled
	Instead   error     // why Auto took WebSocket; nil if it didn't
}

// Check connects to the hub, unless the client is connected, and has it accept the credential. It needs no right.
func (c *Client) Check(ctx context.Context) (Connection, error) {
	ctx, cancel := c.while(ctx)
	defer cancel()
	conn, err := c.connect(ctx)
	if err != nil {
		return Connection{}, err
	}
	return conn.how, nil
}

// connect returns the connection to the hub, a new one if none lives.
func (c *Client) connect(ctx context.Context) (*connection, error) {
	if c.host == "" {
		return nil, errors.New("the connection string of an event hub is for reading events only; give that of the IoT hub")
	}
	select {
	case c.opening <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-c.opening }()
	c.mu.Lock()
	hub := c.hub
	c.mu.Unlock()
	if hub != nil && hub.alive() {
		return hub, nil
	}
	if hub != nil {
		hub.close()
	}
	hub, err := c.open(ctx, c.hubEnd(c.ways))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hub, c.sender = hub, nil
	if err == nil && c.closing.Err() != nil { // and Close did not see it
		go hub.close()
		return nil, ErrClosed
	}
	return hub, err
}

// hubEnd is the hub as an end of connections.
func (c *Client) hubEnd(ways *dial.Dialer) end {
	return end{host: c.host, ways: ways, audience: c.host, token: c.hubToken}
}

// Target names a device, or a module of a device when ModuleID is set.
type Target struct {
	DeviceID string
	ModuleID string
}

// String returns the device id, followed by a slash and the module id if there is one.
func (t Target) String() string {
	if t.ModuleID == "" {
		return t.DeviceID
	}
	return t.DeviceID + "/" + t.ModuleID
}

// address is where messages for t go.
func (t Target) address() string {
	a := "/devices/" + escape(t.DeviceID)
	if t.ModuleID != "" {
		a += "/modules/" + escape(t.ModuleID)
	}
	return a + "/messages/devicebound"
}

// noun is t as errors name it.
func (t Target) noun() string {
	if t.ModuleID == "" {
		return fmt.Sprintf("device %q", t.DeviceID)
	}
	return fmt.Sprintf("module %q of device %q", t.ModuleID, t.DeviceID)
}
