// Package console is a web console for an IoT hub: pages for people who operate devices. It is a client of the hub as
// any other service, over hubrest and hubamqp, so that the same pages are good for Azure IoT Hub and for the hub of iotdm.
//
//	c, err := console.New(console.Options{Client: client, Events: events, HubName: "my-hub.azure-devices.net"})
//	...
//	defer c.Close()
//	fmt.Println("http://127.0.0.1:8089/?t=" + c.NewToken())
//	err = http.ListenAndServe("127.0.0.1:8089", c)
//
// The pages are templates and work without script. Script adds what comes live, and keys. Nothing is fetched from
// elsewhere: templates, stylesheet and script are in the program.
//
// # Who may come
//
// A browser shows a token, which is good once, or a password, and gets a cookie for it; or a proxy in front says who it
// is. Requests for a host that isn't ours, and changes that another site's page has asked for, are refused. The hub's
// credential stays in the process: no page, cookie or log line has it.
package console

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/hubrest"
)

// Options say which hub a console is for, and whom it lets in. Client is all that has to be set.
type Options struct {
	// Client speaks to the hub. It stays the caller's to close.
	Client *hubrest.Client
	// Events reads what devices send. Nil: the pages show no events, and say so.
	Events *hubamqp.Client
	// Provisioning speaks to the provisioning service. Nil: the console has no enrollments.
	Provisioning *hubrest.ProvisioningClient
	// HubName is what the pages call the hub.
	HubName string
	// HostName is the host of the hub in connection strings of devices, with its port if it has one of its own. Empty:
	// HubName.
	HostName string
	// MQTTSAddr and HTTPSAddr are where the hub listens for devices, as far as that is known: their ports count. Empty:
	// the ports that every hub has.
	MQTTSAddr, HTTPSAddr string
	// Policy names the credential in words, such as "policy iothubowner". It holds no secret.
	Policy string
	// Explain words an error of a call about an identity, the zero Target if there is none, so that people know what to do.
	// Nil: the error's own words.
	Explain func(ctx context.Context, err error, on hubrest.Target) error

	// ReadOnly refuses everything that changes something.
	ReadOnly bool
	// Hosts are the host names, without port, by which browsers may call the console, besides those of the loopback
	// interface.
	Hosts []string
	// Password lets in who knows it, besides tokens. Empty: tokens only.
	Password string
	// TrustedHeader is a header in which a proxy says who the user is, and TrustedProxies are the addresses that such a
	// proxy has; from others the header counts for nothing. Empty: none.
	TrustedHeader  string
	TrustedProxies []netip.Prefix

	// Logger gets a line per change that was asked for, without what it holds. Nil: none.
	Logger *slog.Logger
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// A Console serves the pages. It is safe for concurrent use.
type Console struct {
	opt        Options
	log        *slog.Logger
	now        func() time.Time
	pages      pages
	assets     assets
	doors      doorkeeper
	known      knownRights
	live       *live
	runs       runs
	configured configurationList
	calls      callLog
	rebooting  rebootLog
	polls      atomic.Int32 // pages for which a twin is read again and again
	sampler    *sampler
	handler    http.Handler

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // goroutines of the console
}

// New returns a console. It calls nobody before the first page.
func New(o Options) (*Console, error) {
	if o.Client == nil {
		return nil, errors.New("console: Options.Client is missing")
	}
	if o.TrustedHeader != "" && len(o.TrustedProxies) == 0 {
		return nil, errors.New("console: a trusted header needs the addresses of the proxies that send it")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Explain == nil {
		o.Explain = func(_ context.Context, err error, _ hubrest.Target) error { return err }
	}
	static, err := fs.Sub(files, "static")
	if err != nil {
		return nil, err
	}
	c := &Console{opt: o, log: o.Logger, now: o.Now}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if c.assets, err = newAssets(static); err != nil {
		return nil, err
	}
	if c.pages, err = c.parsePages(); err != nil {
		return nil, err
	}
	c.doors = newDoorkeeper(o)
	c.live = c.newLive()
	c.sampler = &sampler{client: o.Client, live: c.live, now: o.Now}
	c.handler = c.newHandler()
	return c, nil
}

// Close ends what pages follow live and waits for it. It may be called twice.
func (c *Console) Close() {
	c.cancel()
	c.live.close()
	c.wg.Wait()
	c.runs.close()
}

// ServeHTTP answers a browser.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.handler.ServeHTTP(w, r) }

// A handler answers a request, or returns why it cannot, which the user sees as a page.
type handler func(w http.ResponseWriter, r *http.Request) error

// A route is a page or an action.
type route struct {
	pattern string // as http.ServeMux has it
	need    need   // what an action needs
	handle  handler
	limit   int64 // of the body, in bytes; 0: maxForm
}

// get is the route of a page.
func get(path string, h handler) route { return route{pattern: "GET " + path, handle: h} }

// post is the route of an action, which changes something and needs a right.
func post(path string, n need, h handler) route {
	return route{pattern: "POST " + path, need: n, handle: h}
}

// routes are all pages and actions, apart from those before the login. What has a name in its path is in the singular
// ("/device/{id}"), so that no name collides with a word of ours ("/devices/import").
func (c *Console) routes() []route {
	return slices.Concat(c.frameRoutes(), c.fleetRoutes(), c.deviceRoutes())
}

func (c *Console) frameRoutes() []route {
	return []route{
		get("/{$}", c.overview),
		get("/settings", c.settings),
		post("/settings/theme", nothing, c.setTheme),
		post("/settings/link", nothing, c.makeLink),
		post("/logout", nothing, c.logout),
	}
}

// maxForm is the most of a form, which may hold a twin or a message, in bytes.
const maxForm = 1 << 20

func (c *Console) newHandler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range c.routes() {
		mux.Handle(r.pattern, c.serve(r))
	}
	mux.Handle("/", c.serve(route{handle: func(http.ResponseWriter, *http.Request) error { return errNoPage }}))
	outer := http.NewServeMux()
	outer.Handle("GET /static/{file}", c.assets)
	outer.HandleFunc("GET /login", c.showLogin)
	outer.HandleFunc("POST /login", c.login)
	outer.Handle("/", c.authenticated(mux))
	crossOrigin := http.NewCrossOriginProtection()
	crossOrigin.SetDenyHandler(http.HandlerFunc(c.refuseOrigin))
	return c.guarded(crossOrigin.Handler(outer))
}

// serve makes a handler of a route.
func (c *Console) serve(route route) http.Handler {
	limit := route.limit
	if limit == 0 {
		limit = maxForm
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, limit)
			err := c.refusal(r.Context(), route.need)
			if err == nil {
				err = route.handle(w, r)
			}
			c.log.Info("console action", "path", r.URL.EscapedPath(), "by", userOf(r), "ok", err == nil)
			if err != nil {
				c.fail(w, r, err)
			}
			return
		}
		if err := route.handle(w, r); err != nil {
			c.fail(w, r, err)
		}
	})
}
