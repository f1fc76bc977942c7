package hub

import "github.com/iotdm/iotdm/hub/store"

// Routes lists the method and path of every route, so that tests can say what
// each needs and find that none was forgotten.
func Routes() (list []string) {
	for _, r := range routes {
		list = append(list, r.method+" /"+r.path)
	}
	return list
}

// SweepQueues does at once what the hub does every second.
func (s *Server) SweepQueues() { s.sweepQueues() }

// PurgeJobs does at once what the hub does every hour.
func (s *Server) PurgeJobs() error { return s.purgeJobs() }

// ForgetJob removes a job that has ended.
func (s *Server) ForgetJob(id string) error { return s.forgetJob(id) }

// DeleteConfigurationAndDie deletes a configuration as a hub does that is killed
// before it has taken anything from the twins.
func (s *Server) DeleteConfigurationAndDie(id string) error {
	return s.store.Update(configurationPrefix, func(tx *store.Tx) error {
		tx.Delete(configurationKey(id))
		return nil
	})
}
