package controls

import (
	"fmt"
	"time"

	"github.com/iotdm/iotdm/hub"
)

// A Clock is what the hub's clock shows.
type Clock struct {
	Time  time.Time     // the hub's
	Ahead time.Duration // of the machine's time
}

// maxAhead keeps the hub's time where a number of nanoseconds can hold it.
const maxAhead = 100 * 365 * 24 * time.Hour

// Clock returns what the hub's clock shows.
func (c *Controls) Clock() Clock {
	return Clock{Time: c.opt.Clock.Now().UTC(), Ahead: c.opt.Clock.Ahead()}
}

// Advance moves the clock, and with it all that waits for the hub's time:
// tokens expire, messages too, locks end, jobs start, events grow old.
//
// Errors: hub.ErrArgumentInvalid if d is not above 0, or too much.
func (c *Controls) Advance(d time.Duration) (now Clock, err error) {
	err = c.change(func() error {
		if d <= 0 {
			return hub.ErrArgumentInvalid.With("the clock goes forward only, and back to the machine's time by a reset")
		}
		if d > maxAhead-c.opt.Clock.Ahead() {
			return hub.ErrArgumentInvalid.With("the clock can be at most %d years ahead", maxAhead/(365*24*time.Hour))
		}
		return c.move(d)
	})
	return c.Clock(), err
}

// ResetClock has the clock show the machine's time again. What has happened
// because it was moved stays as it is.
func (c *Controls) ResetClock() (now Clock, err error) {
	err = c.change(func() error { return c.move(-c.opt.Clock.Ahead()) })
	return c.Clock(), err
}

// move moves the clock. The caller has c.mu.
func (c *Controls) move(d time.Duration) error {
	if d == 0 {
		return nil
	}
	c.opt.Clock.Advance(d)
	if c.opt.Moved == nil {
		return nil
	}
	if err := c.opt.Moved(); err != nil {
		return fmt.Errorf("tell of the hub's clock: %w", err)
	}
	return nil
}
