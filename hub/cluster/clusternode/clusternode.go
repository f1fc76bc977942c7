// Package clusternode runs nodes of a hub that has several: it puts what package
// cluster and package natsevents make of NATS under a node of package node.
//
//	h, err := clusternode.Open(ctx, clusternode.Options{Storage: node.Folder(dir), Name: "a", NATS: natsconn.Options{URL: url}})
//	...
//	for {
//		life, err := h.Join(ctx, options)
//		...
//		failed := life.Serve(listeners)
//		<-life.Lost() // and end it, and try again
//	}
package clusternode

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/cluster"
	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natsevents"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/store"
)

// Options configure Open.
type Options struct {
	// Storage is where the node keeps its copy of the hub's state, and what is its
	// own. It may be memory.
	Storage node.Storage

	// Name is the node's, which no other has.
	Name string

	NATS   natsconn.Options
	Logger *slog.Logger // nil discards

	// Health answers health checks, of this process and of each life. It stays the
	// caller's. Nil is none, but for those of each life's options.
	Health *node.Health
}

// A Hub is what a process has of a hub with several nodes, whether it is a member or
// not. Its methods may be called concurrently, but Join.
type Hub struct {
	*cluster.Cluster

	opt     Options
	conn    *natsconn.Conn // for events
	events  *natsevents.Log
	closing []func() error // what Close does, the last first
}

// Open takes possession of the data folder, connects to NATS and follows the hub's
// log, for which it waits until Init has made it. Nothing is served before Join.
func Open(ctx context.Context, opt Options) (_ *Hub, err error) {
	opt.Logger = cmp.Or(opt.Logger, slog.New(slog.DiscardHandler))
	h := &Hub{opt: opt}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	storage, release, err := opt.Storage.Hold()
	if err != nil {
		return nil, err
	}
	h.closing = append(h.closing, release)
	h.opt.Storage = storage
	instance, err := storage.Instance()
	if err != nil {
		return nil, err
	}
	h.Cluster, err = cluster.Open(ctx, cluster.Options{
		NATS: opt.NATS, Name: opt.Name, Dir: storage.StoreDir(), Instance: instance, Logger: opt.Logger,
		Waiting: func(why error) {
			opt.Logger.Warn("waiting for a hub to be made", "err", why)
			opt.Health.Between("there is no hub in NATS yet: make it with iotdm hub cluster init")
		},
	})
	if err != nil {
		return nil, err
	}
	opt.Health.Between("not a member yet")
	h.closing = append(h.closing, h.Cluster.Close)
	opt.NATS.Name, opt.NATS.Logger = "iotdm hub "+opt.Name+" (events)", opt.Logger
	if h.conn, err = natsconn.Connect(ctx, opt.NATS); err != nil {
		return nil, err
	}
	h.closing = append(h.closing, func() error { h.conn.Close(); return nil })
	err = natsconn.Retry(ctx, func(ctx context.Context) error {
		h.events, err = natsevents.Open(ctx, h.conn, natsevents.Options{Store: h.LogID(), Logger: opt.Logger})
		return err
	})
	if err != nil {
		return nil, err
	}
	h.closing = append(h.closing, h.events.Close)
	forget := hub.KeepOwnEvents(h.Store(), h.events)
	h.closing = append(h.closing, func() error { forget(); return nil })
	return h, nil
}

// Close gives all of it up. Lives have to be ended before.
func (h *Hub) Close() error {
	var errs []error
	for i := len(h.closing) - 1; i >= 0; i-- {
		errs = append(errs, h.closing[i]())
	}
	h.closing = nil
	return errors.Join(errs...)
}

// A Life is one time that this process is a member and serves.
type Life struct {
	*node.Node
	member *cluster.Membership
	health *node.Health
}

// Join makes the process a member, and then a node with what options return, of which
// it sets Storage and Cluster.
func (h *Hub) Join(ctx context.Context, options func() (node.Options, error)) (*Life, error) {
	m, err := h.Cluster.Join(ctx)
	if err != nil {
		return nil, err
	}
	opt, err := options()
	if err != nil {
		return nil, errors.Join(err, leave(m))
	}
	opt.Storage = h.opt.Storage
	opt.Cluster = &node.Cluster{
		Name: h.opt.Name, Store: h.Store(), Events: h.events, Peers: m, Alone: m.Alone(),
		Metrics: slices.Concat(m.Metrics(), h.events.Metrics()),
		Behind:  m.Behind, Health: h.opt.Health,
	}
	n, err := node.New(opt)
	if err != nil {
		h.opt.Health.Between("could not serve")
		return nil, errors.Join(err, leave(m))
	}
	return &Life{n, m, h.opt.Health}, nil
}

// Lost is closed when what this life serves does not count any more.
func (l *Life) Lost() <-chan struct{} { return l.member.Lost() }

// Why returns why the life is lost; see cluster.MayJoinAgain.
func (l *Life) Why() error { return l.member.Why() }

// Self returns the epoch of this life.
func (l *Life) Self() uint64 { return l.member.Self() }

// End ends what is served, as Shutdown of a Node does, and then the membership, so
// that what is stored at the end still counts.
func (l *Life) End(ctx context.Context) error {
	err := errors.Join(l.Shutdown(ctx), leave(l.member))
	l.health.Between("not a member any more")
	return err
}

// leave tells the others, unless that takes too long: they notice.
func leave(m *cluster.Membership) error {
	const patience = 3 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := m.Leave(ctx)
	if errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrNoLog) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// Events have cluster.Init make the stream of events with settings, but for Copies,
// or change that of a hub that is there: it is a value of InitOptions.More.
func Events(s natsevents.Settings) func(context.Context, *natsconn.Conn, int) error {
	return func(ctx context.Context, conn *natsconn.Conn, copies int) error {
		s.Copies = copies
		return natsevents.Create(ctx, conn, s)
	}
}

// Init makes a hub in NATS; see cluster.Init. Without More it makes the stream of
// events with the usual settings, or leaves it those that it has.
func Init(ctx context.Context, opt cluster.InitOptions) (existed bool, err error) {
	return cluster.Init(ctx, withEvents(opt))
}

// Recover begins a new log with what a node has in its data folder; see
// cluster.Recover.
func Recover(ctx context.Context, opt cluster.InitOptions, storage node.Storage) (pos uint64, err error) {
	storage, release, err := storage.Hold()
	if err != nil {
		return 0, err
	}
	pos, err = cluster.Recover(ctx, withEvents(opt), storage.StoreDir())
	if err == nil {
		err = os.RemoveAll(storage.StoreDir()) // it is of the old log
	}
	return pos, errors.Join(err, release())
}

func withEvents(opt cluster.InitOptions) cluster.InitOptions {
	if opt.More == nil {
		opt.More = Events(natsevents.Settings{})
	}
	return opt
}
