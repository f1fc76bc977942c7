package hub

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/iotdm/iotdm/hub/internal/words"
)

// askAllPatience is how long other nodes may take to tell something of themselves.
const askAllPatience = 2 * time.Second

// askAll asks all other nodes what they Answer, at the same time, and calls each with
// what came of that in time, one after the other.
func askAll[Q, A any](ctx context.Context, s *Server, verb string, q Q, each func(node uint64, a A, err error)) {
	ctx, cancel := context.WithTimeout(ctx, askAllPatience)
	defer cancel()
	var all errgroup.Group
	var mu sync.Mutex // held while each is called
	for _, n := range s.Nodes() {
		if n.Self {
			continue
		}
		all.Go(func() error {
			a, err := Ask[Q, A](ctx, s, n.Epoch, verb, q)
			mu.Lock()
			defer mu.Unlock()
			each(n.Epoch, a, err)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		s.log.Debug("a node does not tell of itself", words.LogVerb, verb, words.LogReason, err)
	}
}
