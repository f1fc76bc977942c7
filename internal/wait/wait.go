// Package wait has two ways to wait that the standard library leaves to write out: for a time that a
// context may cut short, and for word that there is something to do.
package wait

import (
	"context"
	"time"
)

// For returns nil when d has passed, or as soon as ctx ends [context.Cause] of it. With a d of zero or
// less it does not wait.
func For(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A Signal tells a goroutine that there is something to do. It is of capacity 1: what is told again
// before the goroutine has looked is told once. Whoever waits receives from it.
type Signal chan struct{}

// NewSignal returns a Signal that is not set.
func NewSignal() Signal { return make(Signal, 1) }

// Set lets one receive succeed, now or later. It never blocks, and may be called from any goroutine.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}
