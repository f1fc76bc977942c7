package configurations

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
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

	ctx     context.Context // ends when the engine closes
	running *serve.Group
}

// New reads the configurations in db, the store of h, and begins to apply them.
// It is the one that h tells of changes.
func New(h *hub.Server, db *store.DB, opt Options) (*Engine, error) {
	e := &Engine{
		hub: h, store: db, clock: h.Clock(),
		log:     cmp.Or(opt.Logger, slog.New(slog.DiscardHandler)),
		running: serve.NewGroup(),
		compared: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "iotdm_hub_twins_configured_total", Help: "Twins compared with the automatic configurations.",
		}),
	}
	e.ctx = e.running.Context()
	e.state.init()
	if err := e.load(); err != nil {
		return nil, fmt.Errorf("load configurations: %w", err)
	}
	h.OnChange(e.state.touch)
	e.running.Go(e.configure)
	return e, nil
}

// Metrics returns what is counted, to be registered.
func (e *Engine) Metrics() []prometheus.Collector { return []prometheus.Collector{e.compared} }

// Close returns when nothing is being applied any more.
func (e *Engine) Close() {
	e.running.Close()
	e.running.Wait()
}
