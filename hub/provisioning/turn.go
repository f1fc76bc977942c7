package provisioning

import (
	"context"
	"strings"
	"sync"
)

// turns have the registrations of one device run one after the other, also while
// they wait for other hubs. Only ids that somebody has proved to be are in it.
type turns struct {
	mu  sync.Mutex // guards what follows; never held while waiting
	ids map[string]*turn
}

type turn struct {
	held chan struct{} // has one element while it is held
	refs int           // holders and waiters
}

// take waits for the turn of a registration id as long as ctx does, and reports
// whether it had to.
func (t *turns) take(ctx context.Context, id string) (done func(), waited bool, err error) {
	id = strings.ToLower(id)
	t.mu.Lock()
	one := t.ids[id]
	if one == nil {
		one = &turn{held: make(chan struct{}, 1)}
		t.ids[id] = one
	}
	one.refs++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.refs--; one.refs == 0 {
			delete(t.ids, id)
		}
	}
	done = func() {
		<-one.held
		leave()
	}
	select {
	case one.held <- struct{}{}:
		return done, false, nil
	default:
	}
	select {
	case one.held <- struct{}{}:
		return done, true, nil
	case <-ctx.Done():
		leave()
		return nil, false, context.Cause(ctx)
	}
}
