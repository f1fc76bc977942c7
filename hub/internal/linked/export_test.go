package linked

import (
	"context"
	"time"
)

// LoopbackOnly looks at an address that is dialled for a webhook of this machine.
var LoopbackOnly = loopbackOnly

// SetPause replaces the wait between two attempts.
func (h *Hub) SetPause(f func(context.Context, time.Duration) error) { h.pause = f }
