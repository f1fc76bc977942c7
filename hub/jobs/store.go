package jobs

import (
	"encoding/json"
	"errors"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// change changes a stored job, and so the one in memory.
func (s *Scheduler) change(id string, change func(*Job) error) (job Job, err error) {
	err = s.store.Update(lock(id), func(tx *store.Tx) error {
		job, err = s.changeTx(tx, id, change)
		return err
	})
	return job, err
}

func (s *Scheduler) changeTx(tx *store.Tx, id string, change func(*Job) error) (Job, error) {
	data, err := tx.Get(key(id))
	job, err := decode(id, data, err)
	if err != nil {
		return Job{}, err
	}
	if err := change(&job); err != nil {
		return Job{}, err
	}
	return job, write(tx, job)
}

// Keys of the store. A job's rows are those of its devices.
func key(id string) []byte            { return disk.Of(disk.Job, id, "") }
func lock(id string) string           { return disk.Job + id }
func rowsOf(id string) []byte         { return disk.Below(disk.JobRow, id) }
func rowKey(id, device string) []byte { return disk.Of(disk.JobRow, id, device) }

func write(tx *store.Tx, job Job) error {
	data, err := json.Marshal(job)
	if err != nil {
		return err
	}
	tx.Set(key(job.ID), data)
	return nil
}

// decode turns the result of a Get into a job.
func decode(id string, data []byte, err error) (Job, error) {
	if errors.Is(err, store.ErrNotFound) {
		return Job{}, hub.ErrJobNotFound.With("%s", words.Clip(id))
	}
	if err != nil {
		return Job{}, err
	}
	var job Job
	err = json.Unmarshal(data, &job)
	job.tidy()
	return job, err
}

// tidy makes a Spec that was read from JSON what it was before.
func (spec *Spec) tidy() {
	if spec.Twin != nil {
		spec.Twin.Tags, spec.Twin.Desired = words.Present(spec.Twin.Tags), words.Present(spec.Twin.Desired)
	}
}

// purge forgets jobs that ended longer ago than the history goes.
func (s *Scheduler) purge() error {
	var old []string
	err := s.store.Scan([]byte(disk.Job), store.PrefixEnd([]byte(disk.Job)), func(k, v []byte) error {
		job, err := decode("", v, nil)
		if err == nil && !job.Ended.IsZero() && s.hub.Now().Sub(job.Ended) > history {
			old = append(old, job.ID)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range old {
		if err := s.forget(id); err != nil {
			return err
		}
	}
	return nil
}

// forget removes a job that has ended, and what came of its devices.
func (s *Scheduler) forget(id string) error {
	return s.store.Update(lock(id), func(tx *store.Tx) error {
		tx.Delete(key(id))
		tx.DeletePrefix(rowsOf(id))
		return nil
	})
}

// persist is Update for what must be stored: while the disk refuses, it waits.
// It returns a refusal of fn, or why the hub closes.
func (s *Scheduler) persist(lock string, fn func(tx *store.Tx) error) error {
	return s.insist(func() error { return s.store.Update(lock, fn) })
}

// insist calls update again while the disk refuses, but not while the hub shuts
// down, which must not wait for a disk. The error is then the disk's.
func (s *Scheduler) insist(update func() error) error {
	for {
		err := update()
		var refusal *hub.Error
		if err == nil || errors.As(err, &refusal) || errors.Is(err, store.ErrClosed) || s.jobs.dispatch.Err() != nil {
			return err
		}
		s.log.Warn("a job cannot be stored", words.LogReason, err)
		timer := s.clock.NewTimer(retry)
		select {
		case <-timer.C:
		case <-s.jobs.dispatch.Done():
			timer.Stop()
			return err
		}
	}
}

// persistJob is change for what must be stored.
func (s *Scheduler) persistJob(id string, change func(*Job)) (job Job, err error) {
	err = s.persist(lock(id), func(tx *store.Tx) error {
		job, err = s.changeTx(tx, id, func(j *Job) error { change(j); return nil })
		return err
	})
	return job, err
}
