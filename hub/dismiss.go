package hub

import (
	"context"
	"slices"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
)

// A node that stops ends so many connections each dismissPause, that is 500 a second, or
// more if it has not the time.
const (
	dismissPause = 20 * time.Millisecond
	dismissEach  = 10
)

// Dismiss ends the connections of all devices and modules little by little, so that the other
// nodes of the hub get them so, and each not before the direct methods that it was
// called have been answered. It returns when that is done, or when ctx ends. Only
// those should come meanwhile that have been accepted before.
func (s *Server) Dismiss(ctx context.Context) {
	all := func() []Link { return s.links.all(func(Peer) bool { return true }) }
	left, each := all(), dismissEach
	if deadline, ok := ctx.Deadline(); ok {
		pauses := time.Until(deadline) / dismissPause
		each = max(each, len(left)/max(int(pauses)/2, 1))
	}
	ended := make(map[Link]bool)
	for len(left) > 0 && ctx.Err() == nil {
		n := 0
		left = slices.DeleteFunc(left, func(l Link) bool {
			if ended[l] {
				return true
			}
			if n == each || !l.EndIdle(ErrClosing) {
				return false
			}
			ended[l] = true
			n++
			return true
		})
		if wait.For(ctx, dismissPause) != nil {
			return
		}
		if len(left) == 0 {
			left = all()
		}
	}
}
