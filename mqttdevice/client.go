// Package mqttdevice is the device side of IoT Hub over MQTT: a device or a module connects, answers
// direct methods, reads its twin, reports properties, hears of desired ones, sends telemetry and takes
// cloud-to-device messages. It speaks to Azure IoT Hub, or to any hub with the same protocol, as the
// article "Communicate with your IoT hub using the MQTT protocol" describes it: over TLS, or over
// WebSocket where only port 443 is open, and through the proxy that the environment names.
//
// A program makes one [Client] per device, says what it handles, and connects:
//
//	conn, err := sas.ParseConnectionString(os.Getenv("IOTHUB_DEVICE_CONNECTION_STRING"))
//	...
//	c, err := mqttdevice.New(mqttdevice.Options{ConnectionString: conn})
//	...
//	c.HandleMethod("reboot", func(ctx context.Context, m mqttdevice.Method) mqttdevice.Response {
//		return mqttdevice.Response{Status: 200, Payload: map[string]bool{"ok": true}}
//	})
//	err = c.Connect(ctx)
//	...
//	defer c.Close()
//	version, err := c.PatchReported(ctx, map[string]any{"firmware": "1.2"})
//
// From then on the client keeps the connection by itself, for ever. A call made while there is no
// connection waits for the next one until its context ends; a call that was under way when the
// connection broke fails with [ErrConnectionLost].
//
// # Connection
//
// After a loss the client connects again, after a random delay of up to 1 s at first and up to 20 s
// in the end, and subscribes again. A device that the hub refuses tries again too, after up to five
// minutes. [Options.OnState] hears of each change, with the reason, the number of attempts, and how
// long the device was away; what MQTT does not tell, as that another program has taken the connection
// over, is inferred where that is possible.
//
// The client makes shared access signature tokens and replaces them before they end. That takes
// another connection, which is made while the first is in use, and the hub hears first that it shall
// send no more direct methods on that. So a service whose call has a connect timeout notices nothing;
// one that calls without is told, for as long as three round trips take, that the device is not online.
//
// [Auto] finds out whether port 8883 is open, or only WebSocket on port 443 gets through.
//
// # Provisioning
//
// A device that has no connection string registers with a Device Provisioning Service: [Register] asks
// one once; with [Options.Provision] a client asks by itself, and again when its hub takes it no more.
//
// # Concurrency
//
// Every method of a Client may be called from any goroutine, and from handlers, but Close only from
// outside of them. Handlers run on goroutines of the client: those of direct methods each on its own
// and as many at a time as there are calls, 64 at most; those of desired properties and of messages
// one call after the other. A handler that panics is logged, and answered for.
package mqttdevice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/iotdm/iotdm/sas"
)

// DefaultTokenLife is what zero means as [Options.TokenLife].
const DefaultTokenLife = time.Hour

const (
	defaultKeepAlive = time.Minute
	// The hub gives up after 1.5 times the keep-alive, and after 1767 s at the latest.
	maxKeepAlive = 1177 * time.Second
	// closeGrace is how long Close lets handlers and calls finish before it cancels them.
	closeGrace = 5 * time.Second
)

// Options say which device a client is and how it reaches its hub. Only ConnectionString is needed.
type Options struct {
	// ConnectionString is that of a device or a module, with a key, a ready-made token or x509=true.
	// HostName may carry a port. With Provision it may have a DeviceID at most, which then is a name for
	// the log, until the device is assigned to a hub.
	ConnectionString sas.ConnectionString

	// Provision, if set, finds out where the device belongs, perhaps by [Register]. It is asked when there
	// is no HostName; when the hub refuses the device, after the delay that follows a refusal; and when
	// ten attempts in a row have failed. The reason is that of the last attempt, nil for the first. From
	// then on what it returns is in the place of ConnectionString, Addr and WebSocketAddr. Its context ends
	// after two minutes; an error is tried again as a refusal by the hub is, but for one of [Register] that
	// is final, which Connect fails with.
	Provision func(ctx context.Context, reason error) (Endpoint, error)

	// Transport is TCP unless it is set. A port in HostName is that of the transport, with Auto that of
	// TCP; if it is 443, Auto is WebSocket.
	Transport Transport

	// Addr is the host:port to dial, without a proxy. Empty means GatewayHostName or HostName, at port
	// 8883, or 443 for WebSocket, unless the name carries another; and through a proxy if HTTPS_PROXY
	// or else ALL_PROXY names one (http, https or socks5) and NO_PROXY doesn't name the host.
	Addr string

	// WebSocketAddr is what Addr is, for the second transport of Auto. Nothing else uses it.
	WebSocketAddr string

	// ModelID is the Plug and Play model that the device follows, such as
	// dtmi:com:example:Thermostat;1. The twin shows it as modelId.
	ModelID string

	// TLS is the configuration to connect with: RootCAs for a hub with a private CA, Certificates for
	// a device with x509=true. Nil means the system's roots. An empty ServerName means
	// GatewayHostName or HostName, without a port. TLS 1.2 is the least. Many clients may share one,
	// and with a ClientSessionCache resume each other's sessions; those with certificates must not.
	TLS *tls.Config

	// TokenLife is how long a shared access signature is valid, at least one second; zero means
	// [DefaultTokenLife]. The client replaces it before it ends (see [sas.RenewAt]) by connecting
	// again: MQTT has no other way.
	TokenLife time.Duration

	// KeepAlive is the silence after which the client pings the hub, in whole seconds, 1177 at most;
	// zero means one minute.
	KeepAlive time.Duration

	// Logger gets what the client does on its own. Nil means no log.
	Logger *slog.Logger

	// Now is the clock that tokens are dated with. Nil means time.Now.
	Now func() time.Time

	// OnState, if set, is called at each change of the connection, in order and never twice at once.
	// The client waits for it, so it must not block, and must not call Connect or Close.
	OnState func(State)
}

// A Client is one device or module. Its methods may be called from any goroutine. It has about ten
// goroutines and takes about 50 KiB while it is connected and idle.
type Client struct {
	log *slog.Logger

	// Where it connects, and as whom. These belong to the goroutine that connects, and change with
	// Provision; until then there are no user and dialer.
	opt    Options
	user   string
	dialer *dialer
	dial   func(context.Context) (net.Conn, error) // opens the byte stream under MQTT; dialer.Dial but for tests

	certificateEnd time.Time // of the device; zero without one

	closing context.Context // ends when Close begins
	close   context.CancelFunc
	work    context.Context // what handlers get; ends when Close has been patient enough
	cancel  context.CancelFunc
	wg      sync.WaitGroup // every goroutine of the client, and Connect

	link link // belongs to the goroutine that connects

	mu       sync.Mutex // guards what follows; never held over network I/O
	id       string     // client id: DeviceID, or DeviceID/ModuleID; changes as opt does
	started  bool       // Connect is under way or has succeeded
	closed   bool       // no new methods and calls
	stopped  bool       // no new goroutines
	session  *session   // nil while not connected
	changed  chan struct{}
	calls    int    // of Twin, PatchReported and Send under way
	handlers int    // under way
	released func() // called, with mu held, when one of these ends; nil when nobody waits
	methods  map[string]MethodHandler
	running  int    // handlers of methods under way
	lastRID  uint64 // of twin requests
	desired  desiredQueue
	messages messageQueue
	observed observed // belongs to the goroutine that delivers desired properties
}

// New returns a client that is not connected yet. It fails on options that cannot work.
func New(opt Options) (*Client, error) {
	cs := opt.ConnectionString
	if opt.Provision == nil || cs.HostName != "" {
		if err := checkConnectionString(cs); err != nil {
			return nil, err
		}
	}
	if opt.TokenLife == 0 {
		opt.TokenLife = DefaultTokenLife
	}
	if opt.TokenLife < time.Second {
		return nil, fmt.Errorf("token life %v is less than a second", opt.TokenLife)
	}
	if opt.KeepAlive == 0 {
		opt.KeepAlive = defaultKeepAlive
	}
	if opt.KeepAlive < time.Second || opt.KeepAlive > maxKeepAlive {
		return nil, fmt.Errorf("keep-alive %v is not between 1s and %v", opt.KeepAlive, maxKeepAlive)
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Transport < TCP || opt.Transport > Auto {
		return nil, fmt.Errorf("transport %d is neither TCP, WebSocket nor Auto", opt.Transport)
	}
	c := &Client{opt: opt, log: opt.Logger.With(logDevice, cs.DeviceID)}
	if cs.ModuleID != "" {
		c.log = c.log.With(logModule, cs.ModuleID)
	}
	c.dial = func(ctx context.Context) (net.Conn, error) { return c.dialer.Dial(ctx) }
	if cs.HostName != "" {
		c.adopt(Endpoint{cs, opt.Addr, opt.WebSocketAddr})
	}
	c.closing, c.close = context.WithCancel(context.Background())
	c.work, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Connect connects and subscribes, and then leaves a goroutine behind that keeps the connection until
// Close. Set the handlers first: the hub may send as soon as it has accepted the device.
//
// A refused credential is an error that wraps [ErrUnauthorized], and [ErrTokenExpired] or
// [ErrCertificateExpired] where that is why; a hub whose certificate does not verify is one that wraps
// [*tls.CertificateVerificationError]. Everything else, such as a hub that is
// unreachable or busy, is tried again until ctx ends; [Options.OnState] hears why. The error then
// wraps that of ctx and names the last cause. After an error, Connect may be called again.
func (c *Client) Connect(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	if c.started {
		c.mu.Unlock()
		return errors.New("the client is connected already")
	}
	c.started = true
	c.wg.Add(1)
	c.mu.Unlock()
	defer c.wg.Done()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.closing, cancel)()
	c.link = link{since: time.Now(), astray: c.opt.ConnectionString.HostName == ""}
	s, err := c.open(ctx, nil, 0, c.fatal)
	if err != nil {
		c.mu.Lock()
		c.started = false
		c.announce()
		c.mu.Unlock()
		if c.closing.Err() != nil {
			err = ErrClosed
		}
		c.notify(State{Status: Disconnected, Reason: err})
		return err
	}
	c.wg.Go(func() { c.run(s) })
	return nil
}

// Close sends the answers of methods that are still running, disconnects, and returns when every
// goroutine of the client has ended. New methods are not accepted any more. Handlers and calls have
// five seconds to finish; then the context of the handlers is cancelled, and Close waits for them to
// return. So a handler must not call it. Close may be called more than once, and never fails.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.announce()
	c.mu.Unlock()
	c.close()
	c.wg.Wait()
	c.cancel()
	return nil
}

// start runs fn on a goroutine that Close waits for. It reports false, and does nothing, when the
// client has shut down. c.mu is held.
func (c *Client) start(fn func()) bool {
	if !c.stopped {
		c.wg.Go(fn)
	}
	return !c.stopped
}

// announce wakes every call that waits for a connection. c.mu is held.
func (c *Client) announce() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// acquire waits for a connection and counts the call until it calls release.
func (c *Client) acquire(ctx context.Context) (*session, error) {
	for {
		c.mu.Lock()
		// The session comes first: during Close the handlers that still run may use it.
		if s := c.session; s != nil && !s.isLost() {
			c.calls++
			c.mu.Unlock()
			return s, nil
		}
		if c.closed || !c.started {
			defer c.mu.Unlock()
			if c.closed {
				return nil, ErrClosed
			}
			return nil, ErrNotConnected
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a connection: %w", context.Cause(ctx))
		}
	}
}

// acquireSame is acquire that neither waits nor takes another connection than s, nor one that is about
// to be replaced.
func (c *Client) acquireSame(s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ok := c.session == s && !s.isLost() && c.released == nil
	if ok {
		c.calls++
	}
	return ok
}

// release ends what acquire began.
func (c *Client) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls--
	c.announceRelease()
}

// returned counts a handler out.
func (c *Client) returned() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handlers--
	c.announceRelease()
}

func (c *Client) announceRelease() {
	if c.released != nil {
		c.released()
	}
}
