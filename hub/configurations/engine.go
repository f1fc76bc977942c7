package configurations

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/store"
)

// Options configure New. The zero value works.
type Options struct {
	// Logger receives what an operator wants to know. Nil discards.
	Logger *slog.Logger
}

// An Engine keeps the configurations of a hub and applies them to its twins.
// Its methods may be called concurrently.
type Engine struct {
	hub      *hub.Server
	store    *store.DB
	clock    *clock.Clock
	log      *slog.Logger
	state    state
	compared prometheus.Counter
	failed   prometheus.Counter

	ctx     context.Context // ends when the engine closes
	running *serve.Group
}

// New reads the configurations in db, the store of h, and begins to apply them. Of
// several nodes all know them, and the leader applies them. It is the one that h
// tells of changes.
func New(h *hub.Server, db *store.DB, opt Options) (*Engine, error) {
	e := &Engine{
		hub: h, store: db, clock: h.Clock(),
		log: cmp.Or(opt.Logger, slog.New(slog.DiscardHandler)),
		compared: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "iotdm_hub_twins_configured_total", Help: "Twins compared with the automatic configurations.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "iotdm_hub_configuration_failures_total", Help: "Automatic configurations or twins of theirs that could not be applied; each is tried again within five minutes.",
		}),
	}
	e.state.init(h.Leads)
	e.state.forget()
	if err := h.Subscribe(disk.Configuration, e.take); err != nil {
		return nil, fmt.Errorf("load configurations: %w", err)
	}
	h.OnMembers(e.state.wake.Set)
	h.OnChange(e.state.touch)
	hub.AnswerAsLeader(h, verbWait, func(ctx context.Context, _ struct{}) (struct{}, error) { return struct{}{}, e.wait(ctx) })
	e.Resume()
	return e, nil
}

// Suspend applies nothing any more until Resume. It returns when nothing is being
// applied. Close, Suspend and Resume are called one after the other.
func (e *Engine) Suspend() { e.Close() }

// Reload forgets all configurations and reads those in the store. Nobody may
// change any meanwhile.
func (e *Engine) Reload() error {
	e.state.forget()
	err := e.store.Scan([]byte(disk.Configuration), store.PrefixEnd([]byte(disk.Configuration)), func(k, v []byte) error {
		return e.take(store.Change{Key: k, Value: v})
	})
	if err != nil {
		return fmt.Errorf("load configurations: %w", err)
	}
	return nil
}

// Resume begins to apply configurations, or again after Suspend, to all twins
// first.
func (e *Engine) Resume() {
	e.running = serve.NewGroup()
	e.ctx = e.running.Context()
	e.running.Go(e.configure)
}

// Metrics returns what is counted, to be registered.
func (e *Engine) Metrics() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	return []prometheus.Collector{
		e.compared, e.failed,
		gauge("iotdm_hub_configurations", "Automatic configurations, IoT Edge deployments among them.", func() float64 { return float64(len(e.state.list())) }),
		gauge("iotdm_hub_configuration_twins_waiting", "Twins that have changed and wait for the automatic configurations.", func() float64 {
			_, twins, _ := e.state.lag()
			return float64(twins)
		}),
		gauge("iotdm_hub_configurations_waiting", "Automatic configurations that have changed and are still to be applied.", func() float64 {
			_, _, changed := e.state.lag()
			return float64(changed)
		}),
		gauge("iotdm_hub_configuration_lag_seconds", "How long the oldest change of a twin or an automatic configuration has been waiting to be applied.", func() float64 {
			since, _, _ := e.state.lag()
			if since.IsZero() {
				return 0
			}
			return time.Since(since).Seconds()
		}),
	}
}

// Close returns when nothing is being applied any more.
func (e *Engine) Close() {
	e.running.Close()
	e.running.Wait()
}
