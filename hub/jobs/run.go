package jobs

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
)

// Bounds of one running job.
const (
	// parallel is how many devices have their turn at the same time. A
	// direct method that waits for its device costs some KiB.
	parallel = 4096
	// twinParallel is the same for twin updates, which wait for the disk
	// alone.
	twinParallel = 256
	// batchSize is how many rows are written at once.
	batchSize = 2048
	// moment is how long an outcome waits for others to be written with.
	moment = 2 * time.Millisecond
	// reconnect is how long at least a job that goes on after a restart of
	// the hub, or of a node, waits for a device: it lost its connection.
	reconnect = time.Minute
	// retry is how long a job waits when the disk refuses a write.
	retry = time.Second
)

// errTime is why a job reaches no more devices.
var errTime = errors.New("the job's execution time has ended")

// A run is a job with a goroutine: it hands out the devices' turns. Nothing
// but the store knows all devices of the job. A row is "running" on disk
// before its direct method is sent, and has its outcome on disk after that. So
// when the hub starts again it knows which devices have not been called; of
// those that were running it cannot know, calls them once more, and their rows
// say so. So it does when the node of a device's connection goes. Of a row that
// says so already there is no third call.
type run struct {
	scheduler *Scheduler
	active    *activeJob
	job       *Job            // as it was when the run began; read only
	feed      context.Context // ends when no more turns may begin
	calls     context.Context // ends when no turn may go on

	connectTimeout time.Duration // how long a direct method waits for its device

	slots   chan struct{}  // a token for every turn
	turns   sync.WaitGroup // the turns
	results chan row       // outcomes that wait to be stored
}

// execute runs a job until it ends or the server closes.
func (s *Scheduler) execute(a *activeJob) {
	defer close(a.left)
	defer a.cancel(nil)
	job, _ := s.jobs.snapshot(a.id, s.hub.Now())
	var err error
	resumed := !job.Started.IsZero()
	if !resumed && job.Status != Cancelled {
		job, err = s.start(a, job)
	}
	if err == nil {
		err = s.countRows(a)
	}
	if err != nil && a.ctx.Err() == nil {
		s.fail(a, err)
		return
	}
	if job.Status == Cancelled {
		a.cancel(errCancelled)
	}
	left := job.Started.Add(job.MaxTime).Sub(s.hub.Now())
	feed, stopFeed := s.clock.WithTimeout(a.ctx, left, errTime)
	defer stopFeed()
	calls, stopCalls := s.clock.WithTimeout(s.ctx, left, errTime)
	defer stopCalls()
	r := &run{scheduler: s, active: a, job: &job, feed: feed, calls: calls, results: make(chan row, batchSize)}
	if job.Method != nil {
		r.connectTimeout = job.Method.ConnectTimeout
		if resumed {
			r.connectTimeout = max(r.connectTimeout, reconnect)
		}
	}
	if err := r.run(); err != nil {
		s.fail(a, err)
	}
}

// fail ends a job that cannot run.
func (s *Scheduler) fail(a *activeJob, err error) {
	s.end(a, func(j *Job) { j.Status, j.FailureReason = Failed, err.Error() })
}

// start writes down the devices of a job, and that it runs. It may have
// been interrupted at that before.
func (s *Scheduler) start(a *activeJob, job Job) (Job, error) {
	rows := rowsOf(job.ID)
	err := s.persist(lock(job.ID), func(tx *store.Tx) error {
		tx.DeletePrefix(rows)
		return nil
	})
	if err != nil {
		return job, err
	}
	var batch []row
	write := func() error {
		now := s.hub.Now()
		defer func() { batch = batch[:0] }()
		return s.persist(lock(job.ID), func(tx *store.Tx) error {
			for _, d := range batch {
				tx.Set(rowKey(job.ID, d.device), d.encode(&job, now))
			}
			return nil
		})
	}
	q, err := query.ParseCondition(job.Condition)
	if err != nil {
		return job, err
	}
	for id, err := range s.hub.Matching(a.ctx, q) {
		if err != nil {
			return job, err
		}
		if batch = append(batch, row{device: id.Device, status: rowPending}); len(batch) < batchSize {
			continue
		}
		if err := write(); err != nil {
			return job, err
		}
	}
	if err := write(); err != nil {
		return job, err
	}
	return s.persistJob(job.ID, func(j *Job) {
		j.Started = s.hub.Now().UTC()
		if j.Status == Queued {
			j.Status = Running
		}
	})
}

// run gives every device its turn and ends the job, unless the server closes.
func (r *run) run() error {
	turn, most := r.update, twinParallel
	if r.job.Type == Method {
		turn, most = r.call, parallel
	}
	r.slots = make(chan struct{}, most)
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
	r.scheduler.end(r.active, func(j *Job) {
		if j.Status != Cancelled {
			j.Status = Completed
		}
	})
	return nil
}

// stopped reports whether the hub is closing, so that the job goes on when it
// starts again.
func (r *run) stopped() bool { return r.scheduler.stopped(r.active) }

func (s *Scheduler) stopped(a *activeJob) bool {
	return errors.Is(context.Cause(a.ctx), hub.ErrClosing) || s.ctx.Err() != nil
}

// end stores the end of a job.
func (s *Scheduler) end(a *activeJob, end func(*Job)) {
	if s.stopped(a) {
		return
	}
	statistics := s.jobs.statistics(a)
	job, err := s.persistJob(a.id, func(j *Job) {
		j.Ended, j.Statistics = s.hub.Now().UTC(), statistics
		end(j)
	})
	if err != nil {
		return // the server closes
	}
	s.log.Info("job ended", words.LogJob, job.ID, words.LogStatus, job.Status, words.LogReason, job.FailureReason)
}

// dispatch begins turns in the order of the devices' ids.
func (r *run) dispatch(turn func([]row)) error {
	last := ""
	for {
		page, err := r.scheduler.openRows(r.job.ID, last, batchSize)
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
func (r *run) take(most int) (n int) {
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
func (r *run) turn(f func() (handedIn bool)) {
	r.turns.Go(func() {
		if !f() {
			<-r.slots
		}
	})
}

// finish gives a device its outcome, where err may come from the end of ctx.
// When the hub closes there is none: the row stays as it is.
func (r *run) finish(d row, ctx context.Context, err error) (handedIn bool) {
	if err != nil {
		if r.scheduler.ctx.Err() != nil || ctx.Err() != nil && r.stopped() {
			return false
		}
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = outOfTime(context.Cause(ctx), "before the device answered")
		}
	}
	d.outcome(r.scheduler.hub.Now(), err)
	r.results <- d
	return true
}

// outOfTime is the failure of a device that the job's time did not suffice for;
// other causes it returns as they are.
func outOfTime(cause error, when string) error {
	if errors.Is(cause, errTime) {
		return hub.ErrGatewayTimeout.With("%v %s", cause, when)
	}
	return cause
}

// mark stores that the devices of batch are about to be called.
func (r *run) mark(batch []row) error {
	now := r.scheduler.hub.Now()
	for i := range batch {
		batch[i].status, batch[i].started = rowRunning, now
	}
	return r.writeRows(batch)
}

// writeRows stores rows and counts them. A device's row has one writer at a
// time, so the lock is one that nobody waits for.
func (r *run) writeRows(batch []row) error {
	now := r.scheduler.hub.Now()
	err := r.scheduler.persist(string(rowKey(r.job.ID, batch[0].device)), func(tx *store.Tx) error {
		for i := range batch {
			tx.Set(rowKey(r.job.ID, batch[i].device), batch[i].encode(r.job, now))
		}
		return nil
	})
	if err == nil {
		r.scheduler.jobs.move(r.active, batch, r.scheduler.metrics.outcome)
	}
	return err
}

// collect stores outcomes, as many at once as come in within a moment, and then
// frees their slots: so the turns that follow begin in batches too.
func (r *run) collect() {
	batch := make([]row, 0, batchSize)
	timer := r.scheduler.clock.NewTimer(0)
	defer timer.Stop()
	for d := range r.results {
		batch = append(batch[:0], d)
		timer.Reset(moment)
		for more := true; more && len(batch) < batchSize; {
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
func (r *run) abandon(cause error) error {
	for {
		page, err := r.scheduler.openRows(r.job.ID, "", batchSize)
		if err != nil || len(page) == 0 {
			return err
		}
		for i := range page {
			why := outOfTime(cause, "before the device had its turn")
			if page[i].status == rowRunning {
				why = hub.ErrGatewayTimeout.With("the hub stopped during the call, so that it is not known whether the device received it")
			}
			page[i].outcome(r.scheduler.hub.Now(), why)
		}
		if err := r.writeRows(page); err != nil {
			return err
		}
	}
}
