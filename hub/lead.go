package hub

import (
	"context"

	"github.com/iotdm/iotdm/internal/wait"
)

// WhileLeading calls fn whenever this node begins to lead, until the server
// closes, which waits for fn. Its context ends when the node leads no more. A hub
// of one node always leads.
func (s *Server) WhileLeading(fn func(context.Context)) {
	s.running.Go(func() {
		changed := wait.NewSignal()
		if s.peers != nil {
			defer s.peers.OnChange(changed.Set)()
		}
		for s.ctx.Err() == nil {
			if s.Leads() {
				s.lead(changed, fn)
				continue
			}
			select {
			case <-changed:
			case <-s.ctx.Done():
			}
		}
	})
}

// lead calls fn once, and returns when it has returned and the node leads no more.
func (s *Server) lead(changed wait.Signal, fn func(context.Context)) {
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		fn(ctx)
	}()
	for ctx.Err() == nil && s.Leads() {
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	cancel()
	<-ended
}
