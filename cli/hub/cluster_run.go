package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/systemd"
	"github.com/iotdm/iotdm/hub/cluster"
	"github.com/iotdm/iotdm/hub/cluster/clusternode"
	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/store"
)

// A clusterRun is one process that is a node of a hub with several.
type clusterRun struct {
	s       output.Streams
	o       hubRunOptions
	log     *slog.Logger
	opt     node.Options
	manager systemd.Manager
	dir     string
	notes   []string

	on     node.Listeners
	health net.Listener
	info   node.Info // what the first life has published
}

// run lives as a member again and again, until ctx ends, or what it is told must not
// be lived with. It owns the listeners.
func (r *clusterRun) run(ctx context.Context) error {
	name, err := ownName(r.o.node)
	if err == nil && r.opt.TestControls {
		err = fail.Usagef("--test-controls is for a hub of a single node")
	}
	if err != nil {
		r.closeListeners()
		return err
	}
	// A copy that begins with a snapshot takes its time, and so may NATS, and who makes
	// the hub.
	var health *node.Health
	if r.health != nil {
		health = node.ServeHealth(r.health, r.log)
		defer health.Close()
	}
	if err := r.monitor(ctx); err != nil {
		r.on.Close()
		return err
	}
	h, err := clusternode.Open(ctx, clusternode.Options{Storage: r.opt.Storage, Name: name, NATS: r.o.cluster.nats(), Logger: r.log, Health: health})
	if err != nil {
		r.on.Close()
		if ctx.Err() != nil {
			r.s.Note("Stopped before the hub was there")
			return nil
		}
		return explainCluster(err)
	}
	for first := true; err == nil && (first || ctx.Err() == nil); first = false {
		err = r.live(ctx, h, first)
		if err != nil && cluster.MayJoinAgain(err) {
			r.log.Warn("this node serves nobody until it is a member again", "err", err)
			err = nil
		}
	}
	return errors.Join(explainCluster(err), h.Close())
}

// monitor sees that NATS keeps what it acknowledges, as far as it can be asked. A
// server that does not answer holds no node up: another one may be away, too.
func (r *clusterRun) monitor(ctx context.Context) error {
	if len(r.o.cluster.monitors) == 0 {
		r.log.Warn("it is not known whether NATS keeps what it acknowledges when the power fails: have the monitoring ports of its servers asked with --cluster-monitor")
		return nil
	}
	_, err := r.o.cluster.monitor(ctx, func(err error) { r.log.Warn(err.Error()) })
	return err
}

func (r *clusterRun) closeListeners() {
	r.on.Close()
	if r.health != nil {
		_ = r.health.Close()
	}
}

// live is one life. Its error is nil if ctx has ended it.
func (r *clusterRun) live(ctx context.Context, h *clusternode.Hub, first bool) error {
	life, err := r.join(ctx, h, first)
	if err != nil {
		r.on.Close()
		return err
	}
	if !first {
		if err := r.listenAgain(ctx); err != nil {
			return errors.Join(err, endLife(r.s, life, true))
		}
	}
	if first {
		r.info = r.on.Info(r.on.HostName(r.o.hosts.Value()))
		if r.health != nil {
			r.info.HealthAddr = r.health.Addr().String()
		}
	}
	if err := life.Publish(r.info); err != nil {
		r.on.Close()
		return errors.Join(err, endLife(r.s, life, true))
	}
	if first {
		r.o.greet(r.s, r.info, r.dir, r.notes)
	}
	failed := life.Serve(r.on)
	r.manager.Ready()
	watched := watchHub(ctx, r.s, life.Node, r.manager)
	var lost bool
	select {
	case <-ctx.Done():
		r.s.Note("Stopping ...")
	case err = <-failed:
	case <-life.Lost():
		err, lost = life.Why(), true
	}
	watched()
	if ctx.Err() != nil {
		r.manager.Stopping()
		r.drain(life)
	}
	return errors.Join(err, endLife(r.s, life, lost))
}

// join becomes a member. After the first time it tries until it is one.
func (r *clusterRun) join(ctx context.Context, h *clusternode.Hub, first bool) (*clusternode.Life, error) {
	for {
		life, err := h.Join(ctx, func() (node.Options, error) { return r.opt, nil })
		if first || ctx.Err() != nil || !errors.Is(err, store.ErrNoLog) && !errors.Is(err, store.ErrFenced) && !errors.Is(err, natsconn.ErrUnreachable) {
			return life, err
		}
		r.log.Warn("this node cannot become a member yet", "err", err)
	}
}

// listenAgain listens where the first life did.
func (r *clusterRun) listenAgain(ctx context.Context) (err error) {
	for _, door := range []struct {
		l    *net.Listener
		addr string
	}{
		{&r.on.MQTTS, r.info.MQTTSAddr}, {&r.on.HTTPS, r.info.HTTPSAddr}, {&r.on.AMQPS, r.info.AMQPSAddr},
		{&r.on.MQTT, r.info.MQTTAddr}, {&r.on.AMQP, r.info.AMQPAddr},
	} {
		*door.l = nil
		if door.addr == "" || err != nil {
			continue
		}
		*door.l, err = listenFor(ctx, door.addr)
	}
	if err != nil {
		r.on.Close()
	}
	return err
}

// listenFor listens where this process has until a moment ago.
func listenFor(ctx context.Context, addr string) (net.Listener, error) {
	const patience = 5 * time.Second
	for deadline := time.Now().Add(patience); ; {
		l, err := net.Listen("tcp", addr)
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return l, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// drain lets balancers notice that this node stops, before it does.
func (r *clusterRun) drain(life *clusternode.Life) {
	if r.o.drain <= 0 {
		return
	}
	life.Draining()
	r.s.Note("Balancers have %v to notice", time.Duration(r.o.drain))
	select {
	case <-time.After(time.Duration(r.o.drain)):
	case <-life.Lost():
	}
}

// endLife ends a life, at once if it is lost.
func endLife(s output.Streams, life *clusternode.Life, lost bool) error {
	const (
		patience = 10 * time.Second
		grace    = 20 * time.Second // the log may be silent for so long
	)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if lost {
		cancel()
	}
	ended := make(chan error, 1)
	go func() { ended <- life.End(ctx) }()
	var err error
	select {
	case err = <-ended:
	case <-time.After(patience + grace):
		return fmt.Errorf("stop the hub: it has not ended after %v; everything that was acknowledged is kept", patience+grace)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		s.Note("Stopped after %v, with requests in flight", patience)
		return nil
	}
	if lost && (errors.Is(err, context.Canceled) || errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrNoLog)) {
		return nil
	}
	return err
}
