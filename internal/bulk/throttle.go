package bulk

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hubrest"
)

// A throttle makes all requests of a long operation wait together when the hub
// says that there are too many. The client has repeated such a request a few
// times by then; an operation of an hour has more patience.
type throttle struct {
	paused func(time.Duration) // tells people; called for each pause; may be nil

	mu    sync.Mutex // guards what follows
	pause time.Duration
	until time.Time
}

const (
	firstPause   = 2 * time.Second
	longestPause = time.Minute
)

// do calls request until the hub does not refuse it with "too many requests".
// It returns early with the reason that ctx ended.
func (t *throttle) do(ctx context.Context, request func() error) error {
	for {
		if err := t.wait(ctx); err != nil {
			return err
		}
		err := request()
		if refusal, ok := errors.AsType[*hubrest.Error](err); ok && refusal.Status == http.StatusTooManyRequests {
			t.refused()
			continue
		}
		if err == nil {
			t.mu.Lock()
			t.pause = 0
			t.mu.Unlock()
		}
		return err
	}
}

func (t *throttle) wait(ctx context.Context) error {
	t.mu.Lock()
	d := time.Until(t.until)
	t.mu.Unlock()
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refused begins a pause, longer than the last one, unless there is one.
func (t *throttle) refused() {
	t.mu.Lock()
	now := time.Now()
	if now.Before(t.until) {
		t.mu.Unlock()
		return
	}
	t.pause = min(max(2*t.pause, firstPause), longestPause)
	t.until = now.Add(t.pause)
	pause := t.pause
	t.mu.Unlock()
	if t.paused != nil {
		t.paused(pause)
	}
}
