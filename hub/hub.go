// Package hub is an IoT hub in one process: the official device and service
// SDKs of Azure IoT Hub use it unmodified.
//
// One [Server] owns all state. MQTT (over TLS, plain TCP or WebSocket) and REST
// are two doors to the same methods: a door parses and prints, the rules live
// behind it. An acknowledged change is on disk before it is acknowledged.
//
//	s, err := hub.New(hub.Options{Data: dir})
//	...
//	go s.ServeMQTTS(mqttListener)
//	go s.ServeHTTPS(httpsListener)
//
// Tests use package hubtest, which starts one on free ports.
package hub

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/store"
)

// Options configure New. The zero value is a hub that keeps nothing on disk.
type Options struct {
	// Data is the folder that holds the hub's state, keys and certificates.
	// It is created if missing. Empty keeps everything in memory.
	Data string

	// Ephemeral keeps the state in memory and uses Data for the rest: keys,
	// certificates, and where the hub listens.
	Ephemeral bool

	// HostNames are names and addresses of the hub besides localhost,
	// *.localhost, 127.0.0.1 and ::1. The certificate names them all, and
	// connection strings may use any of them.
	HostNames []string

	// Policies replace the keys and rights of the shared access policies of
	// the same name, or add to them. They are stored with the hub.
	Policies []Policy

	// Entra lets service clients authenticate with Microsoft Entra ID, besides
	// shared access signatures. Nil refuses their tokens.
	Entra *Entra

	// EventAge is how long events are kept, unless EventBytes, their size on
	// disk, is reached before. 0 is one day, as on IoT Hub, and 1 GiB (64 MiB
	// if there is no Data).
	EventAge   time.Duration
	EventBytes int64

	// EventSources are the sources of the events that are kept, besides
	// SourceTelemetry. Nil is all. Without SourceTwinChange a hub whose devices
	// report as fast as it can take it stores up to a fifth more patches.
	EventSources []EventSource

	// MaxJobs is how many scheduled jobs run at a time. 0 is 10.
	MaxJobs int

	// Logger receives what an operator wants to know at level Info, and every
	// packet and request at level Debug. Nil discards.
	Logger *slog.Logger

	// Now is the hub's clock. Nil is time.Now.
	Now func() time.Time
}

// A Server is a running hub. Its methods may be called concurrently.
type Server struct {
	log    *slog.Logger
	now    func() time.Time
	folder *folder
	store  *store.DB
	names  hostNames
	links  links
	jobs   jobs

	configurations configurations
	metrics        *metrics
	entra          *entra

	queues    queues
	feedbacks feedbacks

	events  *eventlog.Log
	sources []EventSource
	name    string // the hub's name in the events it makes
	started uint64 // when, in 100 ns since the year 1601

	policies map[string]Policy // by lower-cased name; read only

	authorities atomic.Pointer[x509.CertPool] // the verified CAs of devices; nil to be read

	ctx    context.Context // ends when the server closes
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine the server starts
	http   *http.Server

	following context.Context // ends before requests are waited for

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	closed    bool
	closeErr  error
	closeOnce sync.Once
}

// ErrClosed is returned by the Serve methods after Close or Shutdown.
var ErrClosed = errors.New("the hub is closed")

// New opens the hub's state, making the data folder, a private CA and the
// shared access policies on the first run. It does not listen.
func New(opt Options) (*Server, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	principals, err := newEntra(opt.Entra, opt.Now)
	if err != nil {
		return nil, err
	}
	f, err := openFolder(opt.Data, opt.HostNames, opt.Policies, opt.Now)
	if err != nil {
		return nil, err
	}
	db, err := openStore(f, opt)
	if err != nil {
		f.close()
		return nil, err
	}
	events, err := openEvents(f, opt)
	if err != nil {
		return nil, errors.Join(err, db.Close(), f.close())
	}
	s := &Server{
		log:       opt.Logger,
		now:       opt.Now,
		folder:    f,
		store:     db,
		events:    events,
		sources:   opt.EventSources,
		name:      hubName(opt.HostNames),
		started:   uint64(fileTime(opt.Now())),
		names:     newHostNames(opt.HostNames),
		policies:  policiesByName(f.policies()),
		listeners: make(map[net.Listener]struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.entra = principals
	s.links.init()
	s.queues.init()
	if err := s.loadQueues(); err != nil {
		return nil, errors.Join(err, s.events.Close(), s.store.Close(), s.folder.close())
	}
	s.jobs.init(s.ctx, opt.MaxJobs)
	s.configurations.init()
	if err := errors.Join(s.indexTwins(), s.loadJobs(), s.loadConfigurations()); err != nil {
		return nil, errors.Join(fmt.Errorf("load twins, jobs and configurations: %w", err), events.Close(), db.Close(), f.close())
	}
	s.metrics = newMetrics(s)
	s.http = s.newHTTPServer()
	var stopFollowing context.CancelFunc
	s.following, stopFollowing = context.WithCancel(s.ctx)
	s.http.RegisterOnShutdown(stopFollowing)
	s.goroutine(s.keepActivity)
	s.goroutine(s.keepQueues)
	s.goroutine(s.trimEvents)
	s.goroutine(s.scheduleJobs)
	s.goroutine(s.configure)
	return s, nil
}

func openStore(f *folder, opt Options) (*store.DB, error) {
	if f.dir == "" || opt.Ephemeral {
		return store.OpenMemory(opt.Logger)
	}
	return store.Open(f.storeDir(), opt.Logger)
}

// goroutine starts f as a goroutine that Close waits for. It reports false,
// without starting f, when the server is closed.
func (s *Server) goroutine(f func()) bool {
	if !s.enter() {
		return false
	}
	go func() {
		defer s.wg.Done()
		f()
	}()
	return true
}

// enter makes Close wait until s.wg.Done is called. It reports false when the
// server is closed.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Add(1)
	return true
}

// track remembers l until it is closed, so that Close closes it.
func (s *Server) track(l net.Listener) (untrack func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		l.Close()
		return nil, ErrClosed
	}
	s.listeners[l] = struct{}{}
	s.wg.Add(1)
	return func() {
		l.Close()
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		s.wg.Done()
	}, nil
}

// ServeHTTPS serves REST, and MQTT over WebSocket, over TLS on l until the
// server closes, and then returns ErrClosed. It owns l.
func (s *Server) ServeHTTPS(l net.Listener) error {
	untrack, err := s.track(l)
	if err != nil {
		return err
	}
	defer untrack()
	s.log.Info("listening for REST and MQTT over WebSocket", logAddr, l.Addr().String())
	err = s.http.Serve(tls.NewListener(l, s.TLSConfig()))
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return ErrClosed
	}
	return fmt.Errorf("serve REST on %s: %w", l.Addr(), err)
}

// TLSConfig returns the TLS configuration of the hub's listeners: TLS 1.2 or
// later, a certificate for every name of the hub that renews itself, and a
// client certificate that is asked for and never required.
func (s *Server) TLSConfig() *tls.Config { return s.folder.tlsConfig() }

// RootCAs returns a pool with the CA of the hub's certificate.
func (s *Server) RootCAs() *x509.CertPool { return s.folder.rootCAs() }

// CACertificate returns the CA of the hub's certificate in PEM form.
func (s *Server) CACertificate() []byte { return s.folder.caPEM() }

// Policies returns the shared access policies with their keys.
func (s *Server) Policies() []Policy { return s.folder.policies() }

// Publish writes to the data folder where the hub listens, so that commands of
// the same user find it. It does nothing for a hub in memory.
func (s *Server) Publish(info Info) error { return s.folder.publish(info) }

// Shutdown stops accepting, lets direct methods and requests in flight finish
// until ctx ends, and then closes the server.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	s.drainJobs(ctx)
	err := s.http.Shutdown(ctx)
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	return err
}

// Close ends all connections, stores what is pending and returns when every
// goroutine of s has ended. It may be called more than once.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.closed = true
		for l := range s.listeners {
			l.Close()
		}
		s.mu.Unlock()
		s.cancel()
		s.http.Close()
		s.links.closeAll(errHubClosed)
		s.wg.Wait()
		s.flushActivity()
		s.closeErr = errors.Join(s.events.Close(), s.store.Close(), s.folder.close())
	})
	return s.closeErr
}
