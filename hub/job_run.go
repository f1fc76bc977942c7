package hub

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/store"
)

// Bounds of one running job.
const (
	// jobParallel is how many devices have their turn at the same time. A
	// direct method that waits for its device costs some KiB.
	jobParallel = 4096
	// jobTwinParallel is the same for twin updates, which wait for the disk
	// alone.
	jobTwinParallel = 256
	// jobBatch is how many rows are written at once.
	jobBatch = 2048
	// jobMoment is how long an outcome waits for others to be written with.
	jobMoment = 2 * time.Millisecond
	// jobReconnect is how long at least a job that goes on after a restart of
	// the hub waits for a device: all of them lost their connection.
	jobReconnect = time.Minute
	// jobRetry is how long a job waits when the disk refuses a write.
	jobRetry = time.Second
)

// errJobTime is why a job reaches no more devices.
var errJobTime = errors.New("the job's execution time has ended")

// A jobRun is a job with a goroutine: it hands out the devices' turns. Nothing
// but the store knows all devices of the job. A row is "running" on disk
// before its direct method is sent, and has its outcome on disk after that. So
// when the hub starts again it knows which devices have not been called; of
// those that were running it cannot know, calls them again, and their rows
// say so.
type jobRun struct {
	*Server
	active *activeJob
	job    *Job            // as it was when the run began; read only
	feed   context.Context // ends when no more turns may begin
	calls  context.Context // ends when no turn may go on

	connectTimeout time.Duration // how long a direct method waits for its device

	slots   chan struct{}  // a token for every turn
	turns   sync.WaitGroup // the turns
	results chan jobDevice // outcomes that wait to be stored
}

// runJob runs a job until it ends or the server closes.
func (s *Server) runJob(a *activeJob) {
	defer close(a.left)
	defer a.cancel(nil)
	job, _ := s.jobs.snapshot(a.id, s.now())
	var err error
	resumed := !job.Started.IsZero()
	if !resumed && job.Status != JobCancelled {
		job, err = s.startJob(a, job)
	}
	if err == nil {
		err = s.countRows(a)
	}
	if err != nil && a.ctx.Err() == nil {
		s.failJob(a, err)
		return
	}
	if job.Status == JobCancelled {
		a.cancel(errJobCancelled)
	}
	left := job.Started.Add(job.MaxTime).Sub(s.now())
	feed, stopFeed := context.WithTimeoutCause(a.ctx, left, errJobTime)
	defer stopFeed()
	calls, stopCalls := context.WithTimeoutCause(s.ctx, left, errJobTime)
	defer stopCalls()
	r := &jobRun{Server: s, active: a, job: &job, feed: feed, calls: calls, results: make(chan jobDevice, jobBatch)}
	if job.Method != nil {
		r.connectTimeout = job.Method.ConnectTimeout
		if resumed {
			r.connectTimeout = max(r.connectTimeout, jobReconnect)
		}
	}
	if err := r.run(); err != nil {
		s.failJob(a, err)
	}
}

// failJob ends a job that cannot run.
func (s *Server) failJob(a *activeJob, err error) {
	s.endJob(a, func(j *Job) { j.Status, j.FailureReason = JobFailed, err.Error() })
}

// startJob writes down the devices of a job, and that it runs. It may have
// been interrupted at that before.
func (s *Server) startJob(a *activeJob, job Job) (Job, error) {
	rows := jobRows(job.ID)
	err := s.persist(jobLock(job.ID), func(tx *store.Tx) error {
		tx.DeletePrefix(rows)
		return nil
	})
	if err != nil {
		return job, err
	}
	var batch []jobDevice
	write := func() error {
		now := s.now()
		defer func() { batch = batch[:0] }()
		return s.persist(jobLock(job.ID), func(tx *store.Tx) error {
			for _, d := range batch {
				tx.Set(jobRow(job.ID, d.device), d.encode(&job, now))
			}
			return nil
		})
	}
	err = s.jobTargets(a.ctx, job.Condition, func(device string) error {
		if batch = append(batch, jobDevice{device: device, status: rowPending}); len(batch) < jobBatch {
			return nil
		}
		return write()
	})
	if err == nil {
		err = write()
	}
	if err != nil {
		return job, err
	}
	return s.persistJob(job.ID, func(j *Job) {
		j.Started = s.now().UTC()
		if j.Status == JobQueued {
			j.Status = JobRunning
		}
	})
}

// run gives every device its turn and ends the job, unless the server closes.
func (r *jobRun) run() error {
	turn, parallel := r.update, jobTwinParallel
	if r.job.Type == JobMethod {
		turn, parallel = r.call, jobParallel
	}
	r.slots = make(chan struct{}, parallel)
	var collector sync.WaitGroup
	collector.Go(r.collect)
	err := r.dispatch(turn)
	r.turns.Wait()
	close(r.results)
	collector.Wait()
	if cause := context.Cause(r.feed); err == nil && cause != nil && !r.stopped() {
		err = r.abandon(cause)
	}
	if err != nil || r.stopped() {
		return err
	}
	r.endJob(r.active, func(j *Job) {
		if j.Status != JobCancelled {
			j.Status = JobCompleted
		}
	})
	return nil
}

// stopped reports whether the hub is closing, so that the job goes on when it
// starts again.
func (r *jobRun) stopped() bool { return r.Server.stopped(r.active) }

func (s *Server) stopped(a *activeJob) bool {
	return errors.Is(context.Cause(a.ctx), errHubClosed) || s.ctx.Err() != nil
}

// endJob stores the end of a job.
func (s *Server) endJob(a *activeJob, end func(*Job)) {
	if s.stopped(a) {
		return
	}
	statistics := s.jobs.statistics(a)
	job, err := s.persistJob(a.id, func(j *Job) {
		j.Ended, j.Statistics = s.now().UTC(), statistics
		end(j)
	})
	if err != nil {
		return // the server closes
	}
	s.log.Info("job ended", logJob, job.ID, logStatus, job.Status, logReason, job.FailureReason)
	s.jobs.remove(a)
}

// dispatch begins turns in the order of the devices' ids.
func (r *jobRun) dispatch(turn func([]jobDevice)) error {
	last := ""
	for {
		page, err := r.openRows(r.job.ID, last, jobBatch)
		if err != nil || len(page) == 0 {
			return err
		}
		last = page[len(page)-1].device
		for len(page) > 0 {
			n := r.take(len(page))
			if n == 0 {
				return nil
			}
			turn(page[:n])
			page = page[n:]
		}
	}
}

// take waits for a slot and returns how many are free, up to most. It returns
// 0 when no more turns may begin.
func (r *jobRun) take(most int) (n int) {
	if r.feed.Err() != nil {
		return 0
	}
	select {
	case r.slots <- struct{}{}:
	case <-r.feed.Done():
		return 0
	}
	for n = 1; n < most; n++ {
		select {
		case r.slots <- struct{}{}:
		default:
			return n
		}
	}
	return n
}

// turn runs f as one device's turn, in a slot that take has taken. If f reports
// that it has handed in an outcome, collect frees the slot.
func (r *jobRun) turn(f func() (handedIn bool)) {
	r.turns.Go(func() {
		if !f() {
			<-r.slots
		}
	})
}

// finish gives a device its outcome, where err may come from the end of ctx.
// When the hub closes there is none: the row stays as it is.
func (r *jobRun) finish(d jobDevice, ctx context.Context, err error) (handedIn bool) {
	if err != nil {
		if r.ctx.Err() != nil || ctx.Err() != nil && r.stopped() {
			return false
		}
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = outOfTime(context.Cause(ctx), "before the device answered")
		}
	}
	d.outcome(r.now(), err)
	r.results <- d
	return true
}

// outOfTime is the failure of a device that the job's time did not suffice for;
// other causes it returns as they are.
func outOfTime(cause error, when string) error {
	if errors.Is(cause, errJobTime) {
		return ErrGatewayTimeout.with("%v %s", cause, when)
	}
	return cause
}

// mark stores that the devices of batch are about to be called.
func (r *jobRun) mark(batch []jobDevice) error {
	now := r.now()
	for i := range batch {
		batch[i].status, batch[i].started = rowRunning, now
	}
	return r.writeRows(batch)
}

// writeRows stores rows and counts them. A device's row has one writer at a
// time, so the lock is one that nobody waits for.
func (r *jobRun) writeRows(batch []jobDevice) error {
	now := r.now()
	err := r.persist(string(jobRow(r.job.ID, batch[0].device)), func(tx *store.Tx) error {
		for i := range batch {
			tx.Set(jobRow(r.job.ID, batch[i].device), batch[i].encode(r.job, now))
		}
		return nil
	})
	if err == nil {
		r.jobs.move(r.active, batch)
	}
	return err
}

// collect stores outcomes, as many at once as come in within a moment, and then
// frees their slots: so the turns that follow begin in batches too.
func (r *jobRun) collect() {
	batch := make([]jobDevice, 0, jobBatch)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for d := range r.results {
		batch = append(batch[:0], d)
		timer.Reset(jobMoment)
		for more := true; more && len(batch) < jobBatch; {
			select {
			case d, ok := <-r.results:
				if more = ok; ok {
					batch = append(batch, d)
				}
			case <-timer.C:
				more = false
			}
		}
		// It fails only when the server closes, and then the rows stay open.
		_ = r.writeRows(batch)
		for range batch {
			<-r.slots
		}
	}
}

// abandon gives the devices that had no turn their outcome.
func (r *jobRun) abandon(cause error) error {
	for {
		page, err := r.openRows(r.job.ID, "", jobBatch)
		if err != nil || len(page) == 0 {
			return err
		}
		for i := range page {
			why := outOfTime(cause, "before the device had its turn")
			if page[i].status == rowRunning {
				why = ErrGatewayTimeout.with("the hub stopped during the call, so that it is not known whether the device received it")
			}
			page[i].outcome(r.now(), why)
		}
		if err := r.writeRows(page); err != nil {
			return err
		}
	}
}
