//go:build unix

package natstest

import "syscall"

// Pause stops a server in the middle of what it does, until Resume.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume has it go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

// PID is that of the server's process.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.Process.Pid
}

func (s *Server) signal(sig syscall.Signal) {
	s.cluster.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.Process.Signal(sig); err != nil {
		s.cluster.t.Fatal(err)
	}
}
