package hub

// SweepQueues does at once what the hub does every second.
func (s *Server) SweepQueues() { s.sweepQueues() }

// PendingRefusals returns how many identities' refusals wait to be stored.
func (s *Server) PendingRefusals() int { return len(s.refusals.pending()) }
