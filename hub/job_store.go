package hub

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/iotdm/iotdm/hub/store"
)

// changeJob changes a stored job, and the one in memory with it.
func (s *Server) changeJob(id string, change func(*Job) error) (job Job, err error) {
	err = s.store.Update(jobLock(id), func(tx *store.Tx) error {
		job, err = s.changeJobTx(tx, id, change)
		return err
	})
	return job, err
}

func (s *Server) changeJobTx(tx *store.Tx, id string, change func(*Job) error) (Job, error) {
	data, err := tx.Get(jobKey(id))
	job, err := decodeJob(id, data, err)
	if err != nil {
		return Job{}, err
	}
	if err := change(&job); err != nil {
		return Job{}, err
	}
	tx.OnCommit(func() { s.jobs.update(job) })
	return job, writeJob(tx, job)
}

// Keys of the store. A job's rows are those of its devices.
const (
	jobPrefix    = "job/"
	jobRowPrefix = "jobdevice/"
)

func jobKey(id string) []byte      { return []byte(jobPrefix + id) }
func jobRows(id string) []byte     { return []byte(jobRowPrefix + id + "/") }
func jobLock(id string) string     { return jobPrefix + id }
func jobRow(id, dev string) []byte { return []byte(jobRowPrefix + id + "/" + dev) }

func writeJob(tx *store.Tx, job Job) error {
	data, err := json.Marshal(job)
	if err != nil {
		return err
	}
	tx.Set(jobKey(job.ID), data)
	return nil
}

// decodeJob turns the result of a Get into a job.
func decodeJob(id string, data []byte, err error) (Job, error) {
	if errors.Is(err, store.ErrNotFound) {
		return Job{}, ErrJobNotFound.with("%s", clip(id))
	}
	if err != nil {
		return Job{}, err
	}
	var job Job
	err = json.Unmarshal(data, &job)
	if job.Twin != nil {
		job.Twin.Tags, job.Twin.Desired = present(job.Twin.Tags), present(job.Twin.Desired)
	}
	return job, err
}

// purgeJobs forgets jobs that ended longer ago than the history goes.
func (s *Server) purgeJobs() error {
	var old []string
	err := s.store.Scan([]byte(jobPrefix), prefixEnd([]byte(jobPrefix)), func(k, v []byte) error {
		job, err := decodeJob("", v, nil)
		if err == nil && !job.Ended.IsZero() && s.now().Sub(job.Ended) > jobHistory {
			old = append(old, job.ID)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range old {
		if err := s.forgetJob(id); err != nil {
			return err
		}
	}
	return nil
}

// forgetJob removes a job that has ended, and what came of its devices.
func (s *Server) forgetJob(id string) error {
	return s.store.Update(jobLock(id), func(tx *store.Tx) error {
		tx.Delete(jobKey(id))
		tx.DeletePrefix(jobRows(id))
		return nil
	})
}

// persist is Update for what must be stored: while the disk refuses, it waits.
// It returns a refusal of fn, or why the server closes.
func (s *Server) persist(lock string, fn func(tx *store.Tx) error) error {
	for {
		err := s.store.Update(lock, fn)
		var refusal *Error
		if err == nil || errors.As(err, &refusal) || errors.Is(err, store.ErrClosed) || s.ctx.Err() != nil {
			return err
		}
		s.log.Warn("a job cannot be stored", logReason, err)
		select {
		case <-time.After(jobRetry):
		case <-s.ctx.Done():
			return err
		}
	}
}

// persistJob is changeJob for what must be stored.
func (s *Server) persistJob(id string, change func(*Job)) (job Job, err error) {
	err = s.persist(jobLock(id), func(tx *store.Tx) error {
		job, err = s.changeJobTx(tx, id, func(j *Job) error { change(j); return nil })
		return err
	})
	return job, err
}
