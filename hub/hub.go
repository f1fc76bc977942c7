// Package hub is the rules and the state of an IoT hub: identities, twins,
// direct methods, messages, events and queries, and who may do what. It parses
// no wire: package node puts the doors in front of it, over which the official
// device and service SDKs of Azure IoT Hub use it unmodified.
//
// One [Server] owns all state. A change of an identity or a twin is made by a
// [Tx]; a live connection is a [Link]; what the rules refuse is an [Error]. An
// acknowledged change is on disk before it is acknowledged.
//
// Programs start with package node, and tests with package hubtest. What this
// package exports besides is for the rooms around it, and may change with them;
// a data folder is read by every later version.
package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/hub/store"
)

// Options configure New.
type Options struct {
	// Store and Events are where the state is. They are needed, and stay the
	// caller's, who closes them after the Server.
	Store  *store.DB
	Events EventLog

	// Peers are the other nodes of the hub, whose stores are replicas of one log.
	// Nil is a hub of one node.
	Peers Peers

	// HostNames are names and addresses of the hub besides localhost,
	// *.localhost, 127.0.0.1 and ::1: connection strings and tokens may use any
	// of them.
	HostNames []string

	// Policies are the shared access policies. None accepts no service client.
	Policies []Policy

	// Bearer checks a token of Microsoft Entra ID and returns its principal;
	// package entra makes it. Nil refuses such tokens.
	Bearer func(ctx context.Context, token string) (Caller, error)

	// EventSources are the sources of the events that are kept, besides
	// SourceTelemetry. Nil is all. Without SourceTwinChange a hub whose devices
	// report as fast as it can take it stores up to a fifth more patches.
	EventSources []EventSource

	// ConsumerGroups are those of the built-in endpoint, besides
	// DefaultConsumerGroup. Case does not matter in their names.
	ConsumerGroups []string

	// Logger receives what an operator wants to know at level Info. Nil
	// discards.
	Logger *slog.Logger

	// Clock is the hub's time. Nil is the machine's.
	Clock *clock.Clock

	// Faults are what goes wrong on purpose in a hub under test, by the same clock. Nil is nothing, ever.
	Faults *fault.Faults

	// Journal takes down what is asked of a hub under test. Nil is nothing.
	Journal *journal.Journal

	// Replaceable allows Server.Replace. It costs requests and connections some
	// hundred nanoseconds each.
	Replaceable bool
}

// A Server is the state of a hub, and the rules. Its methods may be called
// concurrently.
type Server struct {
	log    *slog.Logger
	often  *words.Limited // log, for what devices cause as often as they like
	clock  *clock.Clock
	store  *store.DB
	names  hostNames
	links  links
	bearer func(context.Context, string) (Caller, error)
	touch  atomic.Pointer[func(ID)] // what has changed is told; nil is nobody

	faults  *fault.Faults    // nil unless the hub is under test
	journal *journal.Journal // the same

	metrics   *metrics
	refusals  refusals
	queues    queues
	feedbacks feedbacks

	queryTime  time.Duration // how long a page may take
	queryTurns chan struct{} // room for the queries that take more than one core

	peers   Peers // nil: none
	events  EventLog
	readers readers
	newest  newest
	sources []EventSource
	name    string // the hub's name in the events it makes
	started time.Time

	heardTraffic heardTraffic

	policies atomic.Pointer[map[string]Policy] // by lower-cased name; never changed, but replaced

	authorities atomic.Pointer[authorities] // the verified CAs of devices
	gate        *gate                       // nil if the state is never replaced

	ctx     context.Context // ends when the server closes
	running *serve.Group
	hearing []func() // end what the server hears of the store
}

// ErrClosed is returned by what waits for something when the hub closes.
var ErrClosed = serve.ErrClosed

// New reads what it has to know of the state, and begins to keep it.
func New(opt Options) (*Server, error) {
	s := &Server{
		log:     cmp.Or(opt.Logger, slog.New(slog.DiscardHandler)),
		clock:   opt.Clock,
		store:   opt.Store,
		events:  opt.Events,
		peers:   opt.Peers,
		bearer:  opt.Bearer,
		sources: opt.EventSources,
		name:    hubName(opt.HostNames),
		started: opt.Clock.Now(),
		names:   newHostNames(opt.HostNames),
		running: serve.NewGroup(),
		faults:  opt.Faults,
		journal: opt.Journal,

		queryTime:  MaxQueryTime,
		queryTurns: make(chan struct{}, maxLongQueries),
	}
	s.policies.Store(policiesByName(opt.Policies))
	s.often = words.NewLimited(s.log)
	s.authorities.Store(new(authorities))
	if opt.Replaceable {
		s.gate = newGate()
	}
	s.ctx = s.running.Context()
	s.links.init()
	s.refusals.init()
	s.queues.init()
	s.metrics = newMetrics(s)
	if err := s.readers.init(opt.ConsumerGroups); err != nil {
		return nil, err
	}
	s.hearing = append(s.hearing, s.store.OnTell(eventNotice, s.hearEvent), s.store.OnTell(changeNotice, s.hearChanges))
	err := errors.Join(
		s.subscribe(disk.CA, s.caChanged), s.shareLinks(), s.Subscribe(disk.Queue, s.takeQueue),
		s.subscribe(disk.Feedback, s.feedbackChanged), s.indexTwins())
	if err != nil {
		s.unsubscribe()
		return nil, fmt.Errorf("load twins and queues: %w", err)
	}
	if s.Clustered() {
		if err := s.subscribe(disk.Readers, s.hearReaders); err != nil {
			s.unsubscribe()
			return nil, fmt.Errorf("load readers: %w", err)
		}
		if shared, ok := s.events.(SharedEventLog); ok {
			s.WhileLeading(shared.PublishOwn)
		}
	}
	s.answerMessages()
	s.answerFeedback()
	s.running.Go(s.keepActivity)
	s.running.Go(s.keepQueues)
	s.running.Go(s.trimEvents)
	s.running.Go(s.keepLinks)
	return s, nil
}

// OnChange has fn called with every identity that is registered or changed, or
// whose twin is, and with the device of a module that is deleted, after the
// change is durable and before the next one of the device. In a cluster it is
// called by the node that leads, whichever makes the change. fn must not wait.
// There is one fn.
func (s *Server) OnChange(fn func(ID)) { s.touch.Store(&fn) }

// Now returns the time on the hub's clock.
func (s *Server) Now() time.Time { return s.clock.Now() }

// Started returns when the server was made.
func (s *Server) Started() time.Time { return s.started }

// Clock returns the hub's clock, nil for the machine's.
func (s *Server) Clock() *clock.Clock { return s.clock }

// Stop ends all connections, and whatever waits for one. New ones are refused.
func (s *Server) Stop() {
	s.running.Close()
	for _, l := range s.links.all(func(Peer) bool { return true }) {
		l.End(ErrClosing)
	}
}

// Close stops the server and stores what is pending. The doors have to be
// closed before, between Stop and Close.
func (s *Server) Close() {
	s.Stop()
	s.running.Wait()
	s.flushActivity()
	s.unsubscribe()
}

// subscribe has fn called with what the store has below a prefix and what changes
// there, until the server closes. See store.DB.Subscribe.
func (s *Server) subscribe(prefix string, fn func(store.Change)) error {
	cancel, err := s.store.Subscribe(prefix, fn)
	if err == nil {
		s.hearing = append(s.hearing, cancel)
	}
	return err
}

// Subscribe has fn called with what the store has below a prefix and what changes
// there, until the server closes; see store.DB.Subscribe. It fails if fn does for
// what there is; later errors of fn are logged. It is for those that are made with
// the server.
func (s *Server) Subscribe(prefix string, fn func(store.Change) error) error {
	var mu sync.Mutex // guards failed
	var failed error
	err := s.subscribe(prefix, func(c store.Change) {
		if err := fn(c); err != nil {
			err = fmt.Errorf("stored %q: %w", c.Key, err)
			s.log.Error("what is stored cannot be read", words.LogReason, err)
			mu.Lock()
			defer mu.Unlock()
			failed = err
		}
	})
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return failed
}

func (s *Server) unsubscribe() {
	for _, cancel := range s.hearing {
		cancel()
	}
}

// keepLinks ends connections whose credential expires after the clock was moved.
// While it is not, the doors end them by themselves.
func (s *Server) keepLinks() {
	timer := s.clock.NewTimer(0)
	defer timer.Stop()
	for moved := s.clock.Moved(); moved != nil; {
		select {
		case <-moved:
		case <-timer.C:
		case <-s.ctx.Done():
			return
		}
		moved = s.clock.Moved() // before the look: a move after it is not missed
		timer.Reset(s.endExpired().Sub(s.Now()))
	}
}
