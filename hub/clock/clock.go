// Package clock is a hub's time: the machine's, or one that its owner moves.
//
// A nil [*Clock] is the machine's time, at no cost. [New] makes one that
// [Clock.Advance] moves: token expiry, time to live, locks, job starts and
// whatever else waits for the hub's time then come at once. Deadlines of the
// network stay with the machine's time, since no clock makes a peer faster.
package clock

import (
	"context"
	"sync"
	"time"
)

// A Clock tells the time and wakes who waits for it. A nil one is the machine's
// and cannot be moved. Its methods may be called concurrently.
type Clock struct {
	mu      sync.Mutex // guards what follows
	ahead   time.Duration
	stopped time.Time // what a stopped clock shows, before ahead; zero if it goes
	alarms  map[*alarm]struct{}
	moved   chan struct{} // closed at the next move
}

// New returns a clock that shows the machine's time until it is moved.
func New() *Clock {
	return &Clock{alarms: make(map[*alarm]struct{}), moved: make(chan struct{})}
}

// Stopped returns a clock that shows t until it is moved. Timers of it go on
// all the same: what is to happen in a second happens in a second.
func Stopped(t time.Time) *Clock {
	c := New()
	c.stopped = t
	return c
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	if c == nil {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked()
}

func (c *Clock) nowLocked() time.Time {
	if !c.stopped.IsZero() {
		return c.stopped.Add(c.ahead)
	}
	return time.Now().Add(c.ahead)
}

// Unmoved returns the time that the clock would show if it had not been moved.
func (c *Clock) Unmoved() time.Time {
	if c == nil {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked().Add(-c.ahead)
}

// Since returns how much time has passed since t.
func (c *Clock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// Advance moves the clock by d, or back if d is negative, and with it all that
// waits for it.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
	for a := range c.alarms {
		a.due = a.due.Add(-d)
		a.real.Reset(max(time.Until(a.due), 0))
	}
	close(c.moved)
	c.moved = make(chan struct{})
}

// Ahead returns by how much the clock has been moved.
func (c *Clock) Ahead() time.Duration {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ahead
}

// Moved returns a channel that is closed when the clock is moved next: for who
// has turned a time of the clock into one of the machine. It is nil for a clock
// that cannot be moved.
func (c *Clock) Moved() <-chan struct{} {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moved
}

// A Timer sends on C when its time has come, once or, from NewTicker, again and
// again. Sends that nobody waits for are left out.
type Timer struct {
	C     <-chan time.Time
	stop  func()
	reset func(time.Duration)
}

// Stop ends the timer. What it has sent before may still be in C.
func (t *Timer) Stop() { t.stop() }

// Reset has the timer send after d, and a ticker every d from then on.
func (t *Timer) Reset(d time.Duration) { t.reset(d) }

// NewTimer returns a timer that sends the time after d.
func (c *Clock) NewTimer(d time.Duration) *Timer {
	if c == nil {
		t := time.NewTimer(d)
		return &Timer{t.C, func() { t.Stop() }, func(d time.Duration) { t.Reset(d) }}
	}
	return c.newTimer(d, false)
}

// NewTicker returns a timer that sends the time every d, which must be above 0.
func (c *Clock) NewTicker(d time.Duration) *Timer {
	if c == nil {
		t := time.NewTicker(d)
		return &Timer{t.C, t.Stop, t.Reset}
	}
	return c.newTimer(d, true)
}

func (c *Clock) newTimer(d time.Duration, again bool) *Timer {
	sent := make(chan time.Time, 1)
	a := c.alarm(d, again, func() {
		select {
		case sent <- c.Now():
		default:
		}
	})
	return &Timer{sent, a.stop, func(d time.Duration) {
		select {
		case <-sent:
		default:
		}
		a.set(d)
	}}
}

// At calls f when the clock shows t, in a goroutine of its own, and returns what
// has it not called.
func (c *Clock) At(t time.Time, f func()) (stop func()) {
	if c == nil {
		timer := time.AfterFunc(time.Until(t), f)
		return func() { timer.Stop() }
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.alarmLocked(t.Sub(c.nowLocked()), false, f).stop
}

// WithTimeout returns a context that ends after d, with the cause, unless the
// parent ends before.
func (c *Clock) WithTimeout(parent context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc) {
	if c == nil {
		return context.WithTimeoutCause(parent, d, cause)
	}
	ctx, cancel := context.WithCancelCause(parent)
	a := c.alarm(d, false, func() { cancel(cause) })
	return ctx, func() {
		a.stop()
		cancel(nil)
	}
}

// An alarm calls a function at a time of a clock that can be moved.
type alarm struct {
	clock *Clock
	ring  func()

	// Guarded by clock.mu:
	real  *time.Timer
	due   time.Time     // on the machine's clock
	every time.Duration // 0 is once
}

func (c *Clock) alarm(d time.Duration, again bool, ring func()) *alarm {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.alarmLocked(d, again, ring)
}

func (c *Clock) alarmLocked(d time.Duration, again bool, ring func()) *alarm {
	a := &alarm{clock: c, ring: ring}
	if again {
		a.every = d
	}
	c.alarms[a] = struct{}{}
	a.due = time.Now().Add(d)
	a.real = time.AfterFunc(d, a.rings)
	return a
}

func (a *alarm) rings() {
	if a.counts() {
		a.ring()
	}
}

// counts reports whether the alarm is still wanted, and sets it again if it is
// to ring again.
func (a *alarm) counts() bool {
	a.clock.mu.Lock()
	defer a.clock.mu.Unlock()
	if _, ok := a.clock.alarms[a]; !ok {
		return false
	}
	if a.every == 0 {
		delete(a.clock.alarms, a)
	} else {
		a.setLocked(a.every)
	}
	return true
}

func (a *alarm) set(d time.Duration) {
	a.clock.mu.Lock()
	defer a.clock.mu.Unlock()
	if a.every > 0 {
		a.every = d
	}
	a.clock.alarms[a] = struct{}{}
	a.setLocked(d)
}

func (a *alarm) setLocked(d time.Duration) {
	a.due = time.Now().Add(d)
	a.real.Reset(d)
}

func (a *alarm) stop() {
	a.clock.mu.Lock()
	defer a.clock.mu.Unlock()
	delete(a.clock.alarms, a)
	a.real.Stop()
}
