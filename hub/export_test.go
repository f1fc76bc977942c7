package hub

// SweepQueues does at once what the hub does every second.
func (s *Server) SweepQueues() { s.sweepQueues() }
