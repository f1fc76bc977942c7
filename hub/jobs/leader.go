package jobs

import (
	"context"
	"time"

	"github.com/iotdm/iotdm/hub"
)

// Of several nodes the leader runs the jobs. All know what is stored of them, so
// that whoever leads next goes on with them.

// What the leader is asked.
const (
	verbCreate = "jobs.create"
	verbCancel = "jobs.cancel"
	verbCount  = "jobs.count"
)

// Bounds of what is asked.
const (
	patience      = 20 * time.Second
	countPatience = 2 * time.Second
)

// answer answers what other nodes ask of this one while it leads.
func (s *Scheduler) answer() {
	hub.AnswerAsLeader(s.hub, verbCreate, func(_ context.Context, spec Spec) (Job, error) { return s.create(spec) })
	hub.AnswerAsLeader(s.hub, verbCancel, func(_ context.Context, id string) (Job, error) { return s.cancel(id) })
	hub.AnswerAsLeader(s.hub, verbCount, func(context.Context, struct{}) (map[string]Statistics, error) { return s.jobs.counted(), nil })
}

// atLeader has the leader do something to a job, and returns when that can be read
// here.
func atLeader[Q any](s *Scheduler, verb string, q Q, do func(Q) (Job, error)) (Job, error) {
	ctx, end := context.WithTimeout(context.Background(), patience)
	defer end()
	here := false
	job, err := hub.AskLeader(ctx, s.hub, verb, q, func(_ context.Context, q Q) (Job, error) {
		here = true
		return do(q)
	})
	if err == nil && !here {
		_ = s.store.Barrier(ctx) // it is done, whether or not it shows here
	}
	return job, err
}

// counted returns the statistics of the jobs that run, which only the leader
// counts: none if there is no leader now.
func (s *Scheduler) counted() map[string]Statistics {
	ctx, end := context.WithTimeout(context.Background(), countPatience)
	defer end()
	all, _ := hub.AskLeader(ctx, s.hub, verbCount, struct{}{}, func(context.Context, struct{}) (map[string]Statistics, error) {
		return s.jobs.counted(), nil
	})
	return all
}

// count completes a job that runs on another node.
func (job *Job) count(counted func() map[string]Statistics) {
	if job.Statistics != nil || job.Started.IsZero() {
		return
	}
	if n, ok := counted()[job.ID]; ok {
		job.Statistics = &n
	}
}
