package jobs

// Purge does at once what the scheduler does every hour.
func (s *Scheduler) Purge() error { return s.purge() }

// Forget removes a job that has ended.
func (s *Scheduler) Forget(id string) error { return s.forget(id) }
