package jobs

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/wait"
)

// A pool is the jobs that have not ended. Each is in memory while it waits and
// runs; its devices never are, however many they are.
type pool struct {
	limit int         // how many run at a time
	leads func() bool // this node runs them
	wake  wait.Signal // there may be something to start

	// dispatch ends when no more devices may be called because the hub is
	// shutting down.
	dispatch context.Context
	drain    context.CancelCauseFunc

	mu     sync.Mutex // guards what follows, and the members of activeJob
	active map[string]*activeJob
}

// An activeJob is a job that has not ended.
type activeJob struct {
	id      string // never changes
	job     Job
	stored  bool                    // it may start
	running bool                    // it has a goroutine, or is about to be cancelled
	ctx     context.Context         // ends when no more devices may be called; set while running
	cancel  context.CancelCauseFunc // ends ctx; set while running
	left    chan struct{}           // closed when its goroutine has ended
	ended   chan struct{}           // closed when the job has ended
}

// errCancelled is why a job reaches no more devices.
var errCancelled = errors.New("the job was cancelled")

func (j *pool) init(limit int, leads func() bool) {
	j.limit, j.leads = limit, leads
	j.wake = wait.NewSignal()
	j.active = make(map[string]*activeJob)
}

// rest has the jobs wait whose runs have been ended.
func (j *pool) rest() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, a := range j.active {
		if a.cancel != nil {
			a.running, a.ctx, a.cancel, a.left = false, nil, nil, make(chan struct{})
		}
	}
}

// forget forgets all jobs. Who waits for the end of one waits no more.
func (j *pool) forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, a := range j.active {
		close(a.ended)
	}
	clear(j.active)
}

// add makes a job known that is about to be stored. It refuses one that would
// start at once when all places are taken; jobs with a later start wait, of
// which there may be only so many too.
func (j *pool) add(job Job, now time.Time) (*activeJob, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	started, later := 0, 0
	for _, a := range j.active {
		if a.running || !a.job.Start.After(now) {
			started++
		} else {
			later++
		}
	}
	switch {
	case job.Start.After(now) && later >= maxForLater:
		return nil, hub.ErrJobQuota
	case !job.Start.After(now) && started >= j.limit:
		return nil, hub.ErrTooManyJobs
	}
	a := newActiveJob(job)
	j.active[job.ID] = a
	return a, nil
}

func newActiveJob(job Job) *activeJob {
	return &activeJob{id: job.ID, job: job, left: make(chan struct{}), ended: make(chan struct{})}
}

// put takes over what has been stored of a job that has not ended, but for the
// statistics, which the one in memory knows best. It lets one start that had been
// added, even if storing it had seemed to fail.
func (j *pool) put(job Job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a := j.active[job.ID]
	if a == nil {
		a = newActiveJob(job)
		j.active[job.ID] = a
	}
	job.Statistics = cmp.Or(a.job.Statistics, job.Statistics)
	a.job, a.stored = job, true
	j.wake.Set()
}

// drop forgets a job that could not be stored.
func (j *pool) drop(a *activeJob) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !a.stored && j.active[a.id] == a {
		delete(j.active, a.id)
	}
}

// snapshot returns a job that has not ended as it is now.
func (j *pool) snapshot(id string, now time.Time) (Job, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a := j.active[id]
	if a == nil || !a.stored {
		return Job{}, false
	}
	job := a.job
	if job.Statistics != nil {
		statistics := *job.Statistics
		job.Statistics = &statistics
	}
	job.Status = job.statusAt(now)
	return job, true
}

// statusAt tells a job that waits for its start time from one that waits for a
// place.
func (job *Job) statusAt(now time.Time) Status {
	if job.Status == Queued && job.Start.After(now) {
		return Scheduled
	}
	return job.Status
}

// summary counts the jobs that have not ended by status, and their devices that
// have no outcome.
func (j *pool) summary(now time.Time) (jobs map[Status]int, open Statistics) {
	j.mu.Lock()
	defer j.mu.Unlock()
	jobs = make(map[Status]int)
	for _, a := range j.active {
		if !a.stored {
			continue
		}
		jobs[a.job.statusAt(now)]++
		if n := a.job.Statistics; n != nil {
			open.Pending += n.Pending
			open.Running += n.Running
		}
	}
	return jobs, open
}

// count sets the statistics of a job.
func (j *pool) count(a *activeJob, n *Statistics) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a.job.Statistics = n
}

// counted returns the statistics of the jobs that have any.
func (j *pool) counted() map[string]Statistics {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make(map[string]Statistics)
	for id, a := range j.active {
		if a.job.Statistics != nil {
			all[id] = *a.job.Statistics
		}
	}
	return all
}

// statistics returns a copy of the statistics of a job, if it has any.
func (j *pool) statistics(a *activeJob) *Statistics {
	j.mu.Lock()
	defer j.mu.Unlock()
	if a.job.Statistics == nil {
		return nil
	}
	n := *a.job.Statistics
	return &n
}

// move counts devices of a job by their statuses, and has outcome called with
// those that got theirs.
func (j *pool) move(a *activeJob, devices []row, outcome func(rowStatus)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range devices {
		d := &devices[i]
		if d.counted.open() && !d.status.open() {
			outcome(d.status)
		}
		d.counted.count(a.job.Statistics, -1)
		d.status.count(a.job.Statistics, 1)
		d.counted = d.status
	}
}

// claim finds a job to be cancelled: one that waits, and will not start unless
// it is unclaimed, or one that runs.
func (j *pool) claim(id string) (waiting, running *activeJob) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a := j.active[id]
	switch {
	case a == nil || !a.stored:
		return nil, nil
	case a.running && a.cancel != nil:
		return nil, a
	case a.running:
		return nil, nil // somebody else is cancelling it
	}
	a.running = true
	return a, nil
}

func (j *pool) unclaim(a *activeJob) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a.running = false
	j.wake.Set()
}

// remove forgets a job that has ended, if it was known, and calls ended before
// who waits for it is told.
func (j *pool) remove(id string, ended func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if a := j.active[id]; a != nil {
		delete(j.active, id)
		ended()
		close(a.ended)
		j.wake.Set()
	}
}

// done returns what is closed when the job has ended, or nil if it is not
// active.
func (j *pool) done(id string) <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if a := j.active[id]; a != nil {
		return a.ended
	}
	return nil
}

// due returns the next job to start. Without one it returns how long there
// will be none, unless something changes.
func (j *pool) due(now time.Time) (next *activeJob, wait time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var waiting []*activeJob
	running := 0
	for _, a := range j.active {
		switch {
		case a.running:
			running++
		case a.stored:
			waiting = append(waiting, a)
		}
	}
	wait = purgeInterval
	if !j.leads() {
		return nil, wait
	}
	if running >= j.limit || len(waiting) == 0 || j.dispatch.Err() != nil {
		return nil, wait
	}
	next = slices.MinFunc(waiting, func(a, b *activeJob) int {
		return cmp.Or(a.job.Start.Compare(b.job.Start), a.job.Created.Compare(b.job.Created), cmp.Compare(a.id, b.id))
	})
	if early := next.job.Start.Sub(now); early > 0 {
		return nil, min(early, wait)
	}
	next.running = true
	next.ctx, next.cancel = context.WithCancelCause(j.dispatch)
	return next, 0
}

// purgeInterval is how often the hub looks for jobs older than the history.
const purgeInterval = time.Hour

// take makes known what is stored of a job now: of all that there are, and then of
// those that change.
func (s *Scheduler) take(c store.Change) error {
	id := string(c.Key[len(disk.Job):])
	if c.Value == nil {
		s.jobs.remove(id, func() {})
		return nil
	}
	job, err := decode(id, c.Value, nil)
	if err != nil {
		return err
	}
	if job.Ended.IsZero() {
		s.jobs.put(job)
		return nil
	}
	s.jobs.remove(id, func() {
		if c.Mine {
			s.metrics.ended.WithLabelValues(string(job.Status)).Inc()
		}
	})
	return nil
}

// schedule starts jobs when their time has come, and forgets old ones, while this
// node leads and until the server closes.
func (s *Scheduler) schedule() {
	var purged time.Time
	timer := s.clock.NewTimer(0)
	defer timer.Stop()
	for {
		if s.hub.Leads() && s.clock.Since(purged) >= purgeInterval {
			purged = s.clock.Now()
			if err := s.purge(); err != nil {
				s.log.Warn("forgetting old jobs", words.LogReason, err)
			}
		}
		moved := s.clock.Moved() // before the look: a move after it is not missed
		next, wait := s.jobs.due(s.hub.Now())
		if next != nil {
			if !s.running.Go(func() { s.execute(next) }) {
				close(next.left)
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-s.jobs.wake:
		case <-timer.C:
		case <-moved:
		case <-s.ctx.Done():
			return
		}
	}
}

// Drain lets direct methods of jobs that are on their way finish until ctx
// ends, and starts no more.
func (s *Scheduler) Drain(ctx context.Context) {
	s.jobs.drain(hub.ErrClosing)
	for _, a := range s.jobs.startedJobs() {
		select {
		case <-a.left:
		case <-ctx.Done():
			return
		}
	}
}

func (j *pool) startedJobs() (list []*activeJob) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, a := range j.active {
		if a.cancel != nil {
			list = append(list, a)
		}
	}
	return list
}
