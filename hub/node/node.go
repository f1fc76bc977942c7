// Package node is one running hub: the rules of package hub on a data folder,
// with the doors in front of them over which the official SDKs of Azure IoT Hub
// use it unmodified.
//
//	n, err := node.New(node.Options{Storage: node.Folder(dir)})
//	...
//	failed := n.Serve(node.Listeners{MQTTS: mqtts, HTTPS: https})
//	...
//	err = n.Shutdown(ctx)
//
// Tests use package hubtest, which starts one on free ports.
package node

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/controls"
	"github.com/iotdm/iotdm/hub/entra"
	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/internal/amqp"
	"github.com/iotdm/iotdm/hub/internal/dps"
	"github.com/iotdm/iotdm/hub/internal/mqtt"
	"github.com/iotdm/iotdm/hub/internal/rest"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/sas"
)

// Options configure New. The zero value is a hub that keeps nothing on disk.
type Options struct {
	// Storage is where the hub keeps its state, keys and certificates. The zero
	// Storage is memory.
	Storage Storage

	// HostNames are names and addresses of the hub besides localhost,
	// *.localhost, 127.0.0.1 and ::1. The certificate names them all, and
	// connection strings may use any of them.
	HostNames []string

	// Policies replace the keys and rights of the shared access policies of
	// the same name, or add to them. They are stored with the hub.
	Policies []hub.Policy

	// Entra lets service clients authenticate with Microsoft Entra ID, besides
	// shared access signatures. Nil refuses their tokens.
	Entra *entra.Options

	// Seed is what the hub is to have when it begins to serve. What it has
	// already stays as it is.
	Seed Seed

	// EventAge is how long events are kept, unless EventBytes, their size, is
	// reached before. 0 is one day, as on IoT Hub, and 1 GiB (64 MiB in memory).
	EventAge   time.Duration
	EventBytes int64

	// EventPartitions is the number of partitions of the event log, when that is
	// made; see eventlog.Options. 0 is 4, as on IoT Hub.
	EventPartitions int

	// EventSources are the sources of the events that are kept; see
	// hub.Options.
	EventSources []hub.EventSource

	// ConsumerGroups are those of the built-in endpoint that is compatible with
	// Event Hubs, besides $Default and those of Seed.
	ConsumerGroups []string

	// EventHubSources are the sources of the events that readers of the built-in
	// endpoint get, of those that are kept. None is telemetry alone, as on IoT
	// Hub without routes.
	EventHubSources []hub.EventSource

	// MaxJobs is how many scheduled jobs run at a time. 0 is 10.
	MaxJobs int

	// Logger receives what an operator wants to know at level Info, and every
	// packet and request at level Debug. Nil discards.
	Logger *slog.Logger

	// IDScope is what devices name the hub's provisioning service by. Empty is one
	// that comes of the hub's CA, and stays as long as that does.
	IDScope string

	// Assigning is how long the registration of a device takes, by the hub's clock, so
	// that clients have to ask again. 0 answers them at once.
	Assigning time.Duration

	// LinkedHubs are hubs besides this one that devices may be assigned to, each by the
	// connection string of a policy with RegistryRead, RegistryWrite and
	// ServiceConnect.
	LinkedHubs []sas.ConnectionString

	// WebhookHosts are the hosts, besides those of this machine, that enrollments may
	// have asked for a custom allocation.
	WebhookHosts []string

	// Clock is the hub's time. Nil is the machine's.
	Clock *clock.Clock

	// TestControls lets callers with all rights do to the hub what only a test
	// wants; see package controls. Its clock can be moved then.
	TestControls bool

	// Cluster is what this node shares with others, in place of a store and an event
	// log of its own. Nil is a hub of one node. With one there are no TestControls,
	// and EventAge, EventBytes and EventPartitions are those of the shared log.
	Cluster *Cluster

	// Health is where the hub answers GET /health, /ready, /metrics and /ca.pem
	// to whoever reaches it, over plain HTTP and without a credential, from the
	// beginning of New to the end of Close. The node owns it, also if New fails.
	// Nil is nowhere. A node of several may have Cluster.Health in its place.
	Health net.Listener
}

// EventHubName is the name of the built-in endpoint that is compatible with Event
// Hubs: the EntityPath of its connection strings.
const EventHubName = amqp.EventHubName

// memoryEvents bounds the event log of a hub that keeps nothing on disk.
const memoryEvents = 64 << 20

// A Node is a running hub. Its methods, and those of its parts, may be called
// concurrently.
type Node struct {
	*hub.Server
	Jobs           *jobs.Scheduler
	Configurations *configurations.Engine
	Provisioning   *provisioning.Service
	Controls       *controls.Controls // nil without Options.TestControls

	folder  *folder
	gate    *serve.Gate // in front of the doors
	mqtt    *mqtt.Door
	amqp    *amqp.Door
	rest    *rest.Door
	dps     *dps.Door // on the listener of rest
	health  *Health   // nil: none
	metrics http.Handler
	ctx     context.Context // ends when the node closes

	consumerGroups []string

	publishing sync.Mutex // guards what follows
	published  Info

	once     sync.Once
	closing  []func() error // what Close does, the last first
	closeErr error
}

// ErrDamaged means that the store of a data folder cannot be read. [Check] says
// what can.
var ErrDamaged = store.ErrDamaged

// ErrClosed is returned by the Serve methods after Close or Shutdown.
var ErrClosed = hub.ErrClosed

// New opens the hub's state, making the data folder, a private CA and the
// shared access policies on the first run. It does not listen.
func New(opt Options) (*Node, error) {
	opt.Logger = cmp.Or(opt.Logger, slog.New(slog.DiscardHandler))
	if opt.TestControls && opt.Cluster != nil {
		return nil, errors.New("a hub of several nodes has no test controls: use one of a single node")
	}
	if opt.TestControls && opt.Clock == nil {
		opt.Clock = clock.New()
	}
	n := new(Node)
	if err := n.open(opt); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// open makes the parts, each with what ends it: what was opened last is closed
// first.
func (n *Node) open(opt Options) (err error) {
	var cancel context.CancelFunc
	n.ctx, cancel = context.WithCancel(context.Background())
	n.atEnd(cancel)
	n.gate = serve.NewGate()
	switch {
	case opt.Cluster != nil && opt.Cluster.Health != nil:
		n.health = opt.Cluster.Health
	case opt.Health != nil:
		n.health = serveHealth(opt.Health, n.gate, opt.Logger)
		n.atEnd(n.health.Close)
	}
	var bearer func(context.Context, string) (hub.Caller, error)
	if opt.Entra != nil {
		v, err := entra.New(*opt.Entra, opt.Clock.Now)
		if err != nil {
			return err
		}
		bearer = v.Authenticate
	}
	// Clients judge the hub's certificate by their own clocks, which nobody moves.
	n.folder, err = openFolder(folderOptions{
		storage: opt.Storage, names: opt.HostNames, policies: slices.Concat(opt.Policies, opt.Seed.policies()), now: opt.Clock.Unmoved, shared: opt.Cluster,
	})
	if err != nil {
		return err
	}
	n.closing = append(n.closing, n.folder.close)
	n.health.change(func() { n.health.ca = n.folder.caPEM() })
	for _, warning := range n.folder.warnings {
		opt.Logger.Warn(warning)
	}
	db, events, peers, disk, err := n.openState(opt)
	if err != nil {
		return err
	}
	n.consumerGroups = slices.Concat(opt.ConsumerGroups, opt.Seed.consumerGroups())
	var faults *fault.Faults
	var taken *journal.Journal
	if opt.TestControls {
		faults, taken = fault.New(opt.Clock.Now), journal.New(opt.Clock.Now)
	}
	n.Server, err = hub.New(hub.Options{
		Store: db, Events: events, Peers: peers, HostNames: opt.HostNames, Policies: n.Policies(), Bearer: bearer,
		EventSources: opt.EventSources, ConsumerGroups: n.consumerGroups,
		Logger: opt.Logger, Clock: opt.Clock, Faults: faults, Journal: taken, Replaceable: opt.TestControls,
	})
	if err != nil {
		return err
	}
	n.atEnd(n.Server.Close)
	if opt.Cluster != nil {
		if err := errors.Join(n.followPolicies(opt.Logger), n.shareTickets(db, opt.Clock.Unmoved, opt.Logger)); err != nil {
			return err
		}
	}
	if n.Provisioning, err = n.openProvisioning(opt, db); err != nil {
		return err
	}
	n.mqtt = mqtt.New(n.Server, mqtt.Options{Provisioning: n.Provisioning, Logger: opt.Logger})
	n.atEnd(n.mqtt.Close)
	// What services ask over AMQP does not come of the connection of a device, and
	// so this door may close behind Stop too, as its devices want.
	n.amqp = amqp.New(n.Server, amqp.Options{Provisioning: n.Provisioning, EventSources: opt.EventHubSources, Logger: opt.Logger})
	n.atEnd(n.amqp.Close)
	// Connections end behind what follows: what came of a job, or a request,
	// because the hub closes must not count.
	n.atEnd(n.Server.Stop)
	if n.Configurations, err = configurations.New(n.Server, db, configurations.Options{Logger: opt.Logger}); err != nil {
		return err
	}
	n.atEnd(n.Configurations.Close)
	if n.Jobs, err = jobs.New(n.Server, db, jobs.Options{Limit: opt.MaxJobs, Logger: opt.Logger}); err != nil {
		return err
	}
	n.atEnd(n.Jobs.Close)
	if opt.TestControls {
		n.Controls = controls.New(controls.Options{
			Hub: n.Server, Jobs: n.Jobs, Configurations: n.Configurations, Provisioning: n.Provisioning, Store: db,
			Seed:      func() error { return opt.Seed.apply(n) },
			ParseSeed: n.parseSeed,
			Snapshots: n.folder.snapshotDir(opt.Storage), Write: func(file string, data []byte) error { return writeFile(file, data, secretMode) },
			Clock: opt.Clock, Moved: n.publishClock,
		})
		n.atEnd(n.Controls.Close)
	}
	n.dps = dps.New(n.Server, n.Provisioning, dps.Options{Conn: rest.Conn, Logger: opt.Logger})
	n.rest = rest.New(n.Server, n.Jobs, n.Configurations, rest.Options{Controls: n.Controls, Aside: n.serveAside, Logger: opt.Logger})
	n.atEnd(n.rest.Close)
	metrics := newMetrics(
		n.Server.Metrics(), n.Configurations.Metrics(), n.Jobs.Metrics(), n.Provisioning.Metrics(), n.mqtt.Metrics(), n.amqp.Metrics(), n.dps.Metrics(), n.rest.Metrics(), n.gate.Metrics(), disk)
	n.metrics = serveMetrics(metrics)
	if err := opt.Seed.apply(n); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	n.health.change(func() {
		n.health.metrics, n.health.store, n.health.away = metrics, db, ""
		if opt.Cluster != nil {
			n.health.cluster = opt.Cluster.behind
		}
	})
	return nil
}

// parseSeed returns what gives the running hub what a seed has.
func (n *Node) parseSeed(text []byte) (func() error, error) {
	seed, err := ParseSeed(text)
	if err != nil {
		return nil, err
	}
	return func() error { return seed.apply(n) }, seed.settled(n.Policies(), n.consumerGroups)
}

func (n *Node) atEnd(end func()) {
	n.closing = append(n.closing, func() error { end(); return nil })
}

// openState opens the store and the event log, unless other nodes have them too.
func (n *Node) openState(opt Options) (db *store.DB, events hub.EventLog, peers hub.Peers, metrics []prometheus.Collector, err error) {
	if c := opt.Cluster; c != nil {
		return c.Store, c.Events, c.Peers, c.Metrics, nil
	}
	if db, err = n.openStore(opt); err != nil {
		return nil, nil, nil, nil, err
	}
	n.closing = append(n.closing, db.Close)
	log, err := n.openEvents(opt)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	n.closing = append(n.closing, log.Close)
	return db, log, nil, diskMetrics(db, log), nil // before anything is appended
}

func (n *Node) openStore(opt Options) (*store.DB, error) {
	if !opt.Storage.state() {
		return store.OpenMemory(opt.Logger)
	}
	return store.Open(n.folder.storeDir(), opt.Logger)
}

func (n *Node) openEvents(opt Options) (*eventlog.Log, error) {
	o := eventlog.Options{Partitions: opt.EventPartitions, MaxAge: opt.EventAge, MaxBytes: opt.EventBytes, Logger: opt.Logger, Now: opt.Clock.Now}
	if opt.Storage.dir != "" {
		return eventlog.Open(n.folder.eventDir(), o)
	}
	o.MaxBytes = cmp.Or(o.MaxBytes, memoryEvents)
	return eventlog.OpenMemory(o)
}

// listen puts the gate in front of a door's listener: the hub serves.
func (n *Node) listen(l net.Listener, door string) net.Listener {
	n.health.change(func() { n.health.serving = true })
	return n.gate.Listen(l, door)
}

// ServeMQTTS serves MQTT over TLS on l until the node closes, and then returns
// ErrClosed. It owns l.
func (n *Node) ServeMQTTS(l net.Listener) error {
	return n.mqtt.ServeTLS(n.listen(l, "mqtts"), n.TLSConfig())
}

// ServeMQTT serves MQTT over plain TCP on l as ServeMQTTS does. Keys and tokens
// cross the network readable: it is for loopback.
func (n *Node) ServeMQTT(l net.Listener) error { return n.mqtt.Serve(n.listen(l, "mqtt")) }

// ServeAMQPS serves AMQP over TLS on l as ServeMQTTS does.
func (n *Node) ServeAMQPS(l net.Listener) error {
	return n.amqp.ServeTLS(n.listen(l, "amqps"), n.TLSConfig())
}

// ServeAMQP serves AMQP over plain TCP on l as ServeMQTT does, such as for
// clients of Event Hubs that are told to use an emulator.
func (n *Node) ServeAMQP(l net.Listener) error { return n.amqp.Serve(n.listen(l, "amqp")) }

// ServeHTTPS serves REST, and MQTT and AMQP over WebSocket, over TLS on l as
// ServeMQTTS does.
func (n *Node) ServeHTTPS(l net.Listener) error {
	return n.rest.ServeTLS(n.listen(l, "https"), n.TLSConfig())
}

// TLSConfig returns the TLS configuration of the hub's listeners: TLS 1.2 or
// later, a certificate for every name of the hub that renews itself, and a
// client certificate that is asked for and never required.
func (n *Node) TLSConfig() *tls.Config {
	if n.Controls == nil {
		return n.folder.tlsConfig()
	}
	return n.expiring(n.folder.tlsConfig())
}

// RootCAs returns a pool with the CA of the hub's certificate.
func (n *Node) RootCAs() *x509.CertPool { return n.folder.rootCAs() }

// CACertificate returns the CA of the hub's certificate in PEM form.
func (n *Node) CACertificate() []byte { return n.folder.caPEM() }

// Policies returns the shared access policies with their keys.
func (n *Node) Policies() []hub.Policy { return n.folder.policies() }

// Publish writes to the data folder where the hub listens, so that commands of
// the same user find it. It does nothing for a hub in memory.
func (n *Node) Publish(info Info) error {
	n.publishing.Lock()
	defer n.publishing.Unlock()
	n.published = info
	return n.publish()
}

// publishClock writes to the data folder how far the hub's clock has been moved.
func (n *Node) publishClock() error {
	n.publishing.Lock()
	defer n.publishing.Unlock()
	if n.published.HostName == "" { // it does not listen yet
		return nil
	}
	return n.publish()
}

// publish publishes n.published. The caller holds n.publishing.
func (n *Node) publish() error {
	info := n.published
	info.TestControls, info.ClockAhead = n.Controls != nil, n.Clock().Ahead()
	info.ConsumerGroups, info.IDScope = n.consumerGroups, n.IDScope()
	return n.folder.publish(info)
}

// Draining has health checks say that the node stops, which it does not yet, and clients of
// REST make new connections.
func (n *Node) Draining() {
	n.health.change(func() { n.health.stopping = true })
	n.rest.Draining()
}

// Shutdown stops accepting, lets direct methods and requests in flight finish
// until ctx ends, and then closes the node. A node of several ends its connections
// little by little meanwhile, since the others get them.
func (n *Node) Shutdown(ctx context.Context) error {
	n.health.change(func() { n.health.stopping = true })
	n.mqtt.StopListening()
	n.amqp.StopListening()
	n.rest.StopListening()
	var dismissing sync.WaitGroup
	if n.Clustered() {
		dismissing.Go(func() { n.Dismiss(ctx) })
	}
	n.Jobs.Drain(ctx)
	err := n.rest.Shutdown(ctx)
	dismissing.Wait()
	return cmp.Or(n.Close(), err)
}

// Close ends all connections, stores what is pending and returns when every
// goroutine of n has ended. It may be called more than once.
func (n *Node) Close() error {
	n.once.Do(func() {
		n.health.forget()
		var errs []error
		for i := len(n.closing) - 1; i >= 0; i-- {
			errs = append(errs, n.closing[i]())
		}
		n.closeErr = errors.Join(errs...)
	})
	return n.closeErr
}
