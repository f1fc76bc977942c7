package jobs

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/store"
)

// Options configure New. The zero value works.
type Options struct {
	// Limit is how many jobs run at a time. 0 is 10.
	Limit int

	// Logger receives what an operator wants to know. Nil discards.
	Logger *slog.Logger
}

// A Scheduler runs the jobs of a hub. Its methods may be called concurrently.
type Scheduler struct {
	hub   *hub.Server
	store *store.DB
	clock *clock.Clock
	log   *slog.Logger
	jobs  pool

	metrics metrics

	ctx     context.Context // ends when the scheduler closes
	running *serve.Group
}

// New goes on with the jobs in db, the store of h, that have not ended, and
// starts others when their time comes.
func New(h *hub.Server, db *store.DB, opt Options) (*Scheduler, error) {
	s := &Scheduler{
		hub: h, store: db, clock: h.Clock(),
		log:     cmp.Or(opt.Logger, slog.New(slog.DiscardHandler)),
		running: serve.NewGroup(),
	}
	s.ctx = s.running.Context()
	s.metrics = newMetrics()
	s.jobs.init(s.ctx, cmp.Or(opt.Limit, defaultLimit))
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("load jobs: %w", err)
	}
	s.running.Go(s.schedule)
	return s, nil
}

// Close ends the runs of jobs, which go on when the hub starts again, and
// returns when they have ended.
func (s *Scheduler) Close() {
	s.running.Close()
	s.running.Wait()
}
