package jobs

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/disk"
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
// starts others when their time comes. Of several nodes the leader does.
func New(h *hub.Server, db *store.DB, opt Options) (*Scheduler, error) {
	s := &Scheduler{
		hub: h, store: db, clock: h.Clock(),
		log: cmp.Or(opt.Logger, slog.New(slog.DiscardHandler)),
	}
	s.metrics = newMetrics()
	s.jobs.init(cmp.Or(opt.Limit, defaultLimit), h.Leads)
	if err := h.Subscribe(disk.Job, s.take); err != nil {
		return nil, fmt.Errorf("load jobs: %w", err)
	}
	h.OnMembers(s.jobs.wake.Set)
	s.answer()
	s.Resume()
	return s, nil
}

// Suspend ends the runs of jobs and starts none until Resume, with which they go
// on as after a restart. It returns when they have ended. Close, Drain, Suspend
// and Resume are called one after the other.
func (s *Scheduler) Suspend() {
	s.Close()
	s.jobs.rest()
}

// Reload forgets all jobs and reads those in the store. Nobody may change any
// meanwhile.
func (s *Scheduler) Reload() error {
	s.jobs.forget()
	err := s.store.Scan([]byte(disk.Job), store.PrefixEnd([]byte(disk.Job)), func(k, v []byte) error {
		return s.take(store.Change{Key: k, Value: v})
	})
	if err != nil {
		return fmt.Errorf("load jobs: %w", err)
	}
	return nil
}

// Resume begins to run jobs, or again after Suspend.
func (s *Scheduler) Resume() {
	s.running = serve.NewGroup()
	s.ctx = s.running.Context()
	s.jobs.dispatch, s.jobs.drain = context.WithCancelCause(s.ctx)
	s.running.Go(s.schedule)
}

// Close ends the runs of jobs, which go on when the hub starts again, and
// returns when they have ended.
func (s *Scheduler) Close() {
	s.running.Close()
	s.running.Wait()
}
