package agent

import (
	"context"
	"errors"
)

// A turn belongs to what changes the machine as a whole: a reboot, a factory reset, or the command that
// installs an update. There is one, so that none of these runs into another.
type turn chan struct{}

// errNotNow is the answer to who doesn't wait.
var errNotNow = errors.New("the device is being updated, reset or rebooted")

func newTurn() turn { return make(turn, 1) }

// try takes the turn if nobody has it.
func (t turn) try() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

// wait takes the turn as soon as nobody has it. It reports false if ctx ends before.
func (t turn) wait(ctx context.Context) bool {
	select {
	case t <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// taken reports whether somebody has the turn.
func (t turn) taken() bool { return len(t) > 0 }

// end gives the turn back.
func (t turn) end() { <-t }
